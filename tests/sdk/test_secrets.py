"""Secrets: created by the command line and the SDK, given to tasks as variables and as files, and found nowhere else."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flyteidl2.secret import definition_pb2, payload_pb2

from flyte_unified.launchers.processes import mounts
from flyte_unified.testing import Backend
from tests.sdk.conftest import SETTINGS, Client, Said
from tests.sdk.forks import Forks

PLACE = ["--project", "programs", "--domain", "development"]
CERTIFICATE = secrets.token_bytes(16) + b"\xff\x00"

Obey = Callable[..., Said]

needs_namespaces = pytest.mark.skipif(
    subprocess.run([sys.executable, mounts.__file__, "/etc/flyte/secrets"], capture_output=True, check=False).returncode != 0,
    reason="this kernel gives no mount namespaces",
)


class User(Client):
    """One with secrets, whose server's directory can be looked through."""

    directory: Path
    values: list[str]

    def value(self) -> str:
        """A new one, like no other text."""
        self.values.append(value := secrets.token_hex(16))
        return value

    def call(self, method: str, value: str, **scope: str) -> str:
        """A call without the SDK, which has no words for some; the value's digest."""
        request = getattr(payload_pb2, f"{method}Request")(
            id=definition_pb2.SecretIdentifier(name="token", **scope),
            secret_spec=definition_pb2.SecretSpec(string_value=value),
        )
        url = f"{self.backend.address}/flyteidl2.secret.SecretService/{method}"
        headers = {"Content-Type": "application/proto"}
        urllib.request.urlopen(urllib.request.Request(url, request.SerializeToString(), headers)).close()
        return digest(value)

    @contextlib.contextmanager
    def program(self) -> Iterator[Obey]:
        """A program that obeys; what it is told gives what it said."""
        with self.popen("secretive.py") as program:
            assert program.stdin is not None
            assert program.stdout is not None

            def obey(*words: str) -> Said:
                print(*words, file=program.stdin, flush=True)
                line = next(line for line in program.stdout if line.startswith('{"case"'))
                return dict(json.loads(line))

            yield obey
            program.stdin.close()
            assert program.wait(30) == 0


def digest(value: str | bytes) -> str:
    return hashlib.sha256(value if isinstance(value, bytes) else value.encode()).hexdigest()


@contextlib.contextmanager
def serving(factory: pytest.TempPathFactory, forks: Forks, **settings: Any) -> Iterator[User]:
    directory = factory.mktemp("secrets")
    bundles = {"storage.bundles": str(factory.mktemp("bundles"))}
    with Backend({**SETTINGS, **bundles, **settings}, directory=directory) as backend:
        backend.create_project("programs")
        user = User(backend, factory.mktemp("user") / "home", "programs", forks=forks)
        user.directory, user.values = directory, []
        yield user


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Iterator[User]:
    with serving(tmp_path_factory, forks) as user:
        yield user


@pytest.fixture(scope="module")
def told(user: User, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Everything that the tests look at, in the order in which it happened."""
    told: dict[str, Any] = {}
    directory = tmp_path_factory.mktemp("files")
    (directory / "certificate").write_bytes(CERTIFICATE)
    user.flyte("create", "secret", "certificate", "--from-file", str(directory / "certificate"))
    with user.program() as obey:
        told["hopeless"] = obey("hopeless")
        told["every"] = user.call("CreateSecret", user.value())
        told["first"] = obey("variable")
        told["domain"] = user.call("CreateSecret", user.value(), domain="development")
        told["second"] = obey("variable")
        obey("create", "token", value := user.value())
        told["project"] = digest(value)
        told |= {case: obey(case) for case in ("variable", "everything", "unreadable")}
        told["list"] = obey("list", "token")
        told["holders"] = _watched(user, obey, directory)
        told["shown"] = user.flyte("get", "secret", "token", *PLACE)
        told["updated"] = user.call("UpdateSecret", user.value(), domain="development", project="programs")
        told["third"] = obey("variable")
        user.flyte("delete", "secret", "token", *PLACE)
        told["fourth"] = obey("variable")
    return told


def _watched(user: User, obey: Obey, directory: Path) -> list[tuple[str, str]]:
    """Where a value is seen in the system's processes while a task has it: what of them, and their command lines."""
    for name in ("began", "end"):
        os.mkfifo(directory / name)
    obey("waits", str(directory))
    (directory / "began").read_text()
    seen = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            held = {part: (process / part).read_bytes() for part in ("cmdline", "environ")}
            line = held["cmdline"].replace(b"\0", b" ").decode(errors="replace")
            seen += [(part, line) for part, text in held.items() if any(value.encode() in text for value in user.values)]
    (directory / "end").write_text("x")
    assert obey("go on")["phase"] == "SUCCEEDED"
    return seen


def test_the_most_specific_scope_wins(told: dict[str, Any]) -> None:
    """One of every project gives way to the domain's, that to the project's; when it is deleted, the next takes its place."""
    for case, scope in (("first", "every"), ("second", "domain"), ("variable", "project"), ("fourth", "domain")):
        assert told[case]["outputs"] == [told[scope]], told[case]


def test_an_update_is_for_the_next_start(told: dict[str, Any]) -> None:
    """A task that starts after it has the new value."""
    assert told["third"]["outputs"] == [told["updated"]]


@needs_namespaces
def test_names_and_files_are_the_sdks(told: dict[str, Any]) -> None:
    """A chosen name, a group's name, and files by key, bytes and all, that nobody can change."""
    (found,) = told["everything"]["outputs"]
    project = told["project"]
    assert found == {
        "RENAMED": project,
        "GROUPED_TOKEN": project,
        "token": project,
        "certificate": digest(CERTIFICATE),
        "written": "PermissionError" if os.getuid() else "OSError",
    }


def test_a_missing_one_fails_before_the_start(told: dict[str, Any]) -> None:
    """Once, without a process, in a sentence with the command that creates it."""
    said = told["hopeless"]
    assert (said["phase"], said["code"], said["kind"]) == ("FAILED", "SecretNotFound", 1)
    assert [attempt["events"] for attempt in said["attempts"]] == [[]]
    assert "'nobody-has-it' for project 'programs', domain 'development'" in said["message"]
    assert "`flyte create secret nobody-has-it --project programs --domain development`" in said["message"]


def test_what_is_no_text_is_no_variable(told: dict[str, Any]) -> None:
    """The sentence says how to ask for it."""
    assert told["unreadable"]["phase"] == "FAILED"
    assert "mount=pathlib.Path('/etc/flyte/secrets')" in told["unreadable"]["message"]


def test_lists_and_details_hold_no_value(user: User, told: dict[str, Any]) -> None:
    """Of its scope alone; not even who created it reads it again."""
    assert told["list"]["names"] == ["token"]
    assert told["list"]["one"]["id"] == {"name": "token", "domain": "development", "project": "programs"}
    assert "FULLY_PRESENT" in told["shown"]
    assert not [value for value in user.values if value in json.dumps(told)]


def test_creating_it_again_is_refused(user: User, told: dict[str, Any]) -> None:
    """Whatever the value."""
    assert "already exists" in user.flyte("create", "secret", "certificate", "--value", "x", fails=True)


def test_values_are_found_in_no_file(user: User, told: dict[str, Any]) -> None:
    """Neither in the database nor in logs, orders, specs or anything else of the server."""
    found = [path for path in user.directory.rglob("*") if path.is_file()]
    for path in found:
        content = path.read_bytes()
        assert not [value for value in user.values if value.encode() in content], path
        assert CERTIFICATE[:16] not in content, path
    assert {".db", ".log", ".pb"} <= {path.suffix for path in found}
    assert not Path("/etc/flyte/secrets").exists()


def test_a_value_is_seen_in_one_process(told: dict[str, Any]) -> None:
    """In the environment of the task that asked for it, where it starts afresh; never in a command line."""
    assert not [line for part, line in told["holders"] if part == "cmdline"]
    assert not [line for _, line in told["holders"] if "keeper.py" in line]


def test_a_cold_start_is_told_the_same(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> None:
    """Variables and files, without a fork server."""
    with serving(tmp_path_factory, forks, **{"execution.warm": False}) as user:
        expected = user.call("CreateSecret", user.value())
        with user.program() as obey:
            assert obey("variable")["outputs"] == [expected]
