"""Settings of scopes: edited by the command line and the SDK, had by the next run."""

from __future__ import annotations

from pathlib import Path

import pytest

from flyte_unified.testing import Backend
from tests.sdk.conftest import Client, Said
from tests.sdk.forks import Forks

DOMAIN = """
environment_variables:
  OF_DOMAIN: domain
  OF_BOTH: domain
  OF_RUN: domain
run.default_queue: slow
"""
PROJECT = """
environment_variables:
  OF_PROJECT: project
  OF_BOTH: project
run.default_queue: ~unset
"""
SCOPE = ["--domain", "development", "--project", "settled"]


@pytest.fixture(scope="module")
def user(flyte_backend: Backend, tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Client:
    flyte_backend.create_project("settled")
    return Client(flyte_backend, tmp_path_factory.mktemp("user") / "home", "settled", forks=forks)


@pytest.fixture(scope="module")
def said(user: Client, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Said]:
    directory: Path = tmp_path_factory.mktemp("settings")
    for text, scope in ((DOMAIN, SCOPE[:2]), (PROJECT, SCOPE)):
        (directory / "settings.yaml").write_text(text)
        user.flyte("edit", "settings", *scope, "--from-file", str(directory / "settings.yaml"))
    return user.say("settled")


def test_a_run_has_what_its_scopes_say(said: dict[str, Said]) -> None:
    """The narrower scope over the wider, entry by entry, and what the run says over both."""
    assert said["explicit"]["outputs"] == [["domain", "project", "project", "run"]]


def test_a_change_is_for_the_next_run(said: dict[str, Said]) -> None:
    """The SDK writes the whole of a scope; what it leaves out is inherited again."""
    assert said["changed"]["outputs"] == [["domain", None, "domain", "project"]]


def test_the_sdk_sees_where_values_are_from(said: dict[str, Said]) -> None:
    """An inherited one with its own scope."""
    found = said["effective"]["effective"]
    assert found["labels"] == [{"team": "ours"}, "PROJECT"]
    assert found["run.default_queue"] == ["slow", "DOMAIN"]


def test_the_command_line_shows_them(user: Client, said: dict[str, Said]) -> None:
    """A scope's own, and what it inherits."""
    shown = user.flyte("get", "settings", *SCOPE)
    assert "team" in shown
    assert "OF_DOMAIN" in shown
    assert "PROJECT(development/settled)" in shown or "v2" in shown


def test_an_unknown_scope_is_told(user: Client) -> None:
    """A typing error looks like no empty settings."""
    assert "nowhere" in user.flyte("get", "settings", "--domain", "nowhere", fails=True)
