"""Attempts as pods while the API server, its nodes and other people do what they do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from flyte_unified.core.names import object_name
from flyte_unified.kube.client import JSON_PATCH, Kube
from flyte_unified.kube.kinds import PODS, Object
from flyte_unified.launchers.api import Ended, Progress, Started, WorkId
from flyte_unified.launchers.objects.identity import work_of
from flyte_unified.ledger.api import Failure
from flyte_unified.plugins.api import Exit
from flyte_unified.testing.fake_kube import Asked, FakeKube
from tests.contract.kube.attempts import FINALIZER, RUN, WORK, Stand, kinds, manifest, terminated
from tests.contract.kube.nodes import World, sh, unique


@pytest.fixture
async def stand(kube: Kube, fake: FakeKube, namespace: str, tmp_path: Path) -> AsyncIterator[Stand]:
    stand = Stand(kube, namespace, tmp_path)
    await stand.start()
    yield stand
    await stand.close()


def creating(asked: Asked) -> bool:
    return asked.verb == "create" and asked.resource == "pods"


def reading_log(asked: Asked) -> bool:
    return asked.subresource == "log"


async def running(stand: Stand, work: WorkId = WORK) -> str:
    name = await stand.launch(work)
    await stand.seen(name)
    await stand.run(name)
    await stand.until(Started, work)
    return name


async def strip(stand: Stand, name: str) -> None:
    """Somebody takes our finalizer off and the pod away, by force."""
    patch = [{"op": "remove", "path": "/metadata/finalizers"}]
    await stand.kube.patch(PODS, name, patch, namespace=stand.namespace, content_type=JSON_PATCH)
    await stand.kube.delete(PODS, name, namespace=stand.namespace, grace=0)


async def test_a_server_that_is_away_is_waited_for(stand: Stand, fake: FakeKube):
    """The attempt begins when it is back, without a word about it."""
    fake.faults.outage()
    name = await stand.launch()
    fake.faults.restore()
    await stand.seen(name)
    await stand.run(name)
    await stand.until(Started)
    assert not stand.of(Ended)


@pytest.mark.parametrize("fault", ["throttle", "conflict", "error", "gateway"])
async def test_refusals_that_pass(stand: Stand, fake: FakeKube, fault: str):
    """Too much to do, a quota that changed under the write, trouble inside: the same pod is sent again."""
    if fault == "throttle":
        fake.faults.throttle(2, retry_after=0, match=creating)
    else:
        status = {"conflict": 409, "error": 500, "gateway": 504}[fault]
        fake.faults.fail(status, 1, creating, reason="Conflict" if status == 409 else "")
    await stand.seen(await stand.launch())
    assert not stand.of(Ended)


async def test_an_answer_that_is_lost(stand: Stand, fake: FakeKube, namespace: str):
    """The pod that was created by the first try is found by the second, and is the attempt's."""
    fake.faults.drop(1, creating)
    fake.faults.delay(0.05, lambda asked: asked.verb == "watch")
    name = await running(stand)
    assert [pod["metadata"]["name"] for pod in fake.objects("pods", namespace=namespace)] == [name]
    assert kinds(stand.events)[-1] == "Started"


async def test_a_name_that_another_has(stand: Stand, kube: Kube):
    """Is told as the system's fault: the next attempt has another name."""
    other = manifest()
    name = object_name(WORK.action, WORK.attempt)
    other["metadata"] |= {"name": name, "namespace": stand.namespace}
    await kube.create(PODS, {"apiVersion": "v1", "kind": "Pod", **other})
    await stand.launch()
    fault = (await stand.until(Ended)).exit.fault
    assert fault is not None and (fault.code, fault.failure, fault.retryable) == ("NameTaken", Failure.SYSTEM, True)


async def test_a_name_whose_owner_is_ending(stand: Stand, kube: Kube):
    """Is waited for: a pod that is being deleted is not the attempt's, and does not make it fail."""
    other = manifest()
    name = object_name(WORK.action, WORK.attempt)
    other["metadata"] |= {"name": name, "namespace": stand.namespace}
    old = await kube.create(PODS, {"apiVersion": "v1", "kind": "Pod", **other})
    await kube.delete(PODS, name, namespace=stand.namespace, grace=60)
    await stand.launch()
    await running(stand, WorkId(RUN.action("later"), 1))
    assert not stand.of(Ended)
    await kube.delete(PODS, name, namespace=stand.namespace, grace=0)
    new = await stand.seen(name, lambda pod: pod is not None and pod["metadata"]["uid"] != old["metadata"]["uid"])
    assert work_of(new, limit=63) == WORK
    assert not stand.of(Ended)


async def test_it_is_killed_before_it_was_created(stand: Stand, fake: FakeKube, namespace: str):
    """No pod is left, be it that the last try had no answer."""
    fake.faults.drop(1, creating)
    name = await stand.launch()
    await stand.launcher.kill(WORK, grace=1)
    await stand.seen(name, lambda pod: pod is not None and "deletionTimestamp" in pod["metadata"])
    await stand.status(name, terminated(143), phase="Failed")  # its node is not there to end it
    await stand.until(Ended)
    await stand.launcher.forget(WORK)
    await stand.seen(name, lambda pod: "finalizers" not in pod["metadata"])


async def test_it_is_killed_while_it_waits(stand: Stand, fake: FakeKube, namespace: str):
    """Nothing is created any more when the server is back."""
    fake.faults.fail(503, 1, creating)
    await stand.launch()
    await stand.launcher.kill(WORK, grace=1)
    assert (await stand.until(Ended)).exit == Exit()
    await stand.launcher.forget(WORK)
    await running(stand, WorkId(RUN.action("later"), 1))
    assert len(fake.objects("pods", namespace=namespace)) == 1


async def test_a_pod_that_somebody_deletes(stand: Stand, kube: Kube):
    """Ends when what runs in it has ended, as a fault of the system; not while it may still write."""
    name = await running(stand)
    await kube.delete(PODS, name, namespace=stand.namespace, grace=60)
    await running(stand, WorkId(RUN.action("later"), 1))
    assert not stand.of(Ended)
    await stand.status(name, terminated(143), phase="Failed")
    ended = await stand.until(Ended)
    assert ended.exit.fault is not None and ended.exit.fault.failure is Failure.SYSTEM
    await stand.launcher.forget(WORK)
    await stand.seen(name, lambda pod: "finalizers" not in pod["metadata"])


async def test_a_pod_that_vanishes(stand: Stand):
    """Finalizer and all: the end is the system's, and the log says that it is lost."""
    name = await running(stand)
    await strip(stand, name)
    ended = await stand.until(Ended)
    assert ended.exit.fault is not None and ended.exit.fault.code == "PodDeleted"
    assert "the rest of the log is lost" in await stand.log()
    await stand.launcher.forget(WORK)


async def test_a_pod_that_vanishes_while_nobody_watches(stand: Stand, fake: FakeKube):
    """The list after a cut watch whose version is forgotten tells of it."""
    name = await running(stand)
    await running(stand, other := WorkId(RUN.action("a1"), 1))
    fake.faults.delay(0.2, lambda asked: asked.verb in ("watch", "list"))
    fake.faults.cut_watches()
    await strip(stand, name)
    fake.faults.expire()
    await stand.until(Ended)
    assert not stand.of(Ended, other)


async def test_a_log_that_is_not_to_be_had_at_once(stand: Stand, fake: FakeKube, namespace: str):
    """The end is told when the log is kept."""
    name = await running(stand)
    fake.set_log(name, "hello\n", container="main", namespace=namespace)
    fake.faults.fail(500, 1, reading_log)
    await stand.succeed(name)
    await stand.until(Ended)
    assert await stand.log() == "hello"


async def test_a_new_leader_finds_what_runs(stand: Stand):
    """Each attempt is told as far as it has come; what ended unseen ends, what was forgotten is not told."""
    works = [WorkId(RUN.action(f"a{number}"), 1) for number in range(4)]
    names = [await stand.launch(work) for work in works]
    for name in names:
        await stand.seen(name)
    for name in names[1:]:
        await stand.run(name)
    await stand.succeed(names[3])
    await stand.until(Ended, works[3])
    await stand.launcher.forget(works[3])
    await stand.seen(names[3], lambda pod: "finalizers" not in pod["metadata"])
    await stand.until(Started, works[2])
    await stand.launcher.close()
    await stand.succeed(names[2])
    found = await stand.restart()
    told = {event.id: event for event in found}
    assert {work: type(told[work]) for work in told} == {works[0]: Progress, works[1]: Started, works[2]: Started}
    await stand.until(Ended, works[2])
    await stand.launch(works[0])
    await stand.run(names[0])
    await stand.until(Started, works[0])


async def test_a_leader_that_died_while_it_created(stand: Stand, fake: FakeKube, namespace: str):
    """The next one creates nothing twice, whether the pod came to be or not."""
    fake.faults.delay(0.1, creating)
    name = await stand.launch()
    await asyncio.sleep(0.05)
    await stand.restart()
    await stand.launch()
    await stand.seen(name)
    await stand.run(name)
    await stand.until(Started)
    assert len(fake.objects("pods", namespace=namespace)) == 1
    assert not stand.of(Ended)


async def test_what_another_leader_creates_is_told(stand: Stand, kube: Kube):
    """A pod of an attempt that nobody asked for here is somebody's to end."""
    second = stand.pods()
    started = asyncio.Event()
    await second.start(lambda event: started.set() if isinstance(event, Started) else None)
    name = await running(stand)
    async with asyncio.timeout(5):
        await started.wait()
    await second.close()
    assert work_of(await stand.seen(name), limit=63) == WORK


async def test_copies_of_our_metadata_are_not_ours(stand: Stand, kube: Kube):
    """A pod with the labels and annotations of an attempt's, under another name, is nobody's attempt."""
    name = await running(stand)
    copied = manifest()
    metadata: Object = (await stand.seen(name))["metadata"]
    copied["metadata"] = {
        "name": "copy",
        **{part: metadata[part] for part in ("namespace", "labels", "annotations", "finalizers")},
    }
    await kube.create(PODS, {"apiVersion": "v1", "kind": "Pod", **copied})
    assert [event.id for event in await stand.restart()] == [WORK]


async def test_finalizers_of_others_stay(stand: Stand, kube: Kube):
    """Ours is taken off wherever it is by then."""
    name = await running(stand)
    await stand.succeed(name)
    await stand.until(Ended)
    patch = [{"op": "add", "path": "/metadata/finalizers/0", "value": "example.com/first"}]
    await kube.patch(PODS, name, patch, namespace=stand.namespace, content_type=JSON_PATCH)
    await stand.launcher.forget(WORK)
    pod = await stand.seen(name, lambda pod: FINALIZER not in pod["metadata"]["finalizers"])
    assert pod["metadata"]["finalizers"] == ["example.com/first"]
    patch = [{"op": "remove", "path": "/metadata/finalizers"}]
    await kube.patch(PODS, name, patch, namespace=stand.namespace, content_type=JSON_PATCH)


async def test_letting_go_outlasts_an_outage(stand: Stand, fake: FakeKube):
    """What is forgotten while the server is away is released when it is back."""
    name = await running(stand)
    await stand.succeed(name)
    await stand.until(Ended)
    fake.faults.fail(503, 2, lambda asked: (asked.verb, asked.subresource) == ("patch", ""))
    await stand.launcher.forget(WORK)
    await stand.seen(name, lambda pod: "finalizers" not in pod["metadata"])


async def test_a_stop_ends_no_pod(stand: Stand):
    """The next server finds it."""
    name = await running(stand)
    await stand.launcher.stop(grace=1)
    await stand.launcher.close()
    assert "deletionTimestamp" not in (await stand.seen(name))["metadata"]
    assert [type(event) for event in await stand.restart()] == [Started]


async def test_a_task_that_ignores_sigterm(stand: Stand, kube: Kube, namespace: str, tmp_path: Path):
    """Is killed after its grace; its end follows, and its last words are kept though its pod is gone at once."""
    world = World(kube, namespace=namespace, node=unique("node"), directory=tmp_path / "node")
    await world.start()
    script = "trap 'echo no' TERM; echo begun; while :; do sleep 0.1; done"
    name = await stand.launch(nodeName=world.node, containers=[sh(script)], terminationGracePeriodSeconds=60)
    await world.says("begun", name=name)
    await stand.until(Started)
    await stand.launcher.kill(WORK, grace=1)
    ended = await stand.until(Ended)
    assert ended.exit.signal == 9
    assert (await stand.log()).splitlines()[:2] == ["begun", "no"]
    await stand.launcher.forget(WORK)
    await stand.seen(name, lambda pod: pod is None)
    await world.stop()


async def test_a_second_kill_may_be_quicker(stand: Stand):
    """The shorter grace counts."""
    name = await running(stand)
    await stand.launcher.kill(WORK, grace=60)
    await stand.seen(name, lambda pod: pod["metadata"].get("deletionGracePeriodSeconds") == 60)
    await stand.launcher.kill(WORK, grace=5)
    await stand.seen(name, lambda pod: pod["metadata"].get("deletionGracePeriodSeconds") == 5)
    await stand.status(name, terminated(0), phase="Succeeded")
    assert (await stand.until(Ended)).exit == Exit(code=0)
