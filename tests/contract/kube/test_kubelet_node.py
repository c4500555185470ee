"""A node of processes as a member of its cluster: registered, disturbed, lost, started anew."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import ssl
import sys
from pathlib import Path

import aiohttp
import psutil
import pytest

from flyte_unified.core.errors import NotFound
from flyte_unified.kube.client import Kube
from flyte_unified.kube.errors import Invalid, Missing
from flyte_unified.kube.kinds import LEASES, NODES, PODS
from flyte_unified.testing.fake_kube import FakeKube
from flyte_unified.testing.kubelet import Kubelet, lose
from tests.contract.kube.nodes import (
    PATIENCE,
    QUICK,
    World,
    condition,
    ended,
    phase,
    ready,
    running,
    sh,
    state,
    status,
    unique,
    world,
)

__all__ = ["world"]

FOREVER = "echo up; while :; do sleep 0.05; done"


async def test_a_node_joins_and_leaves(kube: Kube, tmp_path: Path):
    """With its resources, its conditions, the address of its logs and a lease; none of it is left."""
    name = unique("node")
    taint = {"key": "only", "value": "some", "effect": "NoSchedule"}
    options = {"name": name, "capacity": {"nvidia.com/gpu": "2", "cpu": "4"}, "taints": [taint], "pace": QUICK}
    async with Kubelet.running(kube, directory=tmp_path / "node", **options):
        node = await kube.get(NODES, name)
        assert node["status"]["allocatable"]["nvidia.com/gpu"] == "2"
        assert node["status"]["capacity"]["cpu"] == "4"
        assert {c["type"]: c["status"] for c in node["status"]["conditions"]}["Ready"] == "True"
        assert node["metadata"]["labels"]["kubernetes.io/hostname"] == name
        assert node["spec"]["taints"] == [taint]
        assert node["status"]["addresses"] == [{"type": "InternalIP", "address": "127.0.0.1"}]
        lease = await kube.get(LEASES, name, namespace="kube-node-lease")
        assert lease["spec"]["holderIdentity"] == name
    for kind, namespace in ((NODES, ""), (LEASES, "kube-node-lease")):
        with pytest.raises(Missing):
            await kube.get(kind, name, namespace=namespace)
    assert not (tmp_path / "node").exists()


async def test_a_node_that_leaves_ends_its_pods(world: World):
    """They have failed by the node's shutdown, and no process is left."""
    await world.run(sh(FOREVER), wait=False)
    await world.says("up")
    assert world.processes()
    await world.kubelet.stop(1)
    pod = await world.until(ended)
    assert (phase(pod), pod["status"]["reason"]) == ("Failed", "Terminated")
    assert condition(pod, "DisruptionTarget")["reason"] == "TerminationByKubelet"
    await world.emptied()


async def test_eviction(world: World):
    """Failed, Evicted, with the kubelet's message and a condition that says whose fault it was."""
    await world.run(sh(FOREVER), wait=False)
    created = await world.until(ready)
    world.kubelet.evict(created)
    pod = await world.until(ended)
    assert (phase(pod), pod["status"]["reason"], state(pod)[1]["exitCode"]) == ("Failed", "Evicted", 137)
    assert pod["status"]["message"].startswith("The node was low on resource: memory. Threshold quantity: ")
    assert (condition(pod, "DisruptionTarget")["status"], condition(pod, "DisruptionTarget")["reason"]) == (
        "True",
        "TerminationByKubelet",
    )
    assert (await world.told("Evicted"))["type"] == "Warning"


async def test_preemption(world: World):
    """The victim is marked by the scheduler, and ends in its own time."""
    await world.run(sh("trap 'exit 0' TERM; " + FOREVER), wait=False)
    await world.says("up")
    await world.kubelet.preempt(f"{world.namespace}/pod")
    states = await world.gone()
    assert condition(states[-1], "DisruptionTarget")["reason"] == "PreemptionByScheduler"
    assert state(states[-1])[1]["exitCode"] == 0
    await world.told("Preempted")


async def test_out_of_memory(world: World):
    """By a test's word, and by the container's own doing."""
    await world.run(sh(FOREVER), wait=False)
    await world.says("up")
    await world.kubelet.oom(f"{world.namespace}/pod")
    pod = await world.until(ended)
    assert (state(pod)[1]["reason"], state(pod)[1]["exitCode"]) == ("OOMKilled", 137)
    greedy = {"command": ["python", "-c", "x = bytearray(200 << 20); import time; time.sleep(60)"]}
    limits = {"resources": {"limits": {"memory": "64Mi"}}}
    pod = await world.run({"name": "main", "image": "i", **greedy, **limits}, name="greedy")
    assert (state(pod)[1]["reason"], state(pod)[1]["exitCode"]) == ("OOMKilled", 137)


async def test_a_container_gets_a_signal(world: World):
    """From outside, as an operator would send it."""
    await world.run(sh("trap 'exit 9' USR1; " + FOREVER), sh("sleep 0.1", "other"), wait=False)
    await world.says("up")
    await world.kubelet.kill_container(f"{world.namespace}/pod", signal.SIGUSR1)
    assert state(await world.until(ended))[1]["exitCode"] == 9
    with pytest.raises(NotFound):
        await world.kubelet.kill_container(f"{world.namespace}/nobody", signal.SIGUSR1)


async def test_a_node_can_be_held(world: World):
    """Pods stay pending until it goes on, and can be deleted meanwhile."""
    world.kubelet.hold()
    await world.run(sh("true"), wait=False)
    await world.run(sh("true"), name="second", wait=False)
    await world.until(status)
    await world.delete("second")
    await world.gone("second")
    assert {phase(p) for p in world.seen["pod"]} == {"Pending"}
    world.kubelet.resume()
    assert phase(await world.until(ended)) == "Succeeded"


async def test_a_lost_node(world: World):
    """Nothing is heard of it; its pods are marked and deleted by others, and stay, until somebody collects them."""
    await world.run(sh(FOREVER), wait=False)
    await world.says("up")
    await world.kubelet.die()
    await world.emptied()
    await lose(world.kube, world.node)
    pod = await world.until(lambda p: p["metadata"].get("deletionTimestamp"))
    assert (phase(pod), condition(pod, "Ready")["status"]) == ("Running", "False")
    assert condition(pod, "DisruptionTarget")["reason"] == "DeletionByTaintManager"
    node = await world.kube.get(NODES, world.node)
    assert {c["status"] for c in node["status"]["conditions"]} == {"Unknown"}
    await lose(world.kube, world.node, collect=True)
    assert condition((await world.gone())[-1], "DisruptionTarget")["reason"] == "DeletionByPodGC"
    await world.kube.delete(NODES, world.node)


async def test_processes_of_a_lost_node_go_on(kube: Kube, namespace: str, tmp_path: Path):
    """When only the node's word is lost; they end when the test does."""
    world = World(kube, namespace=namespace, node=unique("node"), directory=tmp_path / "node")
    await world.start(ephemeral=False)
    mark = tmp_path / "mark"
    await world.run(sh(f"echo $$$$ > {mark}; {FOREVER}"), wait=False)
    await world.says("up")
    await world.kubelet.die(processes=True)
    process = psutil.Process(int(mark.read_text()))
    assert process.is_running()
    await world.stop()
    assert not process.is_running()
    await kube.delete(NODES, world.node)


async def test_a_kubelet_that_is_started_anew_finds_its_containers(kube: Kube, namespace: str, tmp_path: Path):
    """What runs runs on, what ended meanwhile has its exit code and log, what is new begins, what was deleted ends."""
    world = World(kube, namespace=namespace, node=unique("node"), directory=tmp_path / "node")
    await world.start(ephemeral=False)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with fifo.open("r+b", buffering=0) as gate:
        await world.run(sh("trap 'exit 6' TERM; " + FOREVER), name="runs", wait=False)
        await world.run(sh(f"echo before; read x < {fifo}; echo after; exit 5"), name="ends", wait=False)
        await world.run(sh("trap '' TERM; " + FOREVER), name="deleted", wait=False)
        for name in ("runs", "deleted"):
            await world.says("up", name=name)
        await world.says("before", name="ends")
        await world.kubelet.leave()
        ending = psutil.Process(_pid(world, "ends"))
        gate.write(b"x\n")
        await asyncio.to_thread(psutil.wait_procs, [ending], PATIENCE)
    await world.delete("deleted", grace=0)
    await world.run(sh("true"), name="new", wait=False)
    world.kubelet = world.new_kubelet(ephemeral=False)
    await world.kubelet.start()
    pod = await world.until(ended, name="ends")
    assert (state(pod)[1]["exitCode"], status(pod)["restartCount"]) == (5, 0)
    assert await world.logs(name="ends") == ["before", "after"]
    assert phase(await world.until(ended, name="new")) == "Succeeded"
    assert running(world.seen["runs"][-1])
    await world.delete("runs")
    assert state((await world.gone("runs"))[-1])[1]["exitCode"] == 6
    assert not list((tmp_path / "node" / "pods").glob(world.seen["deleted"][0]["metadata"]["uid"]))
    await world.stop()


async def test_a_kubelet_that_lost_its_containers_says_so(world: World):
    """With its directory: how they ended is unknown."""
    await world.run(sh(FOREVER), wait=False)
    await world.says("up")
    await world.kubelet.leave()
    await world.emptied()
    shutil.rmtree(world.directory)
    world.kubelet = world.new_kubelet()
    await world.kubelet.start()
    pod = await world.until(ended)
    assert (phase(pod), state(pod)[1]["reason"], state(pod)[1]["exitCode"]) == ("Failed", "ContainerStatusUnknown", 137)


def _pid(world: World, name: str) -> int:
    """The first process of a pod whose kubelet has gone."""
    uid = world.seen[name][0]["metadata"]["uid"]
    for process in psutil.process_iter(["cmdline", "cwd"]):
        if uid in (process.info["cwd"] or "") and process.info["cmdline"][:1] == ["sh"]:
            return int(process.pid)
    raise AssertionError(name)


async def test_the_sdk_s_program_starts_warm(kube: Kube, namespace: str, tmp_path: Path):
    """From a fork server, where it has no volumes; what it does is the same."""
    world = World(kube, namespace=namespace, node=unique("node"), directory=tmp_path / "node")
    await world.start(warm=True)
    for name, more, warm in (("warm", {}, True), ("cold", {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}, False)):
        container = {"name": "main", "image": "i", "args": ["a0", "--help"], **more}
        volumes = {"volumes": [{"name": "v", "emptyDir": {}}]}
        pod = await world.run(container, name=name, **volumes)
        assert phase(pod) == "Succeeded"
        life = world.kubelet.pod(pod).lives["main"]
        run = life.logged(previous=False)
        assert run is not None
        assert getattr(run.started.result(), "warm", None) is warm
    assert await world.logs(name="warm") == await world.logs(name="cold") != []
    await world.stop()


# Logs


async def test_logs_as_people_ask_for_them(world: World):
    """The end of one, from a time on, with times, of the run before."""
    script = "echo one; echo two >&2; echo three; test -e $HOME/again || { touch $HOME/again; exit 1; }; printf unfinished"
    await world.run(sh(script), restartPolicy="OnFailure")
    assert sorted(await world.logs()) == ["one", "three", "two", "unfinished"]
    assert sorted(await world.logs(previous=True)) == ["one", "three", "two"]
    assert len(await world.logs(tail_lines=2)) == 2
    assert await world.logs(tail_lines=0) == []
    stamped = [line.split(" ", 1) for line in await world.logs(timestamps=True)]
    assert {text for _, text in stamped} == {"one", "two", "three", "unfinished"}
    assert all(len(time) == len("2006-01-02T15:04:05.000000000Z") and time.endswith("Z") for time, _ in stamped)
    assert len(await world.logs(since_time=stamped[0][0])) == 4
    assert await world.logs(since_time="2099-01-01T00:00:00Z") == []


async def test_a_log_can_be_followed(world: World, tmp_path: Path):
    """From before its end, line by line, until the container's end."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with fifo.open("r+b", buffering=0) as gate:
        await world.run(sh(f"echo one; read x < {fifo}; echo $x"), wait=False)
        await world.until(running)
        lines = world.kube.logs("pod", namespace=world.namespace, container="main", follow=True, timestamps=False)
        assert await anext(lines) == b"one"
        gate.write(b"two\n")
        assert [line async for line in lines] == [b"two"]


async def test_logs_that_are_not_there(world: World):
    """Each has the kubelet's reason."""
    world.kubelet.hold()
    await world.run(sh("true"), wait=False)
    await world.until(status)
    with pytest.raises(Invalid, match="is waiting to start: ContainerCreating"):
        await world.logs()
    world.kubelet.resume()
    await world.until(ended)
    with pytest.raises(Invalid, match="previous terminated container"):
        await world.logs(previous=True)
    with pytest.raises(Invalid, match="container other is not valid for pod pod"):
        await world.logs("other")


async def test_the_kubelet_s_port_speaks_both(world: World):
    """HTTP, and HTTPS as real API servers want it, with a certificate made for the occasion."""
    await world.run(sh("echo hello"))
    node = await world.kube.get(NODES, world.node)
    port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    async with aiohttp.ClientSession() as session:
        for scheme in ("http", "https"):
            url = f"{scheme}://127.0.0.1:{port}/containerLogs/{world.namespace}/pod/main"
            async with session.get(url, ssl=trusting) as answer:
                assert (answer.status, await answer.text()) == (200, "hello\n")
            async with session.get(url.replace("/pod/", "/none/"), ssl=trusting) as answer:
                assert answer.status == 404


# The command


async def test_the_command(kube: Kube, cluster: FakeKube | None, namespace: str, tmp_path: Path):
    """``python -m flyte_unified.testing.kubelet`` is a node until it is told to stop."""
    name = unique("node")
    kubeconfig = str(tmp_path / "kubeconfig") if cluster else os.environ["FLYTE_TEST_KUBECONFIG"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "flyte_unified.testing.kubelet", "--kubeconfig", kubeconfig, "--name", name),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == f"node {name} is ready\n".encode()
    body = {"restartPolicy": "Never", "nodeName": name, "containers": [sh(FOREVER)]}
    await kube.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": body}, namespace=namespace)
    process.terminate()
    assert await process.wait() == 0
    with pytest.raises(Missing):
        await kube.get(NODES, name)
