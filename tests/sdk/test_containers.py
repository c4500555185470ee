"""Tasks in images of their own, on a laptop: the SDK's container and shell tasks by a real podman."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flyte_unified.core.phases import Phase
from flyte_unified.testing import Backend
from tests.podman import Podman
from tests.sdk.conftest import SETTINGS, Client, Said
from tests.sdk.durability.stand import Server, standing
from tests.sdk.test_connectors import program

TOKEN = "0f3a the secret"


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Podman:
    found = Podman(tmp_path_factory.mktemp("podman"))
    if found.missing:
        pytest.skip(found.missing)
    found.run("tag", "example.com/greeter:1", "example.com/breaker:1")
    return found


@pytest.fixture(scope="module")
def sailor(podman: Podman, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A user whose server has podman."""
    directory = tmp_path_factory.mktemp("sailor")
    settings = {**SETTINGS, "storage.bundles": str(directory / "bundles"), "execution.container_engine": str(podman.path)}
    with Backend(settings, directory=directory / "data") as backend:
        backend.create_project("harbour")
        user = Client(backend, directory / "home", "harbour")
        user.flyte("create", "secret", "token", "--value", TOKEN, "--project", "harbour", "--domain", "development")
        yield user


def said(sailor: Client) -> dict[str, Said]:
    return sailor.say("contained")


def test_inputs_are_files_before_and_outputs_after(sailor: Client) -> None:
    """As in a cluster: values in the command, files where the task looks, and what it leaves is typed."""
    told = said(sailor)["greets"]
    assert (told["phase"], told["outputs"]) == ("SUCCEEDED", ["hello you;hello you; 20"])


def test_shell_tasks_run(sailor: Client) -> None:
    """With files in, flags, and whatever their pattern finds out."""
    told = said(sailor)["tools"]
    assert (told["phase"], told["outputs"]) == ("SUCCEEDED", [["one.txt", "two.txt", "-loud"]])


def test_a_container_has_its_variables_and_secrets(sailor: Client) -> None:
    """Any name and any text; a secret as variable and as file; the run's own facts."""
    told = said(sailor)["given"]
    assert told["outputs"] == [f"deep\nblue {TOKEN} {TOKEN} /bin {told['run']}"]


@pytest.mark.parametrize(
    ("case", "code", "sentence"),
    [
        ("breaker", "ContainerExited", "the container exited with code 3"),
        ("unfit", "ContainerCannotRun", "podman could not start the container"),
        ("nowhere", "ContainerNotCreated", "localhost:1/nowhere:1"),
        ("forgetful", "OutputUnreadable", "output n: the container left no"),
        ("greedy", "OOMKilled", "memory"),
    ],
)
def test_a_container_that_fails_says_how(sailor: Client, case: str, code: str, sentence: str) -> None:
    """At its author's cost, each end with a code of its own."""
    told = said(sailor)[case]
    assert (told["phase"], told["code"], told["kind"]) == ("FAILED", code, 1)
    assert sentence in told["message"]


def test_what_a_container_says_is_its_log(sailor: Client) -> None:
    """Like a process's."""
    assert "no luck" in sailor.flyte("get", "logs", said(sailor)["breaker"]["run"])


def test_an_aborted_container_is_gone(sailor: Client, podman: Podman) -> None:
    """With all others, whose ends were seen: nothing is left in podman's list, nor of the secrets."""
    run = said(sailor)["held"]["run"]
    sailor.flyte("abort", "run", run)
    sailor.flyte("get", "logs", run)  # until its end
    assert podman.containers() == []
    assert not list(Path("/dev/shm").glob(f"flyte-unified-{os.getuid()}/*"))


async def begun(server: Server, tmp_path: Path) -> tuple[str, Path]:
    """A run whose container waits, and the directory that it waits in."""
    config = f"admin: {{endpoint: 'dns:///localhost:{server.port}', insecure: true}}\nimage: {{builder: remote}}\n"
    (server.directory / "config.yaml").write_text(config + "task: {project: flytesnacks, domain: development}\n")
    run = await program(server, "contained.py", "held")
    log = Path(await program(server, "appears.py", str(tmp_path), f"data/logs/*/*/{run}/a0/1.log"))
    assert log.is_dir()
    return run, Path(await program(server, "appears.py", str(tmp_path), f"data/work/*{run},a0,1/outputs"))


async def running(podman: Podman, server: Server, run: str) -> int:
    """The container's first process."""
    while True:  # its first word is in the log
        for line in (server.data / "logs/flytesnacks/development" / run / "a0/1.log").read_text().splitlines():
            if "begun" in line:
                (name,) = podman.containers()
                return int(podman.run("inspect", "--format", "{{.State.Pid}}", name).stdout)
        await asyncio.sleep(0.05)


async def test_a_container_outlives_the_server(tmp_path: Path, podman: Podman) -> None:
    """The next one finds it, and its outputs and all of its log are there; it ran once."""
    async with standing(tmp_path, EXECUTION_CONTAINER_ENGINE=str(podman.path)) as (server, _):
        run, directory = await begun(server, tmp_path)
        first = await running(podman, server, run)
        await server.kill()
        assert psutil.pid_exists(first)
        await server.start()
        (directory / "outputs" / "go").touch()
        assert await server.phase(run) is Phase.SUCCEEDED, (tmp_path / "server.log").read_text()[-4000:]
        assert [line.strip() for line in await server.log(run, "a0")] == ["begun", "gone"]
        assert (await server.details(run, "a0")).attempts[-1].attempt == 1
        assert podman.containers() == []


async def test_no_attempt_begins_beside_the_one_before(tmp_path: Path, podman: Podman) -> None:
    """The process around a container is killed: the container is ended before the next attempt has its own."""
    async with standing(tmp_path, EXECUTION_CONTAINER_ENGINE=str(podman.path)) as (server, _):
        run, _ = await begun(server, tmp_path)
        first = psutil.Process(await running(podman, server, run))
        around = next(p for p in first.parents() if "data" in p.cmdline() and "run" in p.cmdline())
        around.send_signal(signal.SIGKILL)
        again = Path(await program(server, "appears.py", str(tmp_path), f"data/work/*{run},a0,2/outputs"))
        assert not first.is_running()
        (again / "outputs" / "go").touch()
        assert await server.phase(run) is Phase.SUCCEEDED
        assert podman.containers() == []
