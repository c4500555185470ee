"""Settings of scopes: edited by the command line and the SDK, had by the next run."""

from __future__ import annotations

from pathlib import Path

import pytest
from connectrpc.errors import ConnectError
from flyteidl2.app import app_definition_pb2 as idl

from flyte_unified.testing import Backend
from tests.sdk.conftest import Client, Said
from tests.sdk.forks import Forks
from tests.sdk.test_apps import Stage, app

ORG = """
environment_variables:
  OF_ALL: all
"""
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
OPEN = """
import flyte, flyte.app

env = flyte.app.AppEnvironment(
    name="visitors", image=flyte.Image.from_base("local"), command=["sleep", "600"], requires_auth=False
)
"""
SCOPE = ["--domain", "development", "--project", "settled"]


@pytest.fixture(scope="module")
def user(flyte_backend: Backend, tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Client:
    flyte_backend.create_project("settled")
    return Client(flyte_backend, tmp_path_factory.mktemp("user") / "home", "settled", forks=forks)


@pytest.fixture(scope="module")
def said(user: Client, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Said]:
    directory: Path = tmp_path_factory.mktemp("settings")
    for text, scope in ((ORG, []), (DOMAIN, SCOPE[:2]), (PROJECT, SCOPE)):
        (directory / "settings.yaml").write_text(text)
        user.flyte("edit", "settings", *scope, "--from-file", str(directory / "settings.yaml"))
    return user.say("settled", "scopes", "everything")


def test_a_run_has_what_its_scopes_say(said: dict[str, Said]) -> None:
    """The narrower scope over the wider, entry by entry, and what the run says over both."""
    assert said["explicit"]["outputs"] == [["domain", "project", "project", "run", "all"]]


def test_a_change_is_for_the_next_run(said: dict[str, Said]) -> None:
    """The SDK writes the whole of a scope; what it leaves out is inherited again."""
    assert said["changed"]["outputs"] == [["domain", None, "domain", "project", "all"]]


def test_a_project_says_where_a_run_is_and_what_it_may(said: dict[str, Said]) -> None:
    """Each setting that has to do with runs; what only a cluster has a use for is kept with them."""
    ((raw, base),) = said["placed"]["outputs"]
    assert "/_settled/settled/development/" in raw
    assert "/settled/settled/development/" in base
    kept = said["kept"]
    assert (kept["queue"], kept["concurrency"], kept["account"]) == ("wide", 3, "settled")
    assert kept["labels"] == {"team": "ours"}
    assert kept["annotations"] == {"why": "because", "flyte.org/mirror-limits-request": "true"}


def test_the_whole_form_is_taken(said: dict[str, Said]) -> None:
    """Each setting that the SDK knows has a value in it."""
    assert said["form"]["left"] == []


def test_limits_mirror_requests(said: dict[str, Said]) -> None:
    """A task that takes more than it requests is killed, although the limit that it names is far off."""
    assert (said["limited"]["phase"], said["limited"]["code"]) == ("FAILED", "OOMKilled")


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


def test_a_wrong_setting_is_named(newcomer: Client, tmp_path: Path) -> None:
    """By its name in the form, and nothing of the form is kept."""
    scope = ["--domain", "development", "--project", newcomer.project]
    for wrong in ("task_resource.max.memory: 1GiB", "app.app_dns_strategy: dataplane_specific"):
        (tmp_path / "settings.yaml").write_text(f"run.run_base_dir: x\n{wrong}\n")
        told = newcomer.flyte("edit", "settings", *scope, "--from-file", str(tmp_path / "settings.yaml"), fails=True)
        assert f"settings.{wrong.partition(':')[0]}: " in told
    assert "Local overrides" not in newcomer.flyte("get", "settings", *scope)


def test_an_app_for_everybody_is_refused_where_a_scope_says_so(newcomer: Client, tmp_path: Path) -> None:
    """With the way out. One that stands already goes on, and is stopped, but neither changed nor started again."""
    stage = Stage(newcomer.backend.address)
    standing = app("standing", least=1)
    standing.metadata.id.project = newcomer.project
    standing.spec.security_context.allow_anonymous = True
    standing = stage.create(standing)
    (tmp_path / "settings.yaml").write_text("app.disallow_anonymous: true")
    scope = ["--domain", "development", "--project", newcomer.project]
    newcomer.flyte("edit", "settings", *scope, "--from-file", str(tmp_path / "settings.yaml"))
    (tmp_path / "visitors.py").write_text(OPEN)
    told = " ".join(newcomer.flyte("serve", "visitors.py", "env", cwd=tmp_path, fails=True).replace("│", " ").split())
    assert f"app.disallow_anonymous in the settings of project '{newcomer.project}', domain 'development'" in told
    assert "deploy the app with requires_auth=True" in told
    assert stage.ask("standing")[0] == 200
    standing.spec.desired_state = idl.Spec.DESIRED_STATE_STOPPED
    stopped = stage.update(standing)
    stopped.spec.desired_state = idl.Spec.DESIRED_STATE_ACTIVE
    with pytest.raises(ConnectError, match=r"app\.spec\.security_context\.allow_anonymous"):
        stage.update(stopped)
    stopped.spec.security_context.allow_anonymous = False
    stage.update(stopped)
    (tmp_path / "visitors.py").write_text(OPEN.replace("False", "True"))
    newcomer.flyte("deploy", "visitors.py", "env", cwd=tmp_path)
