"""A devbox, Flyte's server in a container, beside ours: its verbs ask Docker alone, which a script plays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.sdk.conftest import Client

STANDINS = Path(__file__).parent / "standins" / "bin"


@pytest.fixture
def user(newcomer: Client, tmp_path: Path) -> Client:
    """With a Docker, and no other program of the machine."""
    newcomer.variables = {"PATH": str(STANDINS), "TMPDIR": str(tmp_path)}
    return newcomer


def devbox(user: Client) -> dict[str, Any]:
    """What is told of it; without a look at its port, which may be another server's."""
    (found,) = json.loads(user.flyte("-of", "json-raw", "get", "devbox", "--no-probes"))
    assert isinstance(found, dict)
    return found


def test_a_devbox_beside_ours(user: Client) -> None:
    """It starts, rests, goes on and is deleted; the client's configuration leads to our server, as before."""
    config = user.config.read_bytes()
    user.flyte("start", "devbox", "--dev")
    assert (devbox(user)["state"], devbox(user)["endpoint"]) == ("running", "localhost:30080")
    user.flyte("stop", "devbox")
    assert devbox(user)["state"] == "paused"
    assert "Resuming" in user.flyte("start", "devbox", "--dev")
    user.flyte("delete", "devbox")
    assert devbox(user)["state"] == "not-found"
    asked = (user.home / "docker.asked").read_text().splitlines()
    assert len([line for line in asked if line.startswith("run ") and "--publish 30080:30080" in line]) == 1
    assert user.config.read_bytes() == config
    assert user.project in user.flyte("get", "project", user.project)


def test_no_devbox_without_docker(user: Client) -> None:
    """The verbs say so, or fail; our server needs none."""
    user.variables["PATH"] = str(user.home)
    assert "Docker is not installed" in user.flyte("start", "devbox", fails=True)
    assert "Docker is not installed" in devbox(user)["error"]
    for verb in ("stop", "delete"):  # not as clearly
        assert "docker" in user.flyte(verb, "devbox", fails=True)
    assert user.project in user.flyte("get", "project", user.project)
