"""Tasks in images of their own, on a laptop: the SDK's container and shell tasks by podman, and by docker if it runs."""

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
from tests.engines import Engine
from tests.sdk.conftest import SETTINGS, Client, Said
from tests.sdk.durability.stand import Server, standing
from tests.sdk.forks import Forks
from tests.sdk.test_connectors import program

TOKEN = "0f3a the secret"


@pytest.fixture(scope="module", params=["podman", "docker"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    found = Engine(tmp_path_factory.mktemp("engine"), request.param)
    if found.missing:
        pytest.skip(found.missing)
    yield found
    found.forget()


@pytest.fixture(scope="module")
def sailor(engine: Engine, tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Iterator[Client]:
    """A user whose server runs containers."""
    directory = tmp_path_factory.mktemp("sailor")
    settings = {**SETTINGS, "storage.bundles": str(directory / "bundles"), "execution.container_engine": str(engine.path)}
    with Backend(settings, directory=directory / "data") as backend:
        backend.create_project("harbour")
        user = Client(backend, directory / "home", "harbour", forks=forks)
        user.create_secret("token", TOKEN)
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
        ("unfit", "ContainerCannotRun", "could not start the container"),
        ("nowhere", "ContainerNotCreated", "localhost:1"),
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


async def idle(backend: Backend) -> None:
    """Returns when no action has a process."""
    controller = backend.manager.plane.controller
    assert controller is not None
    async for _ in controller.running():
        pass


def test_an_aborted_container_is_gone(sailor: Client, engine: Engine) -> None:
    """With all others, whose ends were seen: nothing is left in the engine's list, nor of the secrets."""
    run = said(sailor)["held"]["run"]
    sailor.flyte("abort", "run", run)
    asyncio.run_coroutine_threadsafe(idle(sailor.backend), sailor.backend._loop).result(30)
    assert engine.containers() == []
    assert not list(Path("/dev/shm").glob(f"flyte-unified-{os.getuid()}/*"))


async def begun(server: Server, *, attempt: int, run: str = "") -> tuple[str, Path]:
    """A run whose container waits, and its attempt's directory."""
    if not run:
        config = f"admin: {{endpoint: 'dns:///localhost:{server.port}', insecure: true}}\nimage: {{builder: remote}}\n"
        (server.directory / "config.yaml").write_text(config + "task: {project: flytesnacks, domain: development}\n")
        run = await program(server, "contained.py", "held")
    outputs = await program(server, "appears.py", str(server.data), f"work/*{run},a0,{attempt}/outputs/begun")
    return run, Path(outputs).parent


def first_process(engine: Engine) -> psutil.Process:
    """Of the only container."""
    (name,) = engine.containers()
    return psutil.Process(int(engine.run("inspect", "--format", "{{.State.Pid}}", name).stdout))


async def test_a_container_outlives_the_server(tmp_path: Path, engine: Engine) -> None:
    """The next one finds it, and its outputs and all of its log are there; it ran once."""
    async with standing(tmp_path, EXECUTION_CONTAINER_ENGINE=str(engine.path)) as (server, _):
        run, directory = await begun(server, attempt=1)
        container = first_process(engine)
        await server.kill()
        assert container.is_running()
        await server.start()
        (directory / "outputs" / "go").touch()
        assert await server.phase(run) is Phase.SUCCEEDED, (tmp_path / "server.log").read_text()[-4000:]
        assert [line.strip() for line in await server.log(run, "a0")] == ["begun", "gone"]
        assert (await server.details(run, "a0")).attempts[-1].attempt == 1
        assert engine.containers() == []


async def test_no_attempt_begins_beside_the_one_before(tmp_path: Path, engine: Engine) -> None:
    """The process around a container is killed: the container is ended before the next attempt has its own."""
    async with standing(tmp_path, EXECUTION_CONTAINER_ENGINE=str(engine.path)) as (server, _):
        run, directory = await begun(server, attempt=1)
        container = first_process(engine)
        (around,) = [process for process in server.survivors() if f"--directory={directory}" in process.cmdline()]
        around.send_signal(signal.SIGKILL)
        _, again = await begun(server, attempt=2, run=run)
        assert not container.is_running()
        (again / "outputs" / "go").touch()
        assert await server.phase(run) is Phase.SUCCEEDED
        assert engine.containers() == []
