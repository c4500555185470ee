"""The command line of the SDK, as a new user types it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.sdk.conftest import PROGRAMS, Client, calls


@pytest.fixture(scope="module")
def hello(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one program in it."""
    directory = tmp_path_factory.mktemp("project")
    shutil.copy(PROGRAMS / "hello.py", directory)
    return directory


def run_in(output: str) -> str:
    found = re.search(r"runs/(r\w+)", output)
    assert found, output
    return found[1]


def test_run_and_look(client: Client, hello: Path, tmp_path: Path) -> None:
    """``flyte run --follow`` shows the log until the end; ``get`` shows the run, its actions, data, log and code."""
    output = client.flyte("run", "--follow", "hello.py", "main", "--n", "4", "--name", "Ada", cwd=hello)
    run = run_in(output)
    assert "hello Ada" in output
    assert run in client.flyte("get", "run")
    actions = client.flyte("get", "action", run)
    assert actions.count("hello.square") == 4
    assert "'ACTION_PHASE_SUCCEEDED'" in client.flyte("get", "action", run, "a0")
    assert 'ActionOutputs(o0="Ada: 14")' in client.flyte("get", "io", run)
    assert "hello Ada" in client.flyte("get", "logs", run)
    child = re.search(r"hello\.square\W.*?\W(\w{20,30})\W", actions)
    assert child
    links = calls(client, "DataProxyService/CreateDownloadLink")
    client.flyte("get", "code", run, child[1], "--dest", str(tmp_path))
    assert (tmp_path / "hello.py").read_bytes() == (PROGRAMS / "hello.py").read_bytes()
    assert calls(client, "DataProxyService/CreateDownloadLink") == links + 1


def test_deploy_and_run(client: Client, hello: Path) -> None:
    """A deployed task is listed and run by its name, without its code at hand; the same version again is no error."""
    client.flyte("deploy", "--version", "v1", "hello.py", "env", cwd=hello)
    assert "already exists" in client.flyte("deploy", "--version", "v1", "hello.py", "env", cwd=hello)
    listed = client.flyte("get", "task")
    assert "hello.main" in listed
    assert "v1" in listed
    output = client.flyte("run", "--follow", "deployed-task", "hello.main", "--name", "Grace", cwd=client.home)
    assert "hello Grace" in output
    assert "hello.py" in client.flyte("get", "code", run_in(output))


def test_abort(client: Client, hello: Path) -> None:
    """``flyte abort`` ends a run and an action; aborting what has ended already changes nothing."""
    run = run_in(client.flyte("run", "hello.py", "endless", cwd=hello))
    client.flyte("abort", "run", run, "--reason", "enough")
    client.flyte("abort", "action", run, "a0")
    shown = client.flyte("get", "action", run, "a0")
    assert "'ACTION_PHASE_ABORTED'" in shown
    assert "enough" in shown


def test_projects(client: Client, hello: Path) -> None:
    """A project is created once, changed and shown; the second creation says that it is there.

    An archived one takes no run, in words, and shows those it has; unarchived it goes on as before.
    """
    client.flyte("create", "project", "--id", "typed", "--name", "Typed by hand")
    assert "there is a project 'typed' already" in client.flyte("create", "project", "--id", "typed", "--name", "x", fails=True)
    client.flyte("update", "project", "typed", "--description", "with words")
    shown = client.flyte("get", "project", "typed")
    assert "Typed by hand" in shown
    assert "with words" in shown
    assert "typed" in client.flyte("get", "project")
    run = run_in(client.flyte("run", "-p", "typed", "hello.py", "main", cwd=hello))
    client.flyte("update", "project", "typed", "--archive")
    refused = client.flyte("run", "-p", "typed", "hello.py", "main", cwd=hello, fails=True)
    assert "is archived; `flyte update project typed --unarchive`" in " ".join(refused.replace("│", " ").split())
    assert run in client.flyte("get", "run", "-p", "typed")
    client.flyte("update", "project", "typed", "--unarchive")
    assert run_in(client.flyte("run", "-p", "typed", "hello.py", "main", cwd=hello)) != run


def test_whoami(client: Client) -> None:
    """Without sign-in the caller is the server's owner, who has a name."""
    assert re.search(r'"subject": "[^"]+"', client.flyte("whoami"))


def test_a_mistake_is_told(client: Client, hello: Path) -> None:
    """A project, a run and an interpreter that do not exist are named where the user looks, with a way out."""
    output = client.flyte("run", "-p", "nowhere", "hello.py", "main", cwd=hello, fails=True)
    assert "there is no project 'nowhere'" in " ".join(output.replace("│", " ").split())
    assert "`flyte create project` makes one" in " ".join(output.replace("│", " ").split())
    assert "there is no run programs/development/nothing" in client.flyte("get", "run", "nothing", fails=True)
    output = client.flyte("run", "--follow", "-e", "FLYTE_UNIFIED_PYTHON=/nothing", "hello.py", "main", cwd=hello)
    assert "the interpreter /nothing cannot be run (No such file or directory); choose another" in output
