"""Programs with the real SDK and its command line, as their users start them: processes of their own against a server.

A program (``programs/*.py``) runs once for all the tests that look at what it said; each test is one promise.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from flyte_unified.testing import Backend
from tests.leftovers import _nothing_left, _nothing_left_at_all
from tests.sdk.forks import STOCK, SURROUNDINGS, Forks

__all__ = ["_nothing_left", "_nothing_left_at_all"]

PROGRAMS = Path(__file__).parent / "programs"
FLYTE = str(Path(sys.executable).with_name("flyte"))
SETTINGS = {"execution.slots": 8, "execution.retry_backoff": 0.05, "execution.kill_grace": 0.5}
_SECONDS = 100.0
"""A program that takes longer hangs."""

_DONE = (0, -signal.SIGABRT)
"""obstore, in the SDK, now and then aborts its process when the interpreter ends, after everything is said."""

Said = dict[str, Any]


@dataclass
class Client:
    """A user: a home of their own, and a project."""

    backend: Backend
    home: Path
    project: str
    warm: bool = True
    """Whether its server starts tasks from processes that have the imports behind them."""
    forks: Forks | None = None
    """Where its own programs come from; otherwise each is started from nothing."""
    variables: dict[str, str] = field(default_factory=dict)
    """Of the environment, beside those that all have."""
    _done: dict[tuple[str, ...], subprocess.CompletedProcess[str]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.home.mkdir()
        self.config = self.backend.write_config(self.home / "config.yaml", project=self.project)

    @property
    def environment(self) -> dict[str, str]:
        return {**SURROUNDINGS, "HOME": str(self.home), "FLYTECTL_CONFIG": str(self.config), **self.variables}

    def say(self, program: str, *arguments: str) -> dict[str, Said]:
        """What ``programs/<program>.py`` said, by case. It runs once, even when it fails."""
        key = (program, *arguments)
        if key not in self._done:
            self._done[key] = self.python(f"{program}.py", *arguments)
        done = self._done[key]
        assert done.returncode in _DONE, done.stdout[-4000:] + done.stderr[-8000:]
        return by_case(done.stdout)

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``arguments``: a script and its own."""
        return self._run(arguments, PROGRAMS)

    def flyte(self, *arguments: str, cwd: Path = PROGRAMS, fails: bool = False) -> str:
        """The output of ``flyte <arguments>``."""
        done = self._run([FLYTE, *arguments], cwd)
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stdout + done.stderr

    def json(self, *arguments: str) -> Any:
        """The same as JSON."""
        return json.loads(self._run([FLYTE, "-of", "json", *arguments], PROGRAMS).stdout)

    def create_secret(self, name: str, value: str) -> None:
        """Of the project's domain; by a bare call, which no client's end can spoil."""
        place = {"name": name, "project": self.project, "domain": "development"}
        body = json.dumps({"id": place, "secretSpec": {"stringValue": value}}).encode()
        url = f"{self.backend.address}/flyteidl2.secret.SecretService/CreateSecret"
        urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": "application/json"})).close()

    def popen(self, *arguments: str) -> subprocess.Popen[str]:
        """A program to talk to; its user ends it."""
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=PROGRAMS,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def _run(self, command: Sequence[str], cwd: Path) -> subprocess.CompletedProcess[str]:
        if self.forks is not None:
            return self.forks.run(command, cwd=cwd, env=self.environment, timeout=_SECONDS)
        return subprocess.run(
            [sys.executable, *command],
            cwd=cwd,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )


def by_case(lines: str) -> dict[str, Said]:
    """JSON lines by their ``case``; what the SDK prints beside them is left out."""
    said = [json.loads(line) for line in lines.splitlines() if line.startswith('{"case"')]
    return {facts["case"]: facts for facts in said}


def calls(client: Client, procedure: str) -> float:
    """How often the server was called so, by its own account."""
    with urllib.request.urlopen(f"{client.backend.address}/metrics") as response:
        lines = response.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if "rpc_total{" in line and f'{procedure}"' in line)


@pytest.fixture(scope="session")
def flyte_backend_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Bundles of a directory of ours, as one test takes them away."""
    return {**SETTINGS, "storage.bundles": str(tmp_path_factory.mktemp("bundles"))}


@pytest.fixture(scope="session")
def client(flyte_backend: Backend, tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Client:
    flyte_backend.create_project("programs")
    return Client(flyte_backend, tmp_path_factory.mktemp("user") / "home", "programs", forks=forks)


@pytest.fixture(scope="session")
def forks() -> Forks | None:
    """None where forking after imports is not safe."""
    return STOCK.get("client") if sys.platform == "linux" else None


@pytest.fixture(scope="session")
def cold_client(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Iterator[Client]:
    """Of a server that starts every task from nothing."""
    settings = {
        **SETTINGS,
        "execution.warm": False,
        "execution.slots": 2,
        "storage.bundles": str(tmp_path_factory.mktemp("bundles")),
    }
    with Backend(settings) as backend:
        backend.create_project("programs")
        yield Client(backend, tmp_path_factory.mktemp("cold") / "home", "programs", warm=False, forks=forks)


@pytest.fixture(params=["warm", "cold"])
def either(request: pytest.FixtureRequest) -> Client:
    """Warm is cold, only faster: for what a start can make different. All the rest is warm, as a cold start costs a second."""
    found = request.getfixturevalue("client" if request.param == "warm" else "cold_client")
    assert isinstance(found, Client)
    return found


@pytest.fixture
def newcomer(flyte_backend: Backend, flyte_project: str, tmp_path: Path, forks: Forks) -> Client:
    """Somebody who has run nothing yet, in a project of their own."""
    return Client(flyte_backend, tmp_path / "home", flyte_project, forks=forks)
