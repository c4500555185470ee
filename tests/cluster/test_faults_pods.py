"""What happens to pods behind our back: somebody deletes them, their node ends them, or is lost with them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from flyte_unified.core.phases import Phase
from flyte_unified.kube.kinds import NODES, PODS, Object
from flyte_unified.testing.kubelet import Kubelet
from flyte_unified.testing.kubelet.cluster import lose
from tests.cluster.bodies import PATIENCE
from tests.cluster.local import NODE_LABEL, LocalCluster
from tests.cluster.stand import Stand


async def _in_the_cluster(stand: Stand, work: Callable[[], Awaitable[Any]]) -> None:
    await asyncio.to_thread(stand.cluster.do, work)


async def _delete(stand: Stand, run: str) -> None:
    await stand.until(lambda: stand.pod(run))
    pod = stand.pod(run)
    assert pod is not None
    cluster, name = stand.cluster, pod["metadata"]["name"]
    await _in_the_cluster(stand, lambda: cluster.kube.delete(PODS, name, namespace=cluster.namespace, grace=1))


async def test_a_pod_deleted_before_it_ran_is_another_attempt(stand: Stand) -> None:
    """Which costs none of the user's retries."""
    server = await stand.replica()
    stand.cluster.kubelet.hold()
    run = await stand.run(server)
    await _delete(stand, run)
    stand.cluster.kubelet.resume()
    (await stand.bodies.comes(run, 2)).end()
    await stand.ends(server, run, Phase.SUCCEEDED, attempts=2, bodies=1)


async def test_a_pod_deleted_while_it_runs_is_another_attempt(stand: Stand) -> None:
    """The second begins when the first is over."""
    server = await stand.replica()
    run = await stand.run(server)
    await stand.bodies.comes(run)
    await _delete(stand, run)
    (await stand.bodies.comes(run, 2)).end()
    await stand.succeeds(server, run, attempts=2)


async def test_a_pod_deleted_after_its_end_has_ended_as_it_did(stand: Stand) -> None:
    """Its outputs count, whoever was quicker."""
    server = await stand.replica()
    run = await stand.run(server)
    log = stand.hold("get", "pods", "log")
    (await stand.bodies.comes(run)).end()
    await stand.reached(log)
    await _delete(stand, run)
    stand.faults.restore()
    await stand.succeeds(server, run)


def _evicted(cluster: LocalCluster, pod: Object) -> Callable[[], Awaitable[None]]:
    async def evict() -> None:
        cluster.kubelet.evict(pod)

    return evict


ENDS: dict[str, Callable[[LocalCluster, Object], Callable[[], Awaitable[None]]]] = {
    "evicted": _evicted,
    "preempted": lambda cluster, pod: lambda: cluster.kubelet.preempt(pod),
    "killed": lambda cluster, pod: lambda: cluster.kubelet.kill_container(pod, 9),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
async def test_a_pod_that_its_node_ends_is_another_attempt(
    stand: Stand, end: Callable[[LocalCluster, Object], Callable[[], Awaitable[None]]]
) -> None:
    """Without any retry of the user's."""
    server = await stand.replica()
    run = await stand.run(server)
    await stand.bodies.comes(run)
    pod = stand.pod(run)
    assert pod is not None
    await _in_the_cluster(stand, end(stand.cluster, pod))
    (await stand.bodies.comes(run, 2)).end()
    await stand.succeeds(server, run, attempts=2)


async def test_a_pod_out_of_memory_is_the_users_to_repeat(stand: Stand) -> None:
    """It fails by its name without a retry, and is repeated with one."""
    server = await stand.replica()
    for retries, phase in ((0, Phase.FAILED), (1, Phase.SUCCEEDED)):
        run = await stand.run(server, retries=retries)
        await stand.bodies.comes(run)
        pod = stand.pod(run)
        assert pod is not None
        await _in_the_cluster(stand, lambda pod=pod: stand.cluster.kubelet.oom(pod))
        if retries:
            (await stand.bodies.comes(run, 2)).end()
        details = await stand.ends(server, run, phase, attempts=1 + retries)
        assert "memory" in details.attempts[0].error_info.message


async def test_a_lost_node_takes_no_run_along(stand: Stand) -> None:
    """What ran there is another attempt on another node, when the cluster says that the node is lost."""
    cluster = stand.cluster
    nodes = [_node(stand, name) for name in ("frail", "sound")]
    server = await stand.replica(PODS_NODE_SELECTOR=f"{NODE_LABEL}=of-{cluster.namespace}", PODS_TERMINATION_GRACE="1")
    try:
        await _in_the_cluster(stand, nodes[0].start)
        run = await stand.run(server)
        await stand.bodies.comes(run)
        await _in_the_cluster(stand, nodes[1].start)
        await _in_the_cluster(stand, nodes[0].die)
        await _in_the_cluster(stand, lambda: lose(cluster.kube, nodes[0].name))
        (await stand.bodies.comes(run, 2)).end()
        await stand.succeeds(server, run, attempts=2)
    finally:
        for node in nodes:
            await _in_the_cluster(stand, lambda node=node: node.stop(0))
        await _in_the_cluster(stand, lambda: cluster.kube.delete(NODES, nodes[0].name))


def _node(stand: Stand, name: str) -> Kubelet:
    cluster = stand.cluster
    return Kubelet(
        cluster.kube,
        directory=stand.directory / name,
        name=f"{name}-{cluster.namespace}",
        namespace=cluster.namespace,
        labels={NODE_LABEL: f"of-{cluster.namespace}"},
        taints=[{"key": NODE_LABEL, "value": cluster.namespace, "effect": "NoSchedule"}],
    )


async def test_a_pod_of_an_attempt_that_is_over_is_ended(stand: Stand) -> None:
    """However it comes about, as by a request that was long on its way: the attempt that runs is judged by its own."""
    server = await stand.replica()
    run = await stand.run(server)
    first = await stand.bodies.comes(run)
    pod = stand.pod(run)
    assert pod is not None
    first.end(1)
    second = await stand.bodies.comes(run, 2)
    cluster, metadata = stand.cluster, pod["metadata"]
    name = metadata["name"]
    await stand.until(lambda: "finalizers" not in (stand.pod(run) or pod)["metadata"])
    await _in_the_cluster(stand, lambda: cluster.kube.delete(PODS, name, namespace=cluster.namespace, grace=0))
    await stand.until(lambda: stand.pod(run) is None)
    kept = {key: metadata[key] for key in ("name", "namespace", "labels", "annotations", "finalizers", "ownerReferences")}
    spec = {key: value for key, value in pod["spec"].items() if key != "nodeName"}
    await _in_the_cluster(stand, lambda: cluster.kube.create(PODS, {**pod, "metadata": kept, "spec": spec, "status": {}}))
    second.end()
    async with asyncio.timeout(PATIENCE):
        assert await server.phase(run) is Phase.SUCCEEDED
    assert len((await server.details(run, "a0")).attempts) == 2
    await stand.settled(run)
