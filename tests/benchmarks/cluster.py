"""What an action costs a cluster: writes to its API server, statements to its database, memory of the server.

The pods are played (``played``), so that what is measured is the control plane alone. The server is a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from flyteidl2.actions import actions_service_pb2 as actions_pb2
from flyteidl2.task import run_pb2, task_definition_pb2
from flyteidl2.workflow import run_service_pb2

from flyte_unified.core.ids import RunKey
from tests.benchmarks import api
from tests.benchmarks.harness import ROOT, RawClient, Server, request, server
from tests.benchmarks.played import Pace, Played, settings
from tests.postgres_meter import Meter

_RUN = RunKey("flytesnacks", "development", "r")


@dataclass(frozen=True, slots=True)
class Costs:
    """Of each of some actions at once, from Enqueue until their TaskActions are marked as over."""

    seconds: float
    """Of all together"""
    statements: float
    creates: float
    statuses: float
    marks: float
    """Patches of TaskActions that are not of their status: the one after the end."""
    pods: float
    """Writes of pods"""
    others: float
    """Requests that are none of these: reads too"""


async def costs(url: str, *, count: int, pace: Pace) -> Costs:
    """``url``: an empty Postgres database."""
    with tempfile.TemporaryDirectory(prefix="fu-", dir=Path("/tmp").resolve()) as directory:
        async with Meter.running(url) as meter, Played.running(pace) as played:
            values = played.settings(Path(directory) / "kubeconfig") | {"database.url": meter.url}
            async with _server(values) as target:
                client = RawClient(target.port)
                inputs = await _begin(client)
                await played.started(1)
                before, statements = played.cluster.requests.copy(), meter.statements
                began = time.perf_counter()
                await client.rate(count, 64, lambda index: _enqueue(f"n{index}", inputs))
                await played.over(count)
                seconds = time.perf_counter() - began
                asked = played.cluster.requests - before
                return Costs(
                    seconds=seconds,
                    statements=(meter.statements - statements) / count,
                    creates=asked.pop(("create", "taskactions", ""), 0) / count,
                    statuses=asked.pop(("patch", "taskactions", "status"), 0) / count,
                    marks=asked.pop(("patch", "taskactions", ""), 0) / count,
                    pods=sum(asked.pop((verb, "pods", ""), 0) for verb in ("create", "patch", "delete")) / count,
                    others=asked.total() / count,
                )


@dataclass(frozen=True, slots=True)
class Held:
    """Of a server with live actions whose pods run: bytes, seconds, and a share of one processor."""

    rss: int
    taken_over: float
    """From another server's first second until all are followed"""
    rss_after: int
    cpu: float
    """While nothing happens"""
    requests: Mapping[str, int]
    """... in the same time"""


async def held(url: str, *, count: int, idle: float) -> Held:
    """``url``: an empty Postgres database. ``idle`` is how many seconds nothing happens."""
    with tempfile.TemporaryDirectory(prefix="fu-", dir=Path("/tmp").resolve()) as directory, _played(Path(directory)) as played:
        values = settings(Path(directory) / "kubeconfig") | {"database.url": url}
        async with _server(values) as first:
            client = RawClient(first.port)
            inputs = await _begin(client)
            await client.rate(count, 64, lambda index: _enqueue(f"n{index}", inputs))
            await _settle(played, pods=count + 1)
            rss, cpu = first.rss(), first.cpu()
            await _asked(played, anew=True)
            await asyncio.sleep(idle)
            requests, cpu = await _asked(played), (first.cpu() - cpu) / idle
        began = time.perf_counter()
        async with _server(values) as second:
            while await _live(second) < count:  # noqa: ASYNC110  # another process, which tells when it is asked
                await asyncio.sleep(0.1)
            return Held(rss, time.perf_counter() - began, second.rss(), cpu, requests)


def pod_spec() -> task_definition_pb2.TaskSpec:
    """A task with the size of a real one, without inputs and outputs."""
    spec = api.sleep_spec("pod")
    template = spec.task_template
    template.type = "python"
    template.interface.Clear()
    template.container.image = "python:3.12"
    template.container.args.extend(("--outputs-path", "{{.outputPrefix}}"))
    return spec


async def _begin(client: RawClient) -> run_pb2.OffloadedInputData:
    """A run whose root never ends; the inputs of its children."""
    inputs = await api.upload(client, api.sleep_inputs(timedelta(0)))
    message = run_service_pb2.CreateRunRequest(task_spec=pod_spec(), offloaded_input_data=inputs)
    message.run_id.CopyFrom(_RUN.idl())
    await client.rate(1, 1, lambda _: request("/flyteidl2.workflow.RunService/CreateRun", message))
    return inputs


def _enqueue(name: str, inputs: run_pb2.OffloadedInputData) -> bytes:
    action = actions_pb2.Action(
        action_id=_RUN.action(name).idl(),
        parent_action_name="a0",
        input_uri=inputs.uri,
        run_output_base=inputs.uri.removesuffix("/inputs.pb"),
    )
    action.task.spec.CopyFrom(pod_spec())
    return request("/flyteidl2.actions.ActionsService/Enqueue", actions_pb2.EnqueueRequest(action=action))


@asynccontextmanager
async def _server(values: Mapping[str, Any]) -> AsyncGenerator[Server]:
    """A process; this loop goes on while it starts and ends."""
    started = server(**{f"FLYTE_UNIFIED_{name.upper().replace('.', '_')}": str(value) for name, value in values.items()})
    target = await asyncio.to_thread(started.__enter__)
    try:
        yield target
    finally:
        await asyncio.to_thread(started.__exit__, None, None, None)


@contextmanager
def _played(directory: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.benchmarks.played", str(directory)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        _ask(process, "")
        yield process
        process.stdin.close()


async def _asked(played: subprocess.Popen[str], *, anew: bool = False) -> Counter[str]:
    return await asyncio.to_thread(_ask, played, "anew" if anew else "")


def _ask(played: subprocess.Popen[str], line: str) -> Counter[str]:
    assert played.stdin is not None
    assert played.stdout is not None
    played.stdin.write(f"{line}\n")
    played.stdin.flush()
    return Counter(json.loads(played.stdout.readline()))


async def _settle(played: subprocess.Popen[str], *, pods: int) -> None:
    """Returns when so many pods were made, and nothing but the lease is asked any more."""
    before = Counter[str]()
    while True:
        now = await _asked(played)
        if now["create pods "] >= pods and not {name for name in now - before if "leases" not in name}:
            return
        before = now
        await asyncio.sleep(3)


async def _live(target: Server) -> float:
    """Actions that this server carries out."""
    body = await asyncio.to_thread(_get, f"http://127.0.0.1:{target.port}/metrics")
    return next(float(line.split()[-1]) for line in body.splitlines() if line.startswith("flyte_unified_live_actions"))


def _get(url: str) -> str:
    with urlopen(url, timeout=30) as response:
        return str(response.read().decode())
