"""``flyte serve hello``: the SDK's own first app, in its own image, which asks for Python 3.12 and for packages of an index."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from urllib.error import HTTPError

import pytest
from uv import find_uv_bin

from flyte_unified.testing import Backend
from tests.sdk import packages
from tests.sdk.conftest import SETTINGS, Client
from tests.sdk.forks import Forks


def python() -> Path:
    """Of that version, as a user has it: where uv finds it, or pyenv keeps it."""
    uv = (find_uv_bin(), "python", "find", "--system", "--no-python-downloads", "3.12")
    for command, below in ((uv, ""), (("pyenv", "prefix", "3.12"), "bin/python")):
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            return Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip(), below)
    pytest.skip("no Python 3.12 on this machine")


def user(backend: Backend, place: Path, forks: Forks) -> Client:
    backend.create_project("hello")
    return Client(backend, place / "home", "hello", forks=forks, variables={"TMPDIR": str(place)})


def asked(backend: Backend, path: str) -> str:
    request = urllib.request.Request(backend.address + path, headers={"Host": "hello-app.localhost"})
    with urllib.request.urlopen(request) as response:
        return str(response.read().decode())


def test_the_first_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forks: Forks) -> None:
    """Served by its own Python, with its packages and its page; gone when it is deleted."""
    found = python()
    packages.need("fastapi", "uvicorn", python=str(found), directory=tmp_path / "packages")
    monkeypatch.setenv("PATH", os.pathsep.join((str(found.parent), os.environ["PATH"])))
    with Backend(SETTINGS) as backend:
        somebody = user(backend, tmp_path, forks)
        assert "App 'hello-app' is now being served" in somebody.flyte("serve", "hello")
        assert "<title>Flyte Hello App</title>" in asked(backend, "/")
        assert asked(backend, "/hello?name=Ada") == '{"message":"Hello, Ada!"}'
        assert "/openapi.json" in asked(backend, "/docs")
        somebody.flyte("delete", "app", "hello-app")
        with pytest.raises(HTTPError, match="404") as refused:
            asked(backend, "/hello")
        refused.value.close()


@pytest.mark.skipif(sys.version_info[:2] == (3, 12), reason="every task's Python is of that version")
def test_a_machine_without_its_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forks: Forks) -> None:
    """Where it cannot be fetched either, the client fails, and the build says what is missing and what to do."""
    for name in ("PATH", "UV_PYTHON_INSTALL_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("UV_OFFLINE", "1")
    with Backend(SETTINGS) as backend:
        somebody = user(backend, tmp_path, forks)
        output = somebody.flyte("serve", "hello", fails=True)
        build = re.search(r"runs/(r\w+)", output)
        assert build, output
        log = " ".join(somebody.flyte("get", "logs", build[1]).split())
    assert "the image asks for Python 3.12, which is not on this machine and could not be fetched" in log
    assert "Install Python 3.12 where the server's PATH leads, or ask for one that is here" in log
    assert f"python_version=({sys.version_info.major}, {sys.version_info.minor})" in log
