"""The life of pods on a node of processes, as the API server shows it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from flyte_unified.kube.kinds import PODS
from flyte_unified.testing.fake_kube import FakeKube
from flyte_unified.testing.kubelet import images
from flyte_unified.testing.kubelet import status as statuses
from tests.contract.kube.nodes import (
    PATIENCE,
    World,
    condition,
    ended,
    phase,
    ready,
    reason,
    running,
    sh,
    state,
    status,
    world,
)

__all__ = ["world"]


async def test_a_pod_succeeds(world: World):
    """It is pending, then running, then succeeded, with its addresses, times and conditions."""
    pod = await world.run(sh("echo hello; sleep 0.1"))
    assert phase(pod) == "Succeeded"
    kind, end = state(pod)
    assert (kind, end["exitCode"], end["reason"]) == ("terminated", 0, "Completed")
    assert end["startedAt"] <= end["finishedAt"]
    assert end["containerID"].startswith("process://")
    assert pod["status"]["podIP"] == "127.0.0.1"
    assert pod["status"]["startTime"]
    assert condition(pod, "Initialized")["status"] == "True"
    assert condition(pod, "Ready")["reason"] == "PodCompleted"
    phases = [phase(p) for p in world.seen["pod"]]
    assert sorted(set(phases), key=phases.index) == ["Pending", "Running", "Succeeded"]
    for told in ("Pulled", "Created", "Started"):
        assert (await world.told(told))["source"] == {"component": "kubelet", "host": world.node}


async def test_a_pod_costs_three_status_writes(world: World, fake: FakeKube):
    """Pending, running and its end."""
    fake.writes.clear()
    await world.run(sh("sleep 0.3"))
    assert fake.writes["patch", "pods", "status"] == 3


@pytest.mark.parametrize(("script", "code"), [("exit 3", 3), ("kill -9 $$$$", 137), ("kill -15 $$$$", 143)])
async def test_a_container_fails(world: World, script: str, code: int):
    """A signal's number counts from 128. (Two dollar signs are one in a command.)"""
    pod = await world.run(sh(script))
    assert (phase(pod), reason(pod), state(pod)[1]["exitCode"]) == ("Failed", "Error", code)
    assert condition(pod, "Ready")["reason"] == "PodFailed"


async def test_a_program_that_is_not_there(world: World):
    """The runtime's words, its code, and no time of a start."""
    pod = await world.run({**sh(""), "command": ["no-such-program"]})
    end = state(pod)[1]
    assert (phase(pod), end["reason"], end["exitCode"], end["startedAt"]) == (
        "Failed",
        "StartError",
        128,
        "1970-01-01T00:00:00Z",
    )
    assert 'exec: "no-such-program": executable file not found in $PATH' in end["message"]
    assert "no-such-program" in (await world.told("Failed"))["message"]


async def test_containers_run_side_by_side(world: World, tmp_path: Path):
    """One waits for the other; a failure of one is the pod's, when all have ended."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    pod = await world.run(sh(f"cat {fifo}"), sh(f"echo over > {fifo}; exit 1", "other"))
    assert (phase(pod), reason(pod), reason(pod, "other")) == ("Failed", "Completed", "Error")
    assert await world.logs() == ["over"]


async def test_onfailure_restarts_until_it_succeeds(world: World, tmp_path: Path):
    """The restart is counted, and the end before it kept."""
    mark = tmp_path / "mark"
    pod = await world.run(sh(f"test -e {mark} || {{ touch {mark}; exit 7; }}"), restartPolicy="OnFailure")
    assert (phase(pod), status(pod)["restartCount"]) == ("Succeeded", 1)
    assert status(pod)["lastState"]["terminated"]["exitCode"] == 7


async def test_a_container_that_keeps_crashing_is_held_back(world: World):
    """CrashLoopBackOff between two starts, in the kubelet's words, while the pod counts as running."""
    await world.run(sh("exit 1"), restartPolicy="Always", wait=False)
    pod = await world.until(lambda p: reason(p) == "CrashLoopBackOff")
    assert (phase(pod), status(pod)["restartCount"]) == ("Running", 1)
    uid = pod["metadata"]["uid"]
    who = f"restarting failed container=main pod=pod_{world.namespace}({uid})"
    assert state(pod)[1]["message"] == f"back-off 200ms {who}"
    assert status(pod)["lastState"]["terminated"]["exitCode"] == 1
    assert condition(pod, "Ready")["reason"] == "ContainersNotReady"
    await world.until(lambda p: status(p)["restartCount"] == 2)
    assert (await world.told("BackOff"))["type"] == "Warning"
    await world.delete()
    states = await world.gone()
    assert phase(states[-1]) == "Failed"


async def test_init_containers_run_in_order(world: World, tmp_path: Path):
    """Each after the one before; the containers wait for all."""
    log = tmp_path / "log"
    inits = [sh(f"echo {name} >> {log}", name) for name in ("one", "two")]
    pod = await world.run(sh(f"echo main >> {log}"), initContainers=inits)
    assert phase(pod) == "Succeeded"
    assert log.read_text().split() == ["one", "two", "main"]
    first = next(p for p in world.seen["pod"] if status(p))
    assert (reason(first), condition(first, "Initialized")["reason"]) == ("PodInitializing", "ContainersNotInitialized")
    assert [s["ready"] for s in pod["status"]["initContainerStatuses"]] == [True, True]


async def test_an_init_container_that_fails_is_the_end(world: World):
    """Of a pod that is not restarted; its containers never run."""
    pod = await world.run(sh("exit 0"), initContainers=[sh("exit 5", "init")])
    assert (phase(pod), state(pod, "init")[1]["exitCode"], state(pod)[0]) == ("Failed", 5, "waiting")


async def test_a_sidecar_runs_as_long_as_the_containers(world: World, tmp_path: Path):
    """It is started before them and ended after them, and its end is not the pod's."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    side = sh(f"trap 'exit 1' TERM; echo ready > {fifo}; while :; do sleep 0.05; done", "side", restartPolicy="Always")
    pod = await world.run(sh(f"cat {fifo}"), initContainers=[side])
    assert (phase(pod), state(pod, "side")[0], state(pod)[1]["exitCode"]) == ("Succeeded", "terminated", 0)


async def test_a_deleted_pod_ends_in_its_own_time(world: World):
    """preStop, SIGTERM, the last status, and then the object is gone."""
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "echo stop > $HOME/$HOSTNAME"]}}}
    script = "trap 'cat $HOME/$HOSTNAME; exit 4' TERM; echo up; while :; do sleep 0.05; done"
    await world.run(sh(script, lifecycle=hook), wait=False)
    await world.says("up")
    life = world.kubelet.pod(f"{world.namespace}/pod")
    followed = world.kube.logs("pod", namespace=world.namespace, container="main", timestamps=False, follow=True)
    assert await anext(followed) == b"up"
    await world.delete()
    states = await world.gone()
    assert [line async for line in followed] == [b"stop"]
    assert (phase(states[-1]), state(states[-1])[1]["exitCode"]) == ("Failed", 4)
    assert (await world.told("Killing"))["message"] == "Stopping container main"
    await life.task
    assert list((world.directory / "pods").iterdir()) == []


async def test_a_container_that_does_not_end_is_killed(world: World):
    """When the grace is over."""
    await world.run(sh("trap '' TERM; echo up; while :; do sleep 0.05; done"), wait=False)
    await world.says("up")
    await world.delete(grace=1)
    assert state((await world.gone())[-1])[1]["exitCode"] == 137


async def test_a_pod_that_vanishes_takes_its_processes_along(world: World):
    """A deletion without grace leaves no object to end, but processes."""
    await world.run(sh("trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done"), wait=False)
    await world.says("up")
    process = world.kubelet.pod(f"{world.namespace}/pod").lives["main"].current
    assert process is not None
    await world.delete(grace=0)
    async with asyncio.timeout(PATIENCE):
        assert (await process.exited).exit_code == 0


async def test_a_pod_has_so_much_time(world: World):
    """activeDeadlineSeconds ends it, and is the reason."""
    pod = await world.run(sh("sleep 60"), activeDeadlineSeconds=1, terminationGracePeriodSeconds=1)
    assert (phase(pod), pod["status"]["reason"]) == ("Failed", "DeadlineExceeded")
    assert pod["status"]["message"] == "Pod was active on the node longer than the specified deadline"
    assert state(pod)[1]["exitCode"] == 143


async def test_what_a_container_says_of_its_end(world: World):
    """Its termination message, or, where that is asked for, the end of its log."""
    said = sh("echo 'for people' > /dev/termination-log; exit 1", "said")
    elsewhere = sh("echo there > /tmp/elsewhere/message", "elsewhere", terminationMessagePath="/tmp/elsewhere/message")
    logged = sh("echo oh no >&2; exit 1", "logged", terminationMessagePolicy="FallbackToLogsOnError")
    silent = sh("echo oh no >&2; exit 1", "silent")
    pod = await world.run(said, elsewhere, logged, silent)
    assert state(pod, "said")[1]["message"] == "for people\n"
    assert state(pod, "elsewhere")[1]["message"] == "there\n"
    assert state(pod, "logged")[1]["message"] == "oh no\n"
    assert "message" not in state(pod, "silent")[1]
    assert not Path("/tmp/elsewhere").exists()
    assert not Path("/dev/termination-log").exists()


async def test_a_finalizer_keeps_the_object_and_nothing_else(world: World):
    """A pod that has ended is not started again while its object waits."""
    await world.run(sh("sleep 60"), metadata={"finalizers": ["flyte-unified.test/hold"]}, wait=False)
    await world.until(running)
    await world.delete(grace=0)
    pod = await world.until(ended)
    assert pod["metadata"]["finalizers"]
    await world.kube.patch(PODS, "pod", {"metadata": {"finalizers": None}}, namespace=world.namespace)
    assert status((await world.gone())[-1])["restartCount"] == 0


async def test_what_others_write_over_a_status_is_put_right(world: World):
    """The node knows better what runs on it."""
    await world.run(sh("sleep 60"), wait=False)
    await world.until(ready)
    wrong = {"status": {"phase": "Unknown", "containerStatuses": []}}
    await world.kube.patch(PODS, "pod", wrong, namespace=world.namespace, subresource="status")
    await world.until(lambda p: phase(p) == "Unknown")
    await world.until(ready)


async def test_conditions_of_others_stay(world: World):
    """The kubelet writes its own and keeps the rest."""
    await world.run(sh("sleep 0.5"), wait=False)
    pod = await world.until(ready)
    mine = {"type": "flyte-unified.test/mine", "status": "True"}
    patch = {"status": {"conditions": [*pod["status"]["conditions"], mine]}}
    await world.kube.patch(PODS, "pod", patch, namespace=world.namespace, subresource="status")
    assert condition(await world.until(ended), "flyte-unified.test/mine")["status"] == "True"


async def test_an_api_server_that_is_away_loses_nothing(world: World, fake: FakeKube):
    """A pod that ends meanwhile is told afterwards."""
    await world.run(sh("sleep 0.2"), wait=False)
    await world.until(ready)
    fake.faults.outage()
    life = world.kubelet.pod(f"{world.namespace}/pod").lives["main"]
    assert life.current is not None
    await life.current.exited
    fake.faults.restore()
    assert phase(await world.until(ended)) == "Succeeded"


async def test_writes_that_lose_are_repeated(world: World, fake: FakeKube):
    """A storm of conflicts, and a server that has too much to do, delay a status and change nothing."""
    fake.faults.conflict(4, lambda asked: asked.resource == "pods")
    fake.faults.throttle(1, 1, lambda asked: asked.subresource == "status")
    await world.run(sh("sleep 60"), wait=False)
    await world.until(ready)
    await world.delete(grace=1)
    fake.faults.fail(500, 2, lambda asked: asked.verb == "delete")
    fake.faults.conflict(2, lambda asked: asked.resource == "pods")
    assert phase((await world.gone())[-1]) == "Failed"


def test_names_that_no_image_can_have():
    """A registry's grammar; everything else is a name."""
    for name in ("busybox", "ghcr.io/flyteorg/flyte:py3.12-v2", "localhost:5000/a/b_c", "a@sha256:" + "0" * 64):
        assert images._NAME.fullmatch(name), name
    for name in ("", "UPPER", "a b", "a::b", "http://x/y", "a:", "-a"):
        assert not images._NAME.fullmatch(name), name


WAIT, RUN = statuses.Waiting("ContainerCreating"), statuses.Running(statuses.Micros(1))
GOOD, BAD = (statuses.Terminated(code, "", statuses.Micros(1), statuses.Micros(2)) for code in (0, 1))


@pytest.mark.parametrize(
    ("states", "policy", "expected"),
    [
        ({"m": WAIT}, "Never", "Pending"),
        ({"m": RUN, "n": WAIT}, "Never", "Pending"),
        ({"m": RUN, "n": BAD}, "Never", "Running"),
        ({"m": GOOD, "n": BAD}, "Never", "Failed"),
        ({"m": GOOD, "n": GOOD}, "OnFailure", "Succeeded"),
        ({"m": GOOD}, "Always", "Running"),
        ({"i": RUN, "m": WAIT}, "Never", "Pending"),
        ({"i": BAD, "m": WAIT}, "Never", "Failed"),
        ({"i": GOOD, "m": WAIT}, "Never", "Pending"),
        ({"i": GOOD, "m": RUN}, "Never", "Running"),
        ({"s": RUN, "m": GOOD}, "Never", "Running"),
        ({"s": BAD, "m": GOOD}, "Never", "Succeeded"),
    ],
)
def test_phases(states: dict[str, statuses.Running], policy: str, expected: str):
    """A pod's phase from its containers' states: ``i`` is an init container, ``s`` a sidecar."""
    roles: dict[str, statuses.Role] = {"i": "init", "s": "sidecar"}
    containers = [
        statuses.Container({"name": name}, roles.get(name, "main"), shown, started=shown is RUN)
        for name, shown in states.items()
    ]
    assert statuses.phase(containers, policy=policy, stopping=False) == expected
