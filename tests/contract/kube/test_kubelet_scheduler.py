"""The scheduler for API servers without one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from flyte_unified.kube.kinds import NODES
from flyte_unified.testing.kubelet import Scheduler
from flyte_unified.testing.kubelet.affinity import selected, untolerated
from flyte_unified.testing.kubelet.quantities import needs
from tests.contract.kube.nodes import World, condition, ended, phase, sh, unique, world

__all__ = ["world"]


@pytest.fixture
async def name(world: World) -> AsyncIterator[str]:
    """The name of a scheduler that serves this test alone."""
    name = unique("scheduler")
    async with Scheduler.running(world.kube, name=name):
        yield name


def here(world: World, scheduler: str, **spec: Any) -> dict[str, Any]:
    """A pod for this test's node, whatever others there are."""
    return {"nodeName": None, "schedulerName": scheduler, "nodeSelector": {"flyte-unified.test/node": world.node}} | spec


def asks(**resources: str) -> dict[str, Any]:
    return {"resources": {"requests": resources, "limits": resources}}


async def test_a_pod_is_bound_and_runs(world: World, name: str):
    """To a node that fits, which an event says."""
    pod = await world.run(sh("true", **asks(cpu="100m", memory="10Mi")), **here(world, name))
    assert (phase(pod), pod["spec"]["nodeName"]) == ("Succeeded", world.node)
    assert condition(pod, "PodScheduled")["status"] == "True"
    told = await world.told("Scheduled")
    assert told["message"] == f"Successfully assigned {world.namespace}/pod to {world.node}"


async def test_a_pod_that_fits_nowhere_waits(world: World, name: str):
    """Unschedulable, in kube-scheduler's words, until there is room."""
    await world.run(sh("true", **asks(**{"example.com/gpu": "1"})), **here(world, name), wait=False)
    pod = await world.until(lambda p: condition(p, "PodScheduled").get("reason") == "Unschedulable")
    assert phase(pod) == "Pending"
    message = condition(pod, "PodScheduled")["message"]
    assert "nodes are available: " in message
    assert "1 Insufficient example.com/gpu" in message
    assert (await world.told("FailedScheduling"))["message"] == message
    more = {"status": {"capacity": {"example.com/gpu": "1"}, "allocatable": {"example.com/gpu": "1"}}}
    await world.kube.patch(NODES, world.node, more, subresource="status")
    pod = await world.until(ended)
    assert phase(pod) == "Succeeded"
    assert condition(pod, "PodScheduled")["status"] == "True"


async def test_resources_are_used_by_pods_that_run(world: World, name: str):
    """The second of two waits until the first has ended."""
    amount = (await world.kube.get(NODES, world.node))["status"]["allocatable"]["cpu"]
    await world.run(sh("echo up; sleep 60", **asks(cpu=amount)), **here(world, name), name="first", wait=False)
    await world.says("up", name="first")
    await world.run(sh("true", **asks(cpu="1")), **here(world, name), name="second", wait=False)
    pod = await world.until(lambda p: condition(p, "PodScheduled").get("status") == "False", name="second")
    assert "1 Insufficient cpu" in condition(pod, "PodScheduled")["message"]
    await world.delete("first", grace=1)
    await world.until(ended, name="second")


async def test_taints_and_selectors(world: World, name: str):
    """Each refusal has its words; a toleration lifts a taint."""
    await world.kube.patch(NODES, world.node, {"spec": {"taints": [{"key": "gpu", "value": "a100", "effect": "NoSchedule"}]}})
    await world.run(sh("true"), **here(world, name), wait=False)
    pod = await world.until(lambda p: condition(p, "PodScheduled").get("status") == "False")
    assert "node(s) had untolerated taint(s) {gpu: a100}" in condition(pod, "PodScheduled")["message"]
    tolerant = here(world, name, tolerations=[{"key": "gpu", "operator": "Exists"}])
    assert phase(await world.run(sh("true"), **tolerant, name="tolerant")) == "Succeeded"
    nowhere = tolerant | {"nodeSelector": {"no": "node"}}
    await world.run(sh("true"), **nowhere, name="nowhere", wait=False)
    pod = await world.until(lambda p: condition(p, "PodScheduled").get("status") == "False", name="nowhere")
    assert "node(s) didn't match Pod's node affinity/selector" in condition(pod, "PodScheduled")["message"]


def node(**labels: str) -> dict[str, Any]:
    return {"metadata": {"name": "n", "labels": labels}, "spec": {}}


def affinity(*terms: dict[str, Any]) -> dict[str, Any]:
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}
    return {"spec": {"affinity": {"nodeAffinity": required}}}


@pytest.mark.parametrize(
    ("operator", "values", "fits"),
    [
        ("In", ["a", "b"], True),
        ("NotIn", ["a"], False),
        ("Exists", [], True),
        ("DoesNotExist", [], False),
        ("Gt", ["1"], False),
    ],
)
def test_affinity(operator: str, values: list[str], fits: bool):
    """Operators over a label that is ``a``; terms are alternatives."""
    term = {"matchExpressions": [{"key": "l", "operator": operator, "values": values}]}
    assert selected(affinity(term), node(l="a")) is fits
    assert selected(affinity(term, {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}), node(l="a"))
    assert not selected(affinity({}), node(l="a"))


@pytest.mark.parametrize(
    ("toleration", "kept_out"),
    [
        ({"key": "k", "value": "v"}, False),
        ({"key": "k", "value": "w"}, True),
        ({"key": "k", "operator": "Exists", "effect": "NoSchedule"}, False),
        ({"key": "k", "operator": "Exists", "effect": "NoExecute"}, True),
        ({"operator": "Exists"}, False),
    ],
)
def test_tolerations(toleration: dict[str, Any], kept_out: bool):
    """Of one taint."""
    tainted = {**node(), "spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}}
    assert (untolerated({"spec": {"tolerations": [toleration]}}, tainted) is not None) is kept_out


def test_what_a_pod_needs():
    """Containers with sidecars, or the greediest init container with the sidecars before it; limits stand for requests."""
    inits = [
        {"name": "side", **asks(cpu="100m"), "restartPolicy": "Always"},
        {"name": "init", **asks(cpu="2", memory="1Gi")},
    ]
    mains = [{"name": "a", "resources": {"limits": {"cpu": "500m"}}}, {"name": "b", **asks(memory="512Mi")}]
    found = needs({"spec": {"initContainers": inits, "containers": mains}})
    assert {name: float(amount) for name, amount in found.items()} == {"cpu": 2.1, "memory": float(1 << 30)}
