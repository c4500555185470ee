"""Tasks that a connector runs: the SDK's own connector server with jobs of ours, asked for by the SDK."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flyteidl2.workflow import run_service_pb2

from flyte_unified.core.phases import Phase
from flyte_unified.testing import Backend
from tests.sdk.conftest import PROGRAMS, SETTINGS, Client, Said
from tests.sdk.durability.stand import Server, identifier, standing

POLL = 0.2
WATER = secrets.token_hex(16)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def connector(log: Path, *, port: int = 0) -> Iterator[str]:
    """Its address. Nobody waits until it answers: that is for servers to do."""
    port = port or free_port()
    command = [str(Path(sys.executable).parent / "c0"), "--port", str(port), "--prometheus_port", "0", "--modules", "farm"]
    environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(log.parent), "PYTHONUNBUFFERED": "1"}
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=PROGRAMS, env=environment, stdout=out, stderr=subprocess.STDOUT)
    try:
        yield f"localhost:{port}"
    finally:
        process.kill()
        process.wait()


class Farmer(Client):
    """A user whose server knows the connector."""

    farm: Path

    def jobs(self, name: str) -> list[Path]:
        """The directories of a task's jobs."""
        return sorted(self.farm.glob(f"connected.{name}.farm-*"))


@pytest.fixture(scope="module")
def farmer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farmer]:
    """The connector is still starting when the runs are asked for: they wait for it."""
    directory = tmp_path_factory.mktemp("farm")
    with connector(directory / "connector.log") as address:
        settings = {**SETTINGS, "storage.bundles": str(directory / "bundles"), "connectors.poll": POLL}
        with Backend({**settings, "connectors.endpoints": (address,)}, directory=directory / "data") as backend:
            backend.create_project("farms")
            user = Farmer(backend, directory / "home", "farms")
            user.farm = directory / "jobs"
            user.farm.mkdir()
            user.create_secret("well", WATER)
            yield user


def said(farmer: Farmer) -> dict[str, Said]:
    return farmer.say("connected", str(farmer.farm))


def asked(job: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((job / "asked").read_text())
    return found


def test_a_job_runs_and_its_outputs_are_the_tasks(farmer: Farmer) -> None:
    """Its phases, messages and links are shown, each link once."""
    told = said(farmer)["succeeds"]
    assert (told["phase"], told["outputs"]) == ("SUCCEEDED", [42])
    (attempt,) = told["attempts"]
    (job, *_) = [job for job in farmer.jobs("succeeds") if asked(job)["inputs"] == {"x": 21}]
    assert attempt["links"]["Field"] == f"http://farm/{job.name}"
    assert "RUNNING" in attempt["phases"]
    assert attempt["events"].count("the job succeeds") == 1


def test_a_connector_is_told_whose_job_it_is(farmer: Farmer) -> None:
    """Run, action, attempt, and what the task's own configuration says."""
    told = said(farmer)["held"]
    facts = asked(Path(said(farmer)["deleted"]["held"]))
    execution = facts["metadata"]["taskExecutionId"]
    assert execution["nodeExecutionId"]["nodeId"] == "a0"
    assert execution["nodeExecutionId"]["executionId"] == {"project": "farms", "domain": "development", "name": told["run"]}
    assert execution["taskId"]["name"] == "connected.held.farm"
    assert facts["metadata"]["labels"]["run"] == told["run"]
    assert facts["metadata"]["maxAttempts"] == 1
    assert facts["configs"] == {"soil": "loam"}
    assert facts["output_prefix"].endswith("/a0/1")


def test_a_job_that_fails_fails_its_task_with_its_words(farmer: Farmer) -> None:
    """For good, with Flyte's code for it."""
    told = said(farmer)["fails"]
    assert (told["phase"], told["code"], told["message"]) == ("FAILED", "TaskFailedWithError", "the job fails")
    assert told["raised"] == "RuntimeUserError"
    assert len(told["attempts"]) == 1


def test_a_job_that_may_be_repeated_is(farmer: Farmer) -> None:
    """At the user's cost, as another job."""
    told = said(farmer)["stumbles"]
    assert (told["phase"], told["outputs"]) == ("SUCCEEDED", [42])
    assert [attempt["phase"] for attempt in told["attempts"]] == ["FAILED", "SUCCEEDED"]
    assert len(farmer.jobs("stumbles")) == 2


def test_a_job_that_somebody_else_ended_is_told_so(farmer: Farmer) -> None:
    """And is not begun again."""
    told = said(farmer)["cancelled"]
    assert (told["phase"], told["code"]) == ("FAILED", "JobAborted")
    assert "aborted from outside" in told["message"]


def test_a_job_that_gives_no_outputs_fails(farmer: Farmer) -> None:
    """With the name of what is lacking."""
    told = said(farmer)["forgets"]
    assert (told["phase"], told["code"]) == ("FAILED", "TaskFailedWithError")
    assert "gave no output o0" in told["message"]


def test_a_connector_that_refuses_is_quoted(farmer: Farmer) -> None:
    """The user reads the connector's own words."""
    told = said(farmer)["refused"]
    assert (told["phase"], told["code"]) == ("FAILED", "JobNotCreated")
    assert "the farm is full" in told["message"]


def test_a_type_that_no_connector_runs_is_refused(farmer: Farmer) -> None:
    """For good, naming the type and the connector."""
    told = said(farmer)["unknown"]
    assert (told["phase"], told["code"]) == ("FAILED", "UnsupportedTaskType")
    assert "unheard_of" in told["message"]
    assert "localhost:" in told["message"]


def test_a_connector_is_given_secrets(farmer: Farmer) -> None:
    """With each question about a job, too; the server keeps their names."""
    assert said(farmer)["watered"]["phase"] == "SUCCEEDED"
    (job,) = farmer.jobs("watered")
    assert asked(job)["configs"] == {"soil": "loam", "water": WATER}
    assert (job / "water").read_text() == WATER
    kept = [path for path in (farmer.home.parent / "data").rglob("*") if path.is_file()]
    assert kept and not [path for path in kept if WATER.encode() in path.read_bytes()]


def test_a_secret_that_is_not_there_is_named(farmer: Farmer) -> None:
    """And no job is created."""
    told = said(farmer)["parched"]
    assert (told["phase"], told["code"], told["kind"]) == ("FAILED", "SecretNotFound", 1)
    assert "dry-well" in told["message"]
    assert farmer.jobs("parched") == []


def test_an_aborted_job_is_deleted(farmer: Farmer) -> None:
    """The connector is asked to end it."""
    facts = said(farmer)
    assert (facts["held"]["phase"], facts["held"]["reason"]) == ("ABORTED", "no more rain")
    assert facts["deleted"]["deleted"] == facts["deleted"]["held"]
    assert len(farmer.jobs("held")) == 1
    assert not list(farmer.farm.glob("connected.succeeds.*/deleted"))


def test_jobs_are_tasks_like_others(farmer: Farmer) -> None:
    """A task that is a process waits for them, and gets their results and errors."""
    told = said(farmer)["parent"]
    assert told["phase"] == "SUCCEEDED"
    assert told["outputs"] == ["[0, 2, 4], TaskFailedWithError: the job fails"]


def test_the_log_of_a_job_is_kept(farmer: Farmer) -> None:
    """All pages of it, shown like any other log; of a connector without logs that is said."""
    facts = said(farmer)
    shown = farmer.flyte("get", "logs", facts["succeeds"]["run"])
    assert [line for line in range(5) if f"row {line}" in shown] == [0, 1, 2, 3]
    assert shown.count("row 1") == 1
    assert "tells no logs of silent_farm jobs" in farmer.flyte("get", "logs", facts["silent"]["run"])


async def held(server: Server, farm: Path) -> tuple[str, Path]:
    """A run whose job has been looked at, and the job."""
    config = {
        "admin": {"endpoint": f"dns:///localhost:{server.port}", "insecure": True},
        "image": {"builder": "remote"},
        "task": {"project": "flytesnacks", "domain": "development"},
    }
    (server.directory / "config.yaml").write_text(json.dumps(config))
    run = await program(server, "connected.py", str(farm), "held")
    return run, Path(await program(server, "appears.py", str(farm), "*/looks"))


async def program(server: Server, *words: str) -> str:
    """Its last word."""
    client = await asyncio.create_subprocess_exec(
        *(sys.executable, *words),
        cwd=PROGRAMS,
        env={**server.environment, "FLYTECTL_CONFIG": str(server.directory / "config.yaml"), "NO_COLOR": "1"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await client.communicate()
    assert client.returncode == 0, err.decode()[-4000:]
    return out.decode().split()[-1]


async def test_a_job_outlives_the_server(tmp_path: Path) -> None:
    """It ends while no server runs; the next one finds it, and it was created once."""
    farm = tmp_path / "jobs"
    farm.mkdir()
    with connector(tmp_path / "connector.log") as address:
        async with standing(tmp_path, CONNECTORS_ENDPOINTS=f"farm={address}", CONNECTORS_POLL=str(POLL)) as (server, _):
            run, job = await held(server, farm)
            await server.kill()
            (job / "go").touch()
            await server.start()
            assert await server.phase(run) is Phase.SUCCEEDED, (tmp_path / "server.log").read_text()[-4000:]
            assert (await server.details(run, "a0")).attempts[-1].attempt == 1
            assert any("row 3" in line for line in await server.log(run, "a0"))
    assert [path.name for path in farm.iterdir()] == [job.name]
    assert not (job / "deleted").exists()


async def test_an_abort_that_the_server_did_not_live_to_carry_out_is_carried_out(tmp_path: Path) -> None:
    """The connector is away when a run is aborted, and the server is killed: the next one has the job deleted."""
    farm = tmp_path / "jobs"
    farm.mkdir()
    with contextlib.ExitStack() as first:
        address = first.enter_context(connector(tmp_path / "connector.log"))
        async with standing(tmp_path, CONNECTORS_ENDPOINTS=f"farm={address}", CONNECTORS_POLL=str(POLL)) as (server, _):
            run, job = await held(server, farm)
            first.close()
            message = run_service_pb2.AbortRunRequest(run_id=identifier(run))
            await server.call("workflow.RunService", "AbortRun", message, run_service_pb2.AbortRunResponse)
            await server.kill()
            with connector(tmp_path / "second.log", port=int(address.rpartition(":")[2])):
                await server.start()
                assert await server.phase(run) is Phase.ABORTED
                assert await program(server, "appears.py", str(farm), "*/deleted") == str(job)
