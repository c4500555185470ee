"""Several servers of one cluster: one leads, and whoever it is, and however it changes, each attempt has one body."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from itertools import count

import aiohttp
import pytest
from flyteidl2.workflow import run_definition_pb2, run_service_pb2

from flyte_unified.core.phases import Phase
from flyte_unified.kube.kinds import PODS
from tests.cluster.replicas import Replica
from tests.cluster.stand import Stand
from tests.postgres import MISSING
from tests.sdk.durability.stand import identifier

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)


async def _two(stand: Stand) -> tuple[Replica, Replica]:
    """The leader, and another."""
    old = await stand.replica("old")
    await stand.leads("old")
    return old, await stand.replica("new")


async def test_a_leader_that_slept_too_long_does_nothing_more(stand: Stand) -> None:
    """While it is suspended another takes the lead. Awake again it writes nothing: not of a body that ended meanwhile, and
    not of one that still runs. Then it serves like any other.
    """
    old, new = await _two(stand)
    ending, running = [await stand.run(old) for _ in range(2)]
    bodies = [await stand.bodies.comes(run) for run in (ending, running)]
    old.signal(signal.SIGSTOP)
    await stand.leads("new")
    bodies[0].end()
    await stand.succeeds(new, ending)
    begun = await stand.run(new)
    third = await stand.bodies.comes(begun)
    old.signal(signal.SIGCONT)
    for body in (bodies[1], third):
        body.end()
    for run in (running, begun):
        await stand.succeeds(old, run)
    assert stand.leader() == "new"


async def test_a_leader_that_slept_before_it_made_a_pod_makes_none(stand: Stand) -> None:
    """The attempt that it was about to start is over by then, its pod is gone, and the next one runs."""
    old, _ = await _two(stand)
    pods = stand.hold("create", "pods")
    run = await stand.run(old)
    await stand.reached(pods)
    old.signal(signal.SIGSTOP)
    stand.faults.restore()
    await stand.leads("new")
    (await stand.bodies.comes(run)).end(1)
    second = await stand.bodies.comes(run, 2)
    pod = stand.pod(run)
    if pod is not None:
        cluster, name = stand.cluster, pod["metadata"]["name"]
        await stand.until(lambda: "finalizers" not in ((stand.pod(run) or pod)["metadata"]))
        await asyncio.to_thread(cluster.do, lambda: cluster.kube.delete(PODS, name, namespace=cluster.namespace, grace=0))
        await stand.until(lambda: stand.pod(run) is None)
    old.signal(signal.SIGCONT)
    await old.details(run, "a0")  # it is awake
    assert stand.pod(run) is None
    second.end()
    await stand.succeeds(old, run, attempts=2)


async def test_a_leader_that_is_told_to_end_is_followed_at_once(stand: Stand) -> None:
    """Within two seconds another carries out what was begun, and begins what is new; no lease has to run out."""
    settings = {"KUBERNETES_LEASE_DURATION": "15"}
    old = await stand.replica("old", **settings)
    await stand.leads("old")
    new = await stand.replica("new", **settings)
    run = await stand.run(old)
    body = await stand.bodies.comes(run)
    waiting = asyncio.create_task(stand.leads("new"))
    begun = time.monotonic()
    ending = asyncio.create_task(old.end())
    await waiting
    assert time.monotonic() - begun < 2.0
    another = await stand.run(new)
    (await stand.bodies.comes(another)).end()
    body.end()
    for name in (run, another):
        await stand.succeeds(new, name)
    await ending


class Caller:
    """A client that repeats what clients repeat, at the next address: calls that nobody answered, and UNAVAILABLE."""

    def __init__(self, stand: Stand) -> None:
        self._stand = stand
        self.serving: list[Replica] = []
        self._turn = count()
        self.runs: list[str] = []
        self.repeated = 0

    async def create(self) -> None:
        name = f"u{next(self._turn)}"
        request = run_service_pb2.CreateRunRequest(run_id=identifier(name), task_spec=self._stand.bodies.task())
        while True:
            replica = self.serving[next(self._turn) % len(self.serving)]
            try:
                await replica.call("workflow.RunService", "CreateRun", request, run_service_pb2.CreateRunResponse)
            except (aiohttp.ClientError, ConnectionError):
                self.repeated += 1
            except AssertionError as error:
                if '"unavailable"' not in str(error):
                    raise
                self.repeated += 1
            else:
                self.runs.append(name)
                return

    async def go_on(self, *, until: asyncio.Event) -> None:
        while not until.is_set():
            await self.create()


async def test_servers_are_replaced_under_load(stand: Stand) -> None:
    """One after the other, each by one that is ready before: no call fails that a client would not repeat, and every run
    succeeds.
    """
    stand.bodies.open = True
    caller = Caller(stand)
    caller.serving = [await stand.replica(name) for name in ("a", "b")]
    over = asyncio.Event()
    callers = [asyncio.create_task(caller.go_on(until=over), name=f"caller {number}") for number in range(2)]
    for old, new in (("a", "c"), ("b", "d")):
        caller.serving.append(await stand.replica(new))
        leaving = stand.replicas[old]
        await leaving.end()  # still called for a while, as by clients that don't know yet
        caller.serving.remove(leaving)
        await stand.leads("a", "b", "c", "d")
    over.set()
    await asyncio.gather(*callers)
    assert len(caller.runs) > 4
    for run in caller.runs:
        await stand.succeeds(caller.serving[0], run)


async def test_the_next_leader_writes_nothing_of_what_runs_as_before(stand: Stand) -> None:
    """What it finds running is what the ledger says: no write, and nobody who watches hears of it."""
    old, new = await _two(stand)
    run = await stand.run(old)
    body = await stand.bodies.comes(run)
    await stand.until(lambda: stand.condition(run) == "Executing")
    before = await _version(old, run)
    await old.kill()
    stand.vacate()
    await stand.leads("new")
    another = await stand.run(new)
    (await stand.bodies.comes(another)).end()  # by now it has looked at everything
    await stand.succeeds(new, another)
    assert await _version(new, run) == before
    body.end()
    assert (await stand.succeeds(new, run)).status.phase == Phase.SUCCEEDED


async def _version(replica: Replica, run: str) -> run_definition_pb2.ActionDetails:
    return await replica.details(run, "a0")


async def test_a_drained_leader_leaves_the_lead(stand: Stand) -> None:
    """Another carries out what was begun; the drained one serves on, and may lead again when it is let."""
    old, new = await _two(stand)
    run = await stand.run(old)
    body = await stand.bodies.comes(run)
    assert await _typed(old, "drain", "--wait") == "drained; nothing runs\n"
    await stand.leads("new")
    body.end()
    await stand.succeeds(old, run)
    said = await _typed(old, "status")
    assert "is draining at" in said
    assert "begins no runs" in said
    assert await _typed(old, "drain", "--off") == "runs begin again\n"
    assert await _typed(new, "drain") == "drained; nothing runs\n"
    await stand.leads("old")


async def _typed(server: Replica, *arguments: str) -> str:
    """What ``flyte-unified`` printed beside a server, with the settings of that."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "flyte_unified", *arguments, "--data-dir", str(server.data)),
        env=server.environment,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out
    return out.decode()
