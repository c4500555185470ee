"""Attempts as pods, from creation to the end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from flyte_unified.core.ids import RunKey
from flyte_unified.core.names import object_name
from flyte_unified.core.phases import Phase
from flyte_unified.kube.client import Kube
from flyte_unified.kube.kinds import EVENTS, PODS
from flyte_unified.launchers.api import Ended, Progress, Started, WorkId
from flyte_unified.launchers.objects.room import QUOTAS
from flyte_unified.ledger.api import Failure
from flyte_unified.testing.fake_kube import FakeKube
from tests.contract.kube.attempts import FINALIZER, RUN, WORK, Stand, cluster_events, event_of, kinds, terminated, waiting


@pytest.fixture
async def stand(kube: Kube, fake: FakeKube, namespace: str, tmp_path: Path) -> AsyncIterator[Stand]:
    stand = Stand(kube, namespace, tmp_path)
    await stand.start()
    yield stand
    await stand.close()


def test_names_tell_attempts_apart():
    """Runs of the same name in other projects, other actions and other attempts have other pods."""
    other = RunKey("q", "development", "r1").action("a0")
    names = {object_name(RUN.action(name), attempt) for name in ("a0", "a1") for attempt in (1, 2)}
    assert len(names | {object_name(other, 1)}) == 5


async def test_a_pod_says_whose_it_is(stand: Stand, namespace: str):
    """Owner, finalizer, label and annotation are there from its creation on, beside what its task asks for."""
    owner = {"apiVersion": "flyte.org/v1", "kind": "TaskAction", "name": "p.development.r1.a0", "uid": "u-1"}
    stand.owners[WORK.action] = owner
    pod = await stand.seen(await stand.launch())
    metadata = pod["metadata"]
    assert (metadata["finalizers"], metadata["ownerReferences"]) == ([FINALIZER], [owner])
    assert metadata["labels"] == {"run": "r1", "flyte.org/managed": "true"}
    assert metadata["annotations"] == {"a": "b", "flyte.org/work": "p,development,r1,a0,1", "primary_container_name": "main"}
    assert metadata["namespace"] == namespace


async def test_one_event_for_each_transition(stand: Stand, fake: FakeKube, namespace: str):
    """From its creation to its end, however often its status is written; and two writes of ours."""
    name = await stand.launch()
    await stand.seen(name)
    await stand.status(name, waiting("ContainerCreating"), phase="Pending")
    await stand.until(Progress)
    await stand.status(name, waiting("ContainerCreating"), phase="Pending", message="still")
    await stand.run(name)
    started = await stand.until(Started)
    await stand.status(name, message="again")
    fake.set_log(name, "one\ntwo\n", container="main", namespace=namespace)
    fake.writes.clear()
    await stand.succeed(name)
    ended = await stand.until(Ended)
    assert kinds(stand.events) == ["INITIALIZING", "Started", "Ended"]
    assert started.where == "by-hand"
    assert started.details is not None and started.details.log_context.primary_pod_name == name
    assert ended.exit.code == 0 and ended.at >= started.at
    assert await stand.log() == "one\ntwo"
    await stand.launcher.forget(WORK)
    pod = await stand.seen(name, lambda pod: "finalizers" not in pod["metadata"])
    assert pod["metadata"]["labels"]["flyte.org/done"] == "true"
    assert (fake.writes["patch", "pods", ""], fake.writes["delete", "pods", ""]) == (1, 0)


async def test_a_pod_that_was_quick(stand: Stand):
    """Its start is told before its end, with the time that its container has."""
    name = await stand.launch()
    await stand.seen(name)
    await stand.status(name, terminated(3), phase="Failed")
    ended = await stand.until(Ended)
    assert kinds(stand.events)[-2:] == ["Started", "Ended"]
    assert (ended.exit.code, stand.of(Started)[0].at) == (3, ended.at)


async def test_what_can_never_run_is_told_as_the_users(stand: Stand):
    """With a code of its own, and not to be tried again."""
    await stand.launch(restartPolicy="Sometimes")
    fault = (await stand.until(Ended)).exit.fault
    assert fault is not None
    assert (fault.code, fault.failure, fault.retryable) == ("InvalidResource", Failure.USER, False)
    assert "restartPolicy" in fault.message
    await stand.launcher.forget(WORK)


@pytest.mark.parametrize(("status", "code"), [(400, "BadRequest"), (413, "EntityTooLarge"), (403, "Forbidden")])
async def test_refusals_that_are_final(stand: Stand, fake: FakeKube, status: int, code: str):
    """A pod that is refused is not sent again."""
    fake.faults.fail(status, 1, lambda asked: asked.verb == "create" and asked.resource == "pods", message="no")
    await stand.launch()
    ended = await stand.until(Ended)
    assert ended.exit.fault is not None and ended.exit.fault.code == code
    assert fake.requests["create", "pods", ""] == 1


async def test_a_namespace_that_is_not_there(kube: Kube, fake: FakeKube, tmp_path: Path):
    """Is the system's: somebody has to create it."""
    stand = Stand(kube, "flyte-unified-test-nowhere", tmp_path)
    await stand.start()
    await stand.launch()
    fault = (await stand.until(Ended)).exit.fault
    assert fault is not None and (fault.code, fault.failure) == ("MissingNamespace", Failure.SYSTEM)
    await stand.close()


async def test_a_quota_holds_attempts_up_and_costs_nothing(stand: Stand, kube: Kube, fake: FakeKube, namespace: str):
    """They wait, say why, and get in one after the other as others end; none asks more often than there is news."""
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few", "namespace": namespace}}
    await kube.create(QUOTAS, quota | {"spec": {"hard": {"pods": "1"}}})
    works = [WorkId(RUN.action(f"a{number}"), 1) for number in range(4)]
    names = {work: await stand.launch(work) for work in works}
    await stand.seen_any(names.values())
    in_first = {pod["metadata"]["name"] for pod in fake.objects("pods", namespace=namespace)}
    for work in [work for work in works if names[work] not in in_first]:
        progress = await stand.until(Progress, work)
        assert progress.phase is Phase.WAITING_FOR_RESOURCES
        assert "exceeded quota: few" in cluster_events(progress)[0]
    left = set(works)
    while left:
        there = {pod["metadata"]["name"]: pod for pod in fake.objects("pods", namespace=namespace)}
        work = next(work for work in left if names[work] in there)
        left.remove(work)
        await stand.succeed(names[work])
        await stand.until(Ended, work)
        await stand.launcher.forget(work)
        if left:
            await stand.seen_any(names[work] for work in left)
    assert not any(event.exit.fault for event in stand.events if isinstance(event, Ended))
    assert fake.requests["create", "pods", ""] < 20


async def test_events_of_the_cluster_ride_along(stand: Stand, kube: Kube, namespace: str):
    """They come with what follows, or together after a quiet time; what is said twice is told once."""
    name = await stand.launch()
    pod = await stand.seen(name)
    for number, message in enumerate(["assigned", "pulling", "pulling"]):
        await kube.create(EVENTS, event_of(pod, f"e{number}", message))
    quiet = await stand.told("pulling")
    assert isinstance(quiet, Progress) and quiet.phase is Phase.INITIALIZING
    told = [message for event in stand.events for message in cluster_events(event)]
    assert sorted(told) == ["assigned", "pulling"]
    await kube.create(EVENTS, event_of(pod, "e9", "created"))
    await stand.run(name)
    await stand.told("created")
    other = await stand.seen(await stand.launch(WorkId(RUN.action("a1"), 1)))
    await kube.create(EVENTS, event_of({"metadata": other["metadata"] | {"uid": "another"}}, "e10", "not this pod's"))
    await kube.create(EVENTS, event_of(other, "e11", "this pod's"))
    await stand.told("this pod's")
    assert "not this pod's" not in [message for event in stand.events for message in cluster_events(event)]


async def test_a_pod_that_is_given_up_can_run_no_more(stand: Stand):
    """It is deleted first, and its end is told with the reason when that is done: the next attempt has it to itself."""
    name = await stand.launch()
    await stand.seen(name)
    await stand.status(name, waiting("InvalidImageName", "no such image name"), phase="Pending")
    await stand.seen(name, lambda pod: "deletionTimestamp" in pod["metadata"])
    assert not stand.of(Ended)
    await stand.status(name, waiting("InvalidImageName"), phase="Failed")
    fault = (await stand.until(Ended)).exit.fault
    assert fault is not None
    assert (fault.code, fault.failure, fault.retryable) == ("InvalidImageName", Failure.USER, False)


async def test_containers_that_run_on_are_ended(stand: Stand):
    """The attempt's end is its primary container's; what is left of the pod is deleted when that is known."""
    name = await stand.launch()
    await stand.seen(name)
    await stand.status(name, terminated(), phase="Running")
    await stand.until(Ended)
    assert "deletionTimestamp" not in (await stand.seen(name))["metadata"]
    await stand.launcher.forget(WORK)
    pod = await stand.seen(name, lambda pod: pod is None or "finalizers" not in pod["metadata"])
    assert not pod or "deletionTimestamp" in pod["metadata"]


async def test_a_long_log_loses_its_middle(kube: Kube, fake: FakeKube, namespace: str, tmp_path: Path):
    """First and last lines stay, and between them how much is missing."""
    stand = Stand(kube, namespace, tmp_path, limit=2_000)
    await stand.start()
    name = await stand.launch()
    await stand.seen(name)
    fake.set_log(name, "".join(f"line {number}\n" for number in range(1_000)), container="main", namespace=namespace)
    await stand.succeed(name)
    await stand.until(Ended)
    lines = (await stand.log()).splitlines()
    assert (lines[0], lines[-1]) == ("line 0", "line 999")
    assert sum("bytes of output were dropped here" in line for line in lines) == 1
    assert sum(len(line) + 32 for line in lines) < 2_300
    await stand.close()


@pytest.mark.parametrize("killed", [False, True])
async def test_graces_end_by_themselves(stand: Stand, kube: Kube, killed: bool):
    """A pod that is deleted and of which its node says nothing more ends when patience does, and is removed by force."""
    await stand.restart(stand.pods(lost=0.5))
    name = await stand.launch()
    await stand.seen(name)
    await stand.run(name)
    await stand.until(Started)
    await kube.delete(PODS, name, namespace=stand.namespace, grace=1)
    if killed:  # which changes nothing
        await stand.seen(name, lambda pod: "deletionTimestamp" in pod["metadata"])
        await stand.launcher.kill(WORK, grace=5)
    fault = (await stand.until(Ended)).exit.fault
    assert killed or (fault is not None and fault.failure is Failure.SYSTEM)
    await stand.launcher.forget(WORK)
    await stand.seen(name, lambda pod: pod is None)
