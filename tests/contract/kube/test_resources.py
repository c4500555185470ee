"""Attempts as operators' resources; the operator is the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from flyte_unified.core.names import object_name
from flyte_unified.core.phases import Phase
from flyte_unified.kube.client import JSON_PATCH, Kube
from flyte_unified.kube.kinds import CONFIG_MAPS, CRDS, PODS, Kind
from flyte_unified.launchers.api import Attempt, Ended, Progress, Started, WorkId
from flyte_unified.launchers.resources.launcher import ResourceLauncher
from flyte_unified.ledger.api import Failure
from flyte_unified.plugins.api import Exit, Fault, Resource, State
from flyte_unified.plugins.pods.config import Patience
from flyte_unified.testing.fake_kube import FakeKube
from tests.contract.kube.attempts import FINALIZER, RUN, WORK, Stand, cluster_events, kinds, manifest, running
from tests.contract.kube.objects import config_map, definition

JOBS = Kind("jobs.example.com", "v1", "FancyJob", "fancyjobs")
OTHERS = Kind("ray.io", "v1", "RayJob", "rayjobs")
PHASES = {"": Phase.QUEUED, "Starting": Phase.INITIALIZING, "Running": Phase.RUNNING}


def state(obj: Mapping[str, Any]) -> State:
    """What a FancyJob says of itself."""
    told = (obj.get("status") or {}).get("state", "")
    if told == "Done":
        return State(phase=Phase.RUNNING, exit=Exit(code=0))
    if told == "Broken":
        fault = Fault(code="Broken", message="it broke", failure=Failure.USER)
        return State(phase=Phase.RUNNING, exit=Exit(fault=fault))
    return State(phase=PHASES[told], reason=(obj.get("status") or {}).get("reason", ""))


def fancy(*, container: str = "") -> Resource:
    made = {"apiVersion": JOBS.api_version, "kind": JOBS.kind, "metadata": {"labels": {"run": "r1"}}, "spec": {"size": 1}}
    return Resource(
        manifest=made,
        plural=JOBS.plural,
        state=state,
        pod_labels=lambda name: {"fancy/job": name, "fancy/role": "head"},
        container=container,
    )


class Operated(Stand):
    """A stand for resources."""

    def resources(self) -> ResourceLauncher:
        return ResourceLauncher(
            kube=self.kube,
            namespace=lambda _: self.namespace,
            scope=self.namespace,
            owner=self.owners.get,
            logs=self.keeper(0.5),
            clock=self.clock,
            readers={JOBS: state, OTHERS: state},
            patience=Patience(lost=3.0),
            quiet=0.2,
        )

    async def job(self, work: WorkId = WORK, *, container: str = "") -> str:
        await self.launcher.launch(Attempt(id=work, work=fancy(container=container)))
        return object_name(work.action, work.attempt, limit=40)

    async def says(self, name: str, state: str, **more: str) -> None:
        await self.seen(name, kind=JOBS)
        patch = {"status": {"state": state, **more}}
        await self.kube.patch(JOBS, name, patch, namespace=self.namespace, subresource="status")

    async def head(self, job: str, name: str = "head") -> None:
        """The pod that the operator makes."""
        made = manifest()
        made["metadata"] = {"name": name, "namespace": self.namespace, "labels": {"fancy/job": job, "fancy/role": "head"}}
        await self.kube.create(PODS, {"apiVersion": "v1", "kind": "Pod", **made})
        await self.status(name, running(), phase="Running")


@pytest.fixture
async def stand(kube: Kube, fake: FakeKube, namespace: str, tmp_path: Path) -> AsyncIterator[Operated]:
    await kube.create(CRDS, definition(JOBS))
    stand = Operated(kube, namespace, tmp_path)
    await stand.start(stand.resources())
    yield stand
    await stand.close()


async def test_a_resource_lives_and_ends(stand: Operated, fake: FakeKube):
    """It is dressed as a pod is, its state is its plugin's to say, its log is that of its head."""
    name = await stand.job()
    job = await stand.seen(name, kind=JOBS)
    assert len(name) <= 40
    assert job["metadata"]["finalizers"] == [FINALIZER]
    assert job["metadata"]["labels"] == {"run": "r1", "flyte.org/managed": "true"}
    await stand.says(name, "Starting", reason="the head is placed")
    assert cluster_events(await stand.until(Progress)) == ["the head is placed"]
    await stand.head(name)
    await stand.says(name, "Running")
    await stand.until(Started)
    located = await stand.until(Progress, number=2)
    assert located.details is not None
    context = located.details.log_context
    assert (context.primary_pod_name, context.pods[0].primary_container_name) == ("head", "main")
    fake.set_log("head", "hello\n", container="main", namespace=stand.namespace)
    await stand.says(name, "Done")
    assert (await stand.until(Ended)).exit == Exit(code=0)
    assert kinds(stand.events) == ["INITIALIZING", "Started", "RUNNING", "Ended"]
    assert await stand.log() == "hello"
    await stand.launcher.forget(WORK)
    job = await stand.seen(name, lambda job: "finalizers" not in job["metadata"], kind=JOBS)
    assert "deletionTimestamp" not in job["metadata"]


async def test_a_failed_resource_is_removed(stand: Operated):
    """What its plugin gave up may go on for ever."""
    name = await stand.job()
    await stand.says(name, "Broken")
    fault = (await stand.until(Ended)).exit.fault
    assert fault is not None and fault.code == "Broken"
    await stand.launcher.forget(WORK)
    await stand.seen(name, lambda job: job is None, kind=JOBS)


async def test_what_a_killed_resource_made_ends_first(stand: Operated, kube: Kube):
    """It is deleted in the foreground; its end is told when only we hold it."""
    name = await stand.job()
    await stand.says(name, "Running")
    await _hold(stand, name)
    await stand.until(Started)
    await stand.launcher.kill(WORK, grace=1)
    job = await stand.seen(name, lambda job: "deletionTimestamp" in job["metadata"], kind=JOBS)
    assert "example.com/operator" in job["metadata"]["finalizers"]
    assert not stand.of(Ended)
    await _let_go(stand, name)
    assert (await stand.until(Ended)).exit == Exit()
    await stand.launcher.forget(WORK)
    await stand.seen(name, lambda job: job is None, kind=JOBS)


async def test_a_resource_that_somebody_deletes(stand: Operated, kube: Kube):
    """Ends as a fault of the system, when what it made is gone, though that was not asked for."""
    name = await stand.job()
    await stand.says(name, "Running")
    await stand.until(Started)
    job = await stand.seen(name, kind=JOBS)
    owner = {"apiVersion": JOBS.api_version, "kind": JOBS.kind, "name": name, "uid": job["metadata"]["uid"]}
    made = config_map("made", stand.namespace)
    made["metadata"] |= {"ownerReferences": [owner | {"blockOwnerDeletion": True}], "finalizers": ["example.com/busy"]}
    await kube.create(CONFIG_MAPS, made)
    await kube.delete(JOBS, name, namespace=stand.namespace, propagation="Background")
    await stand.seen("made", lambda made: made is not None and "deletionTimestamp" in made["metadata"], kind=CONFIG_MAPS)
    assert not stand.of(Ended)
    await kube.patch(CONFIG_MAPS, "made", {"metadata": {"finalizers": None}}, namespace=stand.namespace)
    fault = (await stand.until(Ended)).exit.fault
    assert fault is not None and (fault.code, fault.failure) == ("FancyJobDeleted", Failure.SYSTEM)
    await stand.launcher.forget(WORK)
    await stand.seen(name, lambda job: job is None, kind=JOBS)


async def test_an_operator_that_never_lets_go(stand: Operated):
    """Is not waited for beyond patience."""
    name = await stand.job()
    await stand.says(name, "Running")
    await _hold(stand, name)
    await stand.until(Started)
    await stand.launcher.kill(WORK, grace=1)
    await stand.until(Ended)
    await stand.launcher.forget(WORK)
    job = await stand.seen(name, lambda job: FINALIZER not in job["metadata"]["finalizers"], kind=JOBS)
    assert "example.com/operator" in job["metadata"]["finalizers"]
    await _let_go(stand, name)


async def test_an_operator_that_is_not_there(stand: Operated, fake: FakeKube):
    """The user is told what to install, and the attempt isn't repeated."""
    work = Resource(
        manifest={"apiVersion": OTHERS.api_version, "kind": OTHERS.kind, "spec": {}},
        plural=OTHERS.plural,
        state=state,
        pod_labels=lambda name: {},
    )
    await stand.launcher.launch(Attempt(id=WORK, work=work))
    fault = (await stand.until(Ended)).exit.fault
    assert fault is not None
    assert fault.message == "the cluster has no RayJob (ray.io/v1): install KubeRay"
    assert (fault.failure, fault.retryable) == (Failure.USER, False)
    await stand.launcher.forget(WORK)


async def test_a_new_leader_reads_what_the_old_one_made(stand: Operated, fake: FakeKube):
    """The kind's reader, and the annotations of where its log is, are all that it needs."""
    other = WorkId(RUN.action("a1"), 2)
    names = [await stand.job(work, container="main") for work in (WORK, other)]
    await stand.seen(names[0], kind=JOBS)
    await stand.head(names[1])
    await stand.says(names[1], "Running")
    await stand.until(Started, other)
    await stand.launcher.close()
    fake.set_log("head", "hello\n", container="main", namespace=stand.namespace)
    await stand.says(names[1], "Done")
    found = {event.id: type(event) for event in await stand.restart(stand.resources())}
    assert found == {WORK: Progress, other: Started}
    await stand.until(Ended, other)
    assert await stand.log(other) == "hello"


async def test_a_kind_is_followed_when_it_is_needed(stand: Operated, fake: FakeKube):
    """Not before there is work of it."""
    assert not fake.requests["watch", JOBS.plural, ""]
    await stand.seen(await stand.job(), kind=JOBS)
    assert fake.requests["list", JOBS.plural, ""] >= 1


async def test_it_is_killed_before_its_kind_is_followed(stand: Operated, fake: FakeKube):
    """Nothing of it comes to be."""
    fake.faults.delay(0.3, lambda asked: asked.verb == "list" and asked.resource == JOBS.plural)
    await stand.job()
    await stand.launcher.kill(WORK, grace=1)
    await stand.until(Ended)
    fake.faults.delay(0)
    other = WorkId(RUN.action("a1"), 1)
    await stand.seen(await stand.job(other), kind=JOBS)
    assert len(fake.objects(JOBS.plural, group=JOBS.group)) == 1


async def _hold(stand: Operated, name: str) -> None:
    patch = [{"op": "add", "path": "/metadata/finalizers/-", "value": "example.com/operator"}]
    await stand.kube.patch(JOBS, name, patch, namespace=stand.namespace, content_type=JSON_PATCH)


async def _let_go(stand: Operated, name: str) -> None:
    job = await stand.kube.get(JOBS, name, namespace=stand.namespace)
    index = job["metadata"]["finalizers"].index("example.com/operator")
    patch = [{"op": "remove", "path": f"/metadata/finalizers/{index}"}]
    await stand.kube.patch(JOBS, name, patch, namespace=stand.namespace, content_type=JSON_PATCH)
