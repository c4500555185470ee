"""An API server that fails in every way it can: runs wait for it, and end as if it had not."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from flyteidl2.workflow import run_service_pb2

from flyte_unified.core.phases import Phase
from flyte_unified.kube.errors import Missing
from flyte_unified.kube.kinds import TASK_ACTIONS
from flyte_unified.testing.fake_kube.faults import WRITES, Asked
from tests.cluster.bodies import AWAY
from tests.cluster.replicas import Replica
from tests.cluster.stand import LEASE, Stand
from tests.sdk.durability.stand import identifier

LEASE_LOST = LEASE + 0.5
"""Seconds."""


async def _abort(server: Replica, run: str) -> None:
    message = run_service_pb2.AbortRunRequest(run_id=identifier(run), reason="enough")
    await server.call("workflow.RunService", "AbortRun", message, run_service_pb2.AbortRunResponse)


@pytest.mark.parametrize(
    ("seconds", "refuse"), [(0.2, False), (LEASE_LOST, False), (LEASE_LOST, True)], ids=["a blink", "silence", "503"]
)
async def test_an_api_server_that_is_away_holds_nobody_up_for_good(stand: Stand, seconds: float, refuse: bool) -> None:
    """Of runs in every phase, and those that begin, end or are aborted meanwhile, each ends right, whether or not the leader
    lost its lease.
    """
    server = await stand.replica()
    running, ending, failing, doomed = [await stand.run(server) for _ in range(4)]
    bodies = {run: await stand.bodies.comes(run) for run in (running, ending, failing, doomed)}
    unread = await stand.run(server)
    body = await stand.bodies.comes(unread)
    log = stand.hold("get", "pods", "log")
    body.end()
    await stand.reached(log)
    stand.cluster.kubelet.hold()
    pending = await stand.run(server)
    await stand.until(lambda: stand.pod(pending))
    pods = stand.hold("create", "pods")
    podless = await stand.run(server)
    await stand.reached(pods)

    stand.faults.outage(refuse=refuse)
    stand.cluster.kubelet.resume()
    begun = await stand.run(server)
    bodies[ending].end()
    bodies[failing].end(1)
    await _abort(server, doomed)
    assert await server.phase(doomed) is Phase.ABORTED
    stand.bodies.open = True
    await asyncio.sleep(max(seconds, AWAY))  # how long it is away is what is tried
    assert stand.bodies.of(begun) == []
    stand.faults.restore()
    bodies[running].end()
    (await stand.bodies.comes(pending)).end()  # perhaps it came before they were open

    for run in (running, ending, unread, pending, podless, begun):
        await stand.succeeds(server, run)
    await stand.succeeds(server, failing, attempts=2)
    await stand.ends(server, doomed, Phase.ABORTED)


async def test_watches_that_are_cut_miss_nothing(stand: Stand) -> None:
    """At every step of a run, and at every second one the server has forgotten what was before: 410."""
    server = await stand.replica()

    def cut(*, forget: bool = False) -> None:
        if forget:
            stand.faults.expire()
        stand.faults.cut_watches()

    stand.cluster.kubelet.hold()
    run = await stand.run(server)
    await stand.until(lambda: stand.order(run))
    cut(forget=True)
    await stand.until(lambda: stand.pod(run))
    cut()
    stand.cluster.kubelet.resume()
    first = await stand.bodies.comes(run)
    cut(forget=True)
    await stand.until(lambda: stand.condition(run) == "Executing")
    cut()
    first.end(1)
    second = await stand.bodies.comes(run, 2)
    cut(forget=True)
    second.end()
    cut(forget=True)
    await stand.succeeds(server, run, attempts=2)


async def test_conflicts_are_fought_out(stand: Stand) -> None:
    """Every write of a run and of the lease is refused a few times, as if others wrote in between."""
    server = await stand.replica()
    await stand.leads("one")
    for refused in (("taskactions", ""), ("taskactions", "status"), ("pods", "")):
        stand.faults.conflict(3, match=lambda asked, what=refused: (asked.resource, asked.subresource) == what)
    stand.faults.conflict(1, match=lambda asked: asked.resource == "leases" and asked.name == "flyte-unified")
    run = await stand.run(server)
    (await stand.bodies.comes(run)).end()
    await stand.succeeds(server, run)


async def test_a_server_that_is_told_to_wait_waits(stand: Stand) -> None:
    """429 with a time, once for every kind of request: nothing is lost, and what was refused is not asked again at once."""
    server = await stand.replica()
    refused: list[tuple[str, str]] = []

    def once(asked: Asked) -> bool:
        kind = (asked.verb, f"{asked.resource}/{asked.subresource}")
        new = asked.verb in WRITES and asked.resource in ("taskactions", "pods") and kind not in refused
        if new:
            refused.append(kind)
        return new

    stand.faults.throttle(1 << 20, retry_after=1, match=once)
    run = await stand.run(server)
    (await stand.bodies.comes(run)).end()
    await stand.succeeds(server, run)
    ours = {("create", "taskactions/"), ("patch", "taskactions/status"), ("create", "pods/"), ("patch", "taskactions/")}
    assert ours < set(refused)


async def test_errors_of_the_server_are_tried_again(stand: Stand) -> None:
    """500 for every second write, and answers that never come although the write was done."""
    server = await stand.replica()
    for number, fault in enumerate((stand.faults.fail, stand.faults.drop)):
        seen: list[Asked] = []

        def second(asked: Asked, seen: list[Asked] = seen) -> bool:
            seen += [asked] if asked.verb in WRITES and asked.resource in ("taskactions", "pods") else []
            return bool(seen) and seen[-1] is asked and len(seen) % 2 == 0

        fault(times=1 << 20, match=second)
        run = await stand.run(server)
        (await stand.bodies.comes(run)).end()
        await stand.succeeds(server, run)
        stand.faults.restore()
        assert len(seen) > 4, number


async def test_a_deleted_order_ends_its_run(stand: Stand) -> None:
    """As by ``kubectl delete``: it is aborted, and its body with it."""
    server = await stand.replica()
    run = await stand.run(server)
    body = await stand.bodies.comes(run)
    order = stand.order(run)
    assert order is not None
    await asyncio.to_thread(
        stand.cluster.do,
        lambda: stand.cluster.kube.delete(TASK_ACTIONS, order["metadata"]["name"], namespace=stand.cluster.namespace),
    )
    details = await stand.ends(server, run, Phase.ABORTED)
    assert "was deleted" in details.abort_info.reason
    await body.over.wait()


async def test_an_order_that_is_torn_away_is_made_again(stand: Stand) -> None:
    """Its finalizer is removed by hand: the run goes on, though the cluster collects the pod that the order owned."""
    server = await stand.replica()
    run = await stand.run(server)
    await stand.bodies.comes(run)
    order = stand.order(run)
    assert order is not None
    name, uid = order["metadata"]["name"], order["metadata"]["uid"]

    async def tear() -> None:
        kube, namespace = stand.cluster.kube, stand.cluster.namespace
        await kube.patch(TASK_ACTIONS, name, {"metadata": {"finalizers": None}}, namespace=namespace)
        with suppress(Missing):
            await kube.delete(TASK_ACTIONS, name, namespace=namespace, uid=uid)

    await asyncio.to_thread(stand.cluster.do, tear)
    await stand.until(lambda: (new := stand.order(run)) and new["metadata"]["uid"] != uid)
    stand.bodies.open = True
    await stand.succeeds(server, run, attempts=2)
    pod = stand.pod(run, 2)
    new = stand.order(run)
    assert pod is not None and new is not None
    assert [owner["uid"] for owner in pod["metadata"]["ownerReferences"]] == [new["metadata"]["uid"]]
