"""``clustered-task``: a JobSet (jobset.x-k8s.io) of one indexed job, every pod of which runs the task's command.

The SDK's launcher in each pod works out who is who from variables that are set here, and from the headless Service that JobSet
makes with the JobSet's name. When a pod fails, JobSet begins again with all of them as often as the task says; that is one
attempt to the executor.
Sources: flyteidl2/plugins/clustered.proto; the SDK's ``clustered`` launcher; JobSet's v1alpha2 API.
"""

from __future__ import annotations

from typing import Any

from flyteidl2.plugins import clustered_pb2

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.phases import Phase
from flyte_unified.plugins.api import Resource, State, TaskContext
from flyte_unified.plugins.operators import parts
from flyte_unified.plugins.operators.kinds import JOB_SET
from flyte_unified.plugins.operators.roles import Role, Roles, manifest
from flyte_unified.plugins.pods.reading import mappings, whole

WORKERS = "workers"
"""The one job of the set: the SDK's launcher looks for ``<name>-workers-0-0``."""

_MOST = 100_000
"""Pods for whose numbers names have room."""
_PORT = "29500"
_LABEL = "jobset.sigs.k8s.io"
_RENDEZVOUS = {clustered_pb2.STATIC: "static", clustered_pb2.C10D: "c10d"}


class Clustered:
    def __init__(self, roles: Roles) -> None:
        self._roles = roles

    def describe(self, context: TaskContext) -> Resource:
        """Raises InvalidArgument naming the field."""
        task = parts.custom(context, clustered_pb2.ClusteredTaskSpec())
        _check(task)
        template = self._roles.template(context, Role())
        main = template.primary_container()
        ours = _environment(task)
        main["env"] = [entry for entry in main.get("env") or () if entry.get("name") not in {e["name"] for e in ours}] + ours
        job: dict[str, Any] = {
            "parallelism": task.replicas,
            "completions": task.replicas,
            "completionMode": "Indexed",
            "backoffLimit": 0,
            "template": manifest(template, context, leads=True),
        }
        spec: dict[str, Any] = {
            "network": {"enableDNSHostnames": True},
            "successPolicy": {"operator": "All"},
            "replicatedJobs": [{"name": WORKERS, "replicas": 1, "template": {"spec": job}}],
        }
        policy = task.failure_policy
        if policy.max_restarts or policy.restart_on_host_maintenance:
            spec["failurePolicy"] = {"maxRestarts": policy.max_restarts}
        if policy.restart_on_host_maintenance:
            spec["failurePolicy"]["rules"] = [_FREE_RESTART]
            job["podFailurePolicy"] = {"rules": [_DISRUPTED]}
        if task.HasField("ttl_seconds_after_finished"):
            spec["ttlSecondsAfterFinished"] = task.ttl_seconds_after_finished.value
        return Resource(
            manifest=parts.resource(JOB_SET, labels=template.labels, annotations=template.annotations, spec=spec),
            plural=JOB_SET.plural,
            state=state,
            pod_labels=lambda name: {f"{_LABEL}/jobset-name": name, "batch.kubernetes.io/job-completion-index": "0"},
            container=template.primary,
            links=parts.links(context),
        )


_DISRUPTED = {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
_FREE_RESTART = {
    "name": "HostMaintenance",
    "action": "RestartJobSetAndIgnoreMaxRestarts",
    "onJobFailureReasons": ["PodFailurePolicy"],
    "targetReplicatedJobs": [WORKERS],
}
"""A job that fails because the cluster took a pod away begins again without its author paying for it."""


def state(jobs: parts.Objects) -> State:
    """What a JobSet tells. Never raises."""
    holding, status = parts.conditions(jobs), parts.status(jobs)
    workers = [entry for entry in mappings(status.get("replicatedJobsStatus")) if entry.get("name") == WORKERS]
    restarts = whole(status.get("restarts")) or 0
    counts = {key: sum(whole(entry.get(key)) or 0 for entry in workers) for key in ("ready", "active", "succeeded", "failed")}
    began = restarts > 0 or counts["ready"] > 0 or counts["succeeded"] > 0 or counts["failed"] > 0
    if (done := holding.get("Completed")) is not None:
        return parts.succeeded(done.at)
    if (done := holding.get("Failed")) is not None:
        told = f"the cluster of pods failed: {parts.told(done.reason, done.message) or 'JobSet does not say why'}"
        after = f" (after {restarts} restarts)" if restarts else ""
        phase = Phase.RUNNING if began else Phase.INITIALIZING
        return parts.failed(done.reason or "JobSetFailed", told + after, at=done.at, phase=phase)
    if began:
        return State(phase=Phase.RUNNING, reason=f"restarted {restarts} times" if restarts else "")
    if (held := holding.get("Suspended")) is not None:
        return State(phase=Phase.WAITING_FOR_RESOURCES, since=held.at, reason=parts.told(held.reason, held.message))
    phase = Phase.INITIALIZING if counts["active"] else Phase.QUEUED
    return State(phase=phase, since=parts.created(jobs) if phase is Phase.QUEUED else None)


def _check(task: clustered_pb2.ClusteredTaskSpec) -> None:
    parts.at_least(task.replicas, 1, field="replicas")
    parts.at_least(task.nproc_per_node, 1, field="nprocPerNode")
    parts.at_least(task.failure_policy.max_restarts, 0, field="failurePolicy.maxRestarts")
    if task.replicas > _MOST:
        raise InvalidArgument(f"custom.replicas is {task.replicas}; a cluster has at most {_MOST} pods")
    if task.interconnect != clustered_pb2.TCP:
        raise InvalidArgument("custom.interconnect: there is only TCP")
    if task.ttl_seconds_after_finished.value >= 1 << 31:
        raise InvalidArgument("custom.ttlSecondsAfterFinished is beyond what Kubernetes takes")


def _environment(task: clustered_pb2.ClusteredTaskSpec) -> list[dict[str, Any]]:
    """Whatever the user says: the launcher trusts these. JOB_COMPLETION_INDEX is Kubernetes' own."""
    said = {
        "NNODES": str(task.replicas),
        "NPROC_PER_NODE": str(task.nproc_per_node),
        "MASTER_PORT": _PORT,
        "RDZV_BACKEND": _RENDEZVOUS.get(task.runtime.torchrun.rdzv_backend, "static"),
        "JOBSET_MAX_RESTARTS": str(task.failure_policy.max_restarts),
    }
    fields = {
        "JOBSET_NAME": f"metadata.labels['{_LABEL}/jobset-name']",
        "JOBSET_RESTART_ATTEMPT": f"metadata.annotations['{_LABEL}/restart-attempt']",
        "POD_NAMESPACE": "metadata.namespace",
    }
    literal = [{"name": name, "value": value} for name, value in said.items()]
    return literal + [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()]
