"""``pytorch``, ``mpi`` and ``tensorflow``: jobs of Kubeflow's training operator (kubeflow.org/v1).

A task of version 0 says only how many pods of each role there are; one of version 1 says each role's image, resources and
restarts. The operator finds a role's container by its name.
Sources: flyteidl2/plugins/{pytorch,mpi,tensorflow}.proto, flyteidl2/plugins/kubeflow; the operator's v1 API.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from flyteidl2.core import tasks_pb2
from flyteidl2.plugins import common_pb2, mpi_pb2, pytorch_pb2, tensorflow_pb2
from flyteidl2.plugins.kubeflow import common_pb2 as policy_pb2
from flyteidl2.plugins.kubeflow import mpi_pb2 as kf_mpi_pb2
from flyteidl2.plugins.kubeflow import pytorch_pb2 as kf_pytorch_pb2
from flyteidl2.plugins.kubeflow import tensorflow_pb2 as kf_tensorflow_pb2

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.phases import Phase
from flyte_unified.kube.kinds import Kind
from flyte_unified.ledger.api import Failure
from flyte_unified.plugins.api import Resource, State, TaskContext
from flyte_unified.plugins.operators import parts
from flyte_unified.plugins.operators.kinds import MPI_JOB, PYTORCH_JOB, TF_JOB
from flyte_unified.plugins.operators.roles import Role, Roles, manifest
from flyte_unified.plugins.pods.reading import moment

PYTORCH, MPI, TENSORFLOW = "pytorch", "mpi", "tensorflow"
"""Task types, and the names that the operator wants for containers."""

_WORKER_COMMAND = "worker_spec_command"
_RESTARTS = {
    common_pb2.RESTART_POLICY_NEVER: "Never",
    common_pb2.RESTART_POLICY_ON_FAILURE: "OnFailure",
    common_pb2.RESTART_POLICY_ALWAYS: "Always",
}
_CLEANING = {
    policy_pb2.CLEANPOD_POLICY_NONE: "None",
    policy_pb2.CLEANPOD_POLICY_RUNNING: "Running",
    policy_pb2.CLEANPOD_POLICY_ALL: "All",
}
_JOB, _ROLE, _TYPE, _INDEX = (
    f"training.kubeflow.org/{label}" for label in ("job-name", "job-role", "replica-type", "replica-index")
)

_Asked: TypeAlias = (
    kf_pytorch_pb2.DistributedPyTorchTrainingReplicaSpec
    | kf_mpi_pb2.DistributedMPITrainingReplicaSpec
    | kf_tensorflow_pb2.DistributedTensorflowTrainingReplicaSpec
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicas:
    """The pods of one role."""

    count: int
    image: str = ""
    resources: tasks_pb2.Resources | None = None
    restarts: int = common_pb2.RESTART_POLICY_NEVER
    command: tuple[str, ...] | None = None


class Kubeflow:
    def __init__(self, roles: Roles) -> None:
        self._roles = roles

    def pytorch(self, context: TaskContext) -> Resource:
        """Elastic jobs have no master: their workers choose one. Raises InvalidArgument naming the field."""
        groups: dict[str, Replicas]
        elastic: pytorch_pb2.ElasticConfig | kf_pytorch_pb2.ElasticConfig | None
        if _version(context) == 0:
            simple = parts.custom(context, pytorch_pb2.DistributedPyTorchTrainingTask())
            groups = {"Master": Replicas(count=1), "Worker": _counted(simple.workers, "workers", least=1)}
            policy, elastic = None, simple.elastic_config if simple.HasField("elastic_config") else None
        else:
            task = parts.custom(context, kf_pytorch_pb2.DistributedPyTorchTrainingTask())
            groups = {
                "Master": _asked(task.master_replicas, "masterReplicas", count=1),
                "Worker": _asked(task.worker_replicas, "workerReplicas", least=1),
            }
            policy = task.run_policy if task.HasField("run_policy") else None
            elastic = task.elastic_config if task.HasField("elastic_config") else None
        spec: dict[str, Any] = {"runPolicy": _policy(policy)}
        if elastic is not None:
            del groups["Master"]
            spec["elasticPolicy"] = _elastic(elastic, groups["Worker"].count)
        leading = {_TYPE: "worker", _INDEX: "0"} if elastic is not None else {_TYPE: "master"}
        return self._job(context, PYTORCH_JOB, PYTORCH, groups, spec, leading)

    def mpi(self, context: TaskContext) -> Resource:
        """Workers have no command of the task's: the operator has them wait for the launcher's. Raises InvalidArgument."""
        if _version(context) == 0:
            simple = parts.custom(context, mpi_pb2.DistributedMPITrainingTask())
            slots, policy = simple.slots, None
            workers = _counted(simple.num_workers, "numWorkers", least=1, command=_worker_command(context))
            launchers = Replicas(count=max(1, simple.num_launcher_replicas))
        else:
            task = parts.custom(context, kf_mpi_pb2.DistributedMPITrainingTask())
            slots, policy = task.slots, task.run_policy if task.HasField("run_policy") else None
            launcher, worker = task.launcher_replicas, task.worker_replicas
            launchers = _asked(launcher, "launcherReplicas", count=1, command=tuple(launcher.command) or None)
            workers = _asked(worker, "workerReplicas", least=1, command=tuple(worker.command))
        spec = {"slotsPerWorker": max(1, slots), "runPolicy": _policy(policy)}
        return self._job(context, MPI_JOB, MPI, {"Launcher": launchers, "Worker": workers}, spec, {_TYPE: "launcher"})

    def tensorflow(self, context: TaskContext) -> Resource:
        """Raises InvalidArgument naming the field."""
        if _version(context) == 0:
            simple = parts.custom(context, tensorflow_pb2.DistributedTensorflowTrainingTask())
            policy = None
            asked = {
                "Chief": _counted(simple.chief_replicas, "chiefReplicas"),
                "Worker": _counted(simple.workers, "workers", least=1),
                "PS": _counted(simple.ps_replicas, "psReplicas"),
                "Evaluator": _counted(simple.evaluator_replicas, "evaluatorReplicas"),
            }
        else:
            task = parts.custom(context, kf_tensorflow_pb2.DistributedTensorflowTrainingTask())
            policy = task.run_policy if task.HasField("run_policy") else None
            asked = {
                "Chief": _asked(task.chief_replicas, "chiefReplicas"),
                "Worker": _asked(task.worker_replicas, "workerReplicas", least=1),
                "PS": _asked(task.ps_replicas, "psReplicas"),
                "Evaluator": _asked(task.evaluator_replicas, "evaluatorReplicas"),
            }
        groups = {name: replicas for name, replicas in asked.items() if replicas.count}
        leading = {_TYPE: "chief"} if "Chief" in groups else {_TYPE: "worker", _INDEX: "0"}
        return self._job(context, TF_JOB, TENSORFLOW, groups, {"runPolicy": _policy(policy)}, leading)

    def _job(
        self,
        context: TaskContext,
        kind: Kind,
        container: str,
        groups: Mapping[str, Replicas],
        spec: Mapping[str, Any],
        leading: Mapping[str, str],
    ) -> Resource:
        """``leading`` labels the pod whose log is the attempt's."""
        prefix = {PYTORCH: "pytorch", MPI: "mpi", TENSORFLOW: "tf"}[container]
        own = self._roles.template(context, Role(container=container))
        first = leading[_TYPE]
        replicas = {
            name: self._replicas(context, container, group, leads=name.lower() == first) for name, group in groups.items()
        }
        return Resource(
            manifest=parts.resource(
                kind,
                labels=own.labels,
                annotations=own.annotations,
                spec={**spec, f"{prefix}ReplicaSpecs": replicas},
            ),
            plural=kind.plural,
            state=state,
            pod_labels=lambda name: {_JOB: name, **leading},
            container=container,
            links=parts.links(context),
        )

    def _replicas(self, context: TaskContext, container: str, group: Replicas, *, leads: bool) -> dict[str, Any]:
        role = Role(container=container, command=group.command, image=group.image, resources=group.resources)
        template = self._roles.template(context, role)
        policy = _RESTARTS.get(group.restarts, "Never")
        template.spec.pop("restartPolicy", None)  # the operator sets it, and warns of any other
        return {"replicas": group.count, "restartPolicy": policy, "template": manifest(template, context, leads=leads)}


def state(job: parts.Objects) -> State:
    """What a PyTorchJob, an MPIJob or a TFJob tells. Never raises."""
    holding = parts.conditions(job)
    started = moment(parts.status(job).get("startTime"))
    if (done := holding.get("Succeeded")) is not None:
        return parts.succeeded(moment(parts.status(job).get("completionTime")) or done.at)
    if (done := holding.get("Failed")) is not None:
        invalid = "FailedValidation" in done.reason
        told = f"the training job failed: {parts.told(done.reason, done.message) or 'the operator does not say why'}"
        return parts.failed(
            done.reason or "TrainingJobFailed",
            told,
            at=done.at,
            phase=Phase.RUNNING if started is not None and not invalid else Phase.INITIALIZING,
            failure=Failure.USER if invalid else None,
            retryable=not invalid,
        )
    latest = next(reversed(holding), "")
    current = holding.get(latest)
    at, reason = (current.at, parts.told(current.reason, current.message)) if current is not None else (None, "")
    match latest:
        case "":
            return State(phase=Phase.QUEUED, since=parts.created(job))
        case "Created":
            return State(phase=Phase.INITIALIZING, since=at, reason=reason)
        case "Suspended":
            return State(phase=Phase.WAITING_FOR_RESOURCES, since=at, reason=reason)
        case "Running":
            return State(phase=Phase.RUNNING, since=at)
    return State(phase=Phase.RUNNING, since=at, reason=reason)


def _version(context: TaskContext) -> int:
    version: int = context.spec.task_template.task_type_version
    if version not in (0, 1):
        raise InvalidArgument(f"task_type_version: there is no version {version} of {context.spec.task_template.type!r} tasks")
    return version


def _worker_command(context: TaskContext) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(context.spec.task_template.config.get(_WORKER_COMMAND, "")))
    except ValueError as error:
        raise InvalidArgument(f"config.{_WORKER_COMMAND} is no command line: {error}") from error


def _counted(count: int, field: str, *, least: int = 0, command: tuple[str, ...] | None = None) -> Replicas:
    return Replicas(count=parts.at_least(count, least, field=field), command=command)


def _asked(
    spec: _Asked, field: str, *, count: int | None = None, least: int = 0, command: tuple[str, ...] | None = None
) -> Replicas:
    """A role of version 1; what it says itself is older than what ``common`` says."""
    common = spec.common if spec.HasField("common") else spec
    number = count if count is not None else parts.at_least(common.replicas, least, field=f"{field}.replicas")
    return Replicas(
        count=number,
        image=common.image,
        resources=common.resources,
        restarts=common.restart_policy,
        command=command,
    )


def _policy(policy: policy_pb2.RunPolicy | None) -> dict[str, Any]:
    """Without one, what still runs at the end is ended, and what has ended is kept with its log."""
    if policy is None:
        return {"cleanPodPolicy": "Running"}
    said = {
        "ttlSecondsAfterFinished": policy.ttl_seconds_after_finished,
        "activeDeadlineSeconds": policy.active_deadline_seconds,
        "backoffLimit": policy.backoff_limit,
    }
    numbers = {key: parts.at_least(value, 0, field=f"runPolicy.{key}") for key, value in said.items() if value}
    return {"cleanPodPolicy": _CLEANING.get(policy.clean_pod_policy, "None")} | numbers


def _elastic(config: pytorch_pb2.ElasticConfig | kf_pytorch_pb2.ElasticConfig, workers: int) -> dict[str, Any]:
    least, most = config.min_replicas or workers, config.max_replicas or workers
    if not least <= workers <= most:
        raise InvalidArgument(f"custom.elasticConfig: {workers} workers are not between {least} and {most}")
    said = {"rdzvBackend": config.rdzv_backend, "nProcPerNode": config.nproc_per_node}
    return {key: value for key, value in said.items() if value} | {
        "minReplicas": least,
        "maxReplicas": most,
        "maxRestarts": max(0, config.max_restarts),
    }
