"""Tasks as their operators' resources, from launch to end; the operators are played.

Each pod that an operator would make is made from the resource's own templates, so the API server judges those, too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from flyte_unified.kube.client import Kube
from flyte_unified.kube.kinds import CRDS, EVENTS, PODS, Kind, Object
from flyte_unified.launchers.api import Attempt, Ended, Progress, Started, WorkId
from flyte_unified.launchers.objects.identity import SELECTOR
from flyte_unified.launchers.resources.launcher import ResourceLauncher
from flyte_unified.ledger.api import Failure
from flyte_unified.plugins.api import Exit, Resource
from flyte_unified.plugins.operators.config import OperatorConfig
from flyte_unified.plugins.operators.kinds import (
    DASK_JOB,
    JOB_SET,
    MPI_JOB,
    PYTORCH_JOB,
    RAY_JOB,
    SPARK_APPLICATION,
    TF_JOB,
    resource_name,
)
from flyte_unified.plugins.operators.operators import Operators
from flyte_unified.plugins.pods.build import Pods
from flyte_unified.plugins.pods.config import Patience, PodConfig
from flyte_unified.testing.fake_kube import FakeKube
from tests.contract.kube.attempts import Stand, container_status, event_of, now, running, waiting
from tests.unit.plugins.contexts import KEY, context_of, spec

OPERATORS = Operators(Pods(PodConfig()), OperatorConfig())
TRAINING = "training.kubeflow.org"
WORK = WorkId(KEY, 1)
NAME = resource_name(context_of(spec()))
ALL = {"securityContext": {"secrets": [{"key": "token", "mountRequirement": "FILE"}]}, "metadata": {"interruptible": True}}
"""What tasks of every type may have."""


def conditions(*types: str) -> Object:
    at = now()
    told = [
        {"type": t, "status": "True", "reason": f"Job{t}", "message": f"it is {t}", "lastTransitionTime": at} for t in types
    ]
    return {"conditions": told}


def jobs(**counts: int) -> Object:
    zero = {"active": 0, "failed": 0, "ready": 0, "succeeded": 0, "suspended": 0}
    return {"replicatedJobsStatus": [{"name": "workers"} | zero | counts], "restarts": 0}


@dataclass(frozen=True, kw_only=True)
class Family:
    """An operator: its task, the pods that it makes (role to labels; the first has the log), its words."""

    kind: Kind
    type: str
    custom: Mapping[str, Any]
    pods: Mapping[str, Mapping[str, str]]
    creates: Object
    runs: Object
    succeeds: Object
    fails: Object
    code: str
    template: Mapping[str, Any] = field(default_factory=dict)

    def resource(self) -> Resource:
        work = OPERATORS.describe(context_of(spec(type=self.type, custom=self.custom, **ALL | dict(self.template))))
        assert isinstance(work, Resource), work
        return work


def training(kind: Kind, task_type: str, custom: Mapping[str, Any], *replicas: str, version: int = 0) -> Family:
    """One of Kubeflow's."""
    return Family(
        kind=kind,
        type=task_type,
        custom=custom,
        template={"taskTypeVersion": version},
        pods={
            role: {f"{TRAINING}/job-name": "$name", f"{TRAINING}/replica-type": role.lower(), f"{TRAINING}/replica-index": "0"}
            for role in replicas
        },
        creates=conditions("Created"),
        runs=conditions("Created", "Running"),
        succeeds=conditions("Created", "Running", "Succeeded"),
        fails=conditions("Created", "Running", "Failed"),
        code="JobFailed",
    )


FAMILIES = [
    Family(
        kind=SPARK_APPLICATION,
        type="spark",
        custom={"mainApplicationFile": "local:///opt/venv/bin/runtime.py", "sparkConf": {"spark.executor.instances": "1"}},
        pods={
            "driver": {"sparkoperator.k8s.io/app-name": "$name", "spark-role": "driver"},
            "executor": {"sparkoperator.k8s.io/app-name": "$name", "spark-role": "executor"},
        },
        creates={"applicationState": {"state": "SUBMITTED"}, "executionAttempts": 1},
        runs={"applicationState": {"state": "RUNNING"}, "executionAttempts": 1},
        succeeds={"applicationState": {"state": "COMPLETED"}, "executionAttempts": 1},
        fails={"applicationState": {"state": "FAILED", "errorMessage": "driver"}, "executionAttempts": 1},
        code="SparkFailed",
    ),
    Family(
        kind=RAY_JOB,
        type="ray",
        custom={"rayCluster": {"workerGroupSpec": [{"groupName": "w", "replicas": 1}]}},
        pods={
            "submitter": {"job-name": "$name"},
            "head": {"ray.io/node-type": "head"},
            "worker": {"ray.io/node-type": "worker"},
        },
        creates={"jobDeploymentStatus": "Initializing"},
        runs={"jobDeploymentStatus": "Running", "jobStatus": "RUNNING", "dashboardURL": "head:8265"},
        succeeds={"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"},
        fails={"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed"},
        code="AppFailed",
    ),
    Family(
        kind=DASK_JOB,
        type="dask",
        custom={"workers": {"numberOfWorkers": 1}},
        pods={
            role: {"dask.org/cluster-name": "$name", "dask.org/component": role}
            for role in ("job-runner", "scheduler", "worker")
        },
        creates={"jobStatus": "JobCreated"},
        runs={"jobStatus": "Running"},
        succeeds={"jobStatus": "Successful"},
        fails={"jobStatus": "Failed"},
        code="DaskJobFailed",
    ),
    training(PYTORCH_JOB, "pytorch", {"workers": 1}, "Master", "Worker"),
    training(MPI_JOB, "mpi", {"workerReplicas": {"replicas": 1}}, "Launcher", "Worker", version=1),
    training(TF_JOB, "tensorflow", {"workers": 1, "psReplicas": 1, "chiefReplicas": 1}, "Chief", "Worker", "PS"),
    Family(
        kind=JOB_SET,
        type="clustered-task",
        custom={"replicas": 2, "nprocPerNode": 1},
        pods={
            "0": {"jobset.sigs.k8s.io/jobset-name": "$name", "batch.kubernetes.io/job-completion-index": "0"},
            "1": {"jobset.sigs.k8s.io/jobset-name": "$name", "batch.kubernetes.io/job-completion-index": "1"},
        },
        creates=jobs(active=1),
        runs=jobs(active=1, ready=1),
        succeeds=jobs(succeeded=1) | conditions("Completed"),
        fails=jobs(failed=1) | conditions("Failed"),
        code="JobFailed",
    ),
]


def definition(kind: Kind) -> Object:
    version = {
        "name": kind.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
        "subresources": {"status": {}},
    }
    names = {"kind": kind.kind, "plural": kind.plural, "singular": kind.kind.lower(), "listKind": f"{kind.kind}List"}
    return {
        "apiVersion": CRDS.api_version,
        "kind": CRDS.kind,
        "metadata": {"name": f"{kind.plural}.{kind.group}"},
        "spec": {"group": kind.group, "scope": "Namespaced", "names": names, "versions": [version]},
    }


def templates(value: Any) -> Iterator[Mapping[str, Any]]:
    """All pod templates of a manifest, in the order in which they stand in it."""
    if isinstance(value, Mapping):
        if "containers" in (value.get("spec") or {}):
            yield value
        else:
            for inner in value.values():
                yield from templates(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from templates(inner)


class Operated(Stand):
    """A stand where one family's operator is played."""

    family: Family

    def resources(self) -> ResourceLauncher:
        return ResourceLauncher(
            kube=self.kube,
            namespace=lambda _: self.namespace,
            scope=self.namespace,
            owner=self.owners.get,
            logs=self.keeper(0.5),
            clock=self.clock,
            readers=OPERATORS.readers,
            patience=Patience(image_pull=0.3, lost=3.0),
            quiet=0.2,
        )

    async def job(self) -> Object:
        """The resource, launched."""
        await self.launcher.launch(Attempt(id=WORK, work=self.family.resource()))
        return await self.seen(NAME, kind=self.family.kind)

    async def says(self, status: Object) -> None:
        patch = {"status": status}
        await self.kube.patch(self.family.kind, NAME, patch, namespace=self.namespace, subresource="status")

    async def makes_pods(self, job: Object, state: Object | None = None, **more: Any) -> None:
        """One of each role, as its template has it and with the labels that the operator gives it; they run, or are in
        ``state``, or (``more``) wherever they are."""
        made = list(templates(job["spec"]))
        roles = list(self.family.pods.items())
        if len(made) == 1:
            made *= len(roles)
        assert len(made) == len(roles)
        for template, (role, labels) in zip(made, roles, strict=True):
            metadata = dict(template.get("metadata") or {})
            metadata["labels"] = (metadata.get("labels") or {}) | {k: v.replace("$name", NAME) for k, v in labels.items()}
            metadata |= {"name": f"{NAME}-{role.lower()}", "namespace": self.namespace}
            node = {} if more else {"nodeName": "by-hand"}
            await self.kube.create(
                PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**template["spec"], **node}}
            )
            shown = state or running()
            statuses = [container_status(container["name"], shown) for container in template["spec"]["containers"]]
            status = more or {"phase": "Pending" if state else "Running", "containerStatuses": statuses}
            await self.kube.patch(PODS, metadata["name"], {"status": status}, namespace=self.namespace, subresource="status")


@pytest.fixture(params=FAMILIES, ids=[family.kind.kind for family in FAMILIES])
async def stand(
    request: pytest.FixtureRequest, kube: Kube, fake: FakeKube, namespace: str, tmp_path: Path
) -> AsyncIterator[Operated]:
    family: Family = request.param
    await kube.create(CRDS, definition(family.kind))
    stand = Operated(kube, namespace, tmp_path)
    stand.family = family
    await stand.start(stand.resources())
    yield stand
    await stand.close()


async def test_a_task_runs_and_succeeds(stand: Operated, fake: FakeKube):
    """Its phases are its operator's, its log is that of the pod that has the task's output."""
    job = await stand.job()
    await stand.says(stand.family.creates)
    assert (await stand.until(Progress, WORK)).phase.name == "INITIALIZING"
    await stand.makes_pods(job)
    await stand.says(stand.family.runs)
    await stand.until(Started, WORK)
    located = await stand.until(Progress, WORK, number=2)
    leader = f"{NAME}-{next(iter(stand.family.pods)).lower()}"
    container = stand.family.resource().container
    assert located.details is not None
    [pod] = located.details.log_context.pods
    assert (pod.pod_name, pod.primary_container_name) == (leader, container)
    fake.set_log(leader, "42\n", container=container, namespace=stand.namespace)
    await stand.says(stand.family.succeeds)
    assert (await stand.until(Ended, WORK)).exit == Exit(code=0)
    assert await stand.log(WORK) == "42"


async def test_a_task_fails_under_the_next_leader(stand: Operated):
    """Who reads the resource without having made it, and tells the operator's reason."""
    job = await stand.job()
    await stand.says(stand.family.creates)
    await stand.until(Progress, WORK)
    await stand.restart(stand.resources())
    await stand.makes_pods(job)
    await stand.says(stand.family.runs)
    await stand.until(Started, WORK)
    await stand.says(stand.family.fails)
    fault = (await stand.until(Ended, WORK)).exit.fault
    assert fault is not None and fault.code == stand.family.code
    await stand.launcher.forget(WORK)
    await stand.seen(NAME, lambda job: job is None, kind=stand.family.kind)


async def test_pods_that_find_no_node_or_image(stand: Operated):
    """They are told of as a task's own pod is: the task waits, then it has failed, and what was made for it goes."""
    job = await stand.job()
    await stand.says(stand.family.creates)
    await stand.until(Progress, WORK)
    message = "0/3 nodes are available: 3 Insufficient cpu."
    nowhere = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    await stand.makes_pods(job, phase="Pending", conditions=[nowhere])
    event = await stand.told(message)
    assert isinstance(event, Progress) and event.phase.name == "WAITING_FOR_RESOURCES"
    await stand.kube.delete_all(PODS, namespace=stand.namespace)
    await stand.makes_pods(job, waiting("ImagePullBackOff", "Back-off pulling image"))
    fault = (await stand.until(Ended, WORK)).exit.fault
    assert fault is not None and (fault.code, fault.failure) == ("ImagePullBackOff", Failure.USER)
    assert "can't be had" in fault.message
    await stand.launcher.forget(WORK)
    await stand.seen(NAME, lambda job: job is None, kind=stand.family.kind)


async def test_operators_pods_are_nobodys_attempts(stand: Operated):
    """The launcher of pods follows none of them, whatever labels the task asks for."""
    await stand.makes_pods(await stand.job())
    selected = [pod async for items, _ in stand.kube.pages(PODS, namespace=stand.namespace, labels=SELECTOR) for pod in items]
    assert not selected


@pytest.mark.parametrize("stand", [family for family in FAMILIES if family.kind in (PYTORCH_JOB, JOB_SET)], indirect=True)
async def test_a_quota_that_leaves_no_room_for_pods(stand: Operated, kube: Kube):
    """Is told by whoever makes the pods; the task waits until there is room."""
    job = await stand.job()
    await stand.says(stand.family.creates)
    maker = {"kind": "Job", "name": f"{NAME}-workers-0", "uid": "x"}
    if stand.family.kind == PYTORCH_JOB:
        maker = {"kind": "PyTorchJob", "name": NAME, "uid": job["metadata"]["uid"]}
    refusal = 'Error creating: pods "x" is forbidden: exceeded quota: small'
    about = {"metadata": {**maker, "namespace": stand.namespace}}
    event = event_of(about, "refused", refusal)
    event["involvedObject"]["kind"] = maker["kind"]
    await stand.until(Progress, WORK)
    await kube.create(EVENTS, event)
    told = await stand.told(refusal)
    assert isinstance(told, Progress) and told.phase.name == "WAITING_FOR_RESOURCES"
    await stand.makes_pods(job)
    await stand.says(stand.family.runs)
    await stand.until(Started, WORK)


@pytest.mark.parametrize("stand", [family for family in FAMILIES if family.kind == RAY_JOB], indirect=True)
async def test_why_a_task_waits_is_told(stand: Operated):
    """As a cluster event, in the operator's words."""
    await stand.job()
    failing = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreateHeadPod", "message": "exceeded quota"}
    await stand.says({"jobDeploymentStatus": "Initializing", "rayClusterStatus": {"conditions": [failing]}})
    await stand.told("FailedCreateHeadPod: exceeded quota")


@pytest.mark.parametrize("stand", [family for family in FAMILIES if family.kind == DASK_JOB], indirect=True)
async def test_a_dask_scheduler_is_found_by_its_service(stand: Operated):
    """Which is told the resource's name before the launcher gives it."""
    job = await stand.job()
    selector = job["spec"]["cluster"]["spec"]["scheduler"]["service"]["selector"]
    assert selector["dask.org/cluster-name"] == job["metadata"]["name"]
