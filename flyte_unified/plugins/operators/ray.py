"""``ray``: a RayJob of KubeRay. A cluster is made for the attempt, the task's command is submitted to it as its entrypoint.

The command runs on the head, so the head has the task's environment; so have the workers, whose tasks are the same program's.
KubeRay says itself what their containers run. What the command writes is read from the pod that submits it and follows its
log.
Sources: flyteidl2/plugins/ray.proto; KubeRay's v1 API.
"""

from __future__ import annotations

import base64
import binascii
import json
import shlex
from typing import Any

from flyteidl2.core import execution_pb2
from flyteidl2.plugins import ray_pb2

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.phases import Phase
from flyte_unified.ledger.api import Failure
from flyte_unified.plugins.api import Resource, State, TaskContext
from flyte_unified.plugins.operators import parts
from flyte_unified.plugins.operators.config import OperatorConfig
from flyte_unified.plugins.operators.kinds import RAY_JOB
from flyte_unified.plugins.operators.roles import Role, Roles, command, manifest, marks
from flyte_unified.plugins.pods import resources
from flyte_unified.plugins.pods.build import Template
from flyte_unified.plugins.pods.reading import mapping, moment, text

HEAD, WORKER, SUBMITTER = "ray-head", "ray-worker", "ray-job-submitter"

_HEAD_PARAMS = {"dashboard-host": "0.0.0.0", "disable-usage-stats": "true", "include-dashboard": "true"}  # within its pod
_WORKER_PARAMS = {"disable-usage-stats": "true"}
_PORTS = (("gcs-server", 6379), ("dashboard", 8265), ("client", 10001))
_UPSCALING = {
    ray_pb2.AutoscalerOptions.UPSCALING_MODE_DEFAULT: "Default",
    ray_pb2.AutoscalerOptions.UPSCALING_MODE_AGGRESSIVE: "Aggressive",
    ray_pb2.AutoscalerOptions.UPSCALING_MODE_CONSERVATIVE: "Conservative",
}
_SUBMITTER_RESOURCES = {"requests": {"cpu": "500m", "memory": "200Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}
_SUBMITTER_HAS = ("imagePullSecrets", "nodeSelector", "securityContext", "serviceAccountName", "tolerations")
"""What the pod that submits has of the head's: enough to be let in and to get the image, no device, no secret."""

_PHASES = {
    "": Phase.QUEUED,
    "Initializing": Phase.INITIALIZING,
    "Retrying": Phase.INITIALIZING,
    "Scheduled": Phase.QUEUED,
    "Scheduling": Phase.QUEUED,
    "Suspended": Phase.WAITING_FOR_RESOURCES,
    "Suspending": Phase.WAITING_FOR_RESOURCES,
    "Waiting": Phase.INITIALIZING,
}

_SYSTEM = frozenset({"JobDeploymentStatusTransitionGracePeriodExceeded", "JobStatusCheckTimeoutExceeded", "SubmissionFailed"})
"""Reasons of KubeRay's for the end of a job whose program has not failed."""


class Ray:
    def __init__(self, roles: Roles, config: OperatorConfig) -> None:
        self._roles = roles
        self._config = config

    def describe(self, context: TaskContext) -> Resource:
        """Raises InvalidArgument naming the field."""
        job = parts.custom(context, ray_pb2.RayJob())
        cluster = job.ray_cluster
        if not (entrypoint := command(context)):
            raise InvalidArgument("container.args: a ray task needs a command, which is submitted to its cluster")
        head = self._head(context, cluster)
        spec: dict[str, Any] = {
            "entrypoint": shlex.join(entrypoint),
            "submissionMode": "K8sJobMode",
            "backoffLimit": 0,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": self._ttl(job),
            "submitterPodTemplate": _submitter(head, context),
            "rayClusterSpec": {
                "enableInTreeAutoscaling": cluster.enable_autoscaling,
                "headGroupSpec": {
                    "rayStartParams": _HEAD_PARAMS | dict(cluster.head_group_spec.ray_start_params),
                    "template": manifest(head, context, leads=True),
                },
                "workerGroupSpecs": self._workers(context, cluster),
            },
        }
        if environment := _runtime_env(job):
            spec["runtimeEnvYAML"] = environment
        if cluster.HasField("autoscaler_options"):
            spec["rayClusterSpec"]["autoscalerOptions"] = _autoscaler(cluster.autoscaler_options)
        return Resource(
            manifest=parts.resource(RAY_JOB, labels=head.labels, annotations=head.annotations, spec=spec),
            plural=RAY_JOB.plural,
            state=self.state,
            pod_labels=lambda name: {"job-name": name},
            container=SUBMITTER,
            links=parts.links(context),
        )

    def _ttl(self, job: ray_pb2.RayJob) -> int:
        if not job.shutdown_after_job_finishes:
            return self._config.ray_ttl
        return parts.at_least(job.ttl_seconds_after_finished, 0, field="ttlSecondsAfterFinished")

    def _head(self, context: TaskContext, cluster: ray_pb2.RayCluster) -> Template:
        group = cluster.head_group_spec
        template = self._group(context, group, HEAD, field="rayCluster.headGroupSpec.k8sPod")
        main = template.primary_container()
        known = {port.get("containerPort") for port in main.get("ports") or ()}
        ports = [{"name": name, "containerPort": number} for name, number in _PORTS if number not in known]
        main["ports"] = [*(main.get("ports") or ()), *ports]
        return template

    def _workers(self, context: TaskContext, cluster: ray_pb2.RayCluster) -> list[dict[str, Any]]:
        groups: list[dict[str, Any]] = []
        for index, group in enumerate(cluster.worker_group_spec):
            field = f"rayCluster.workerGroupSpec[{index}]"
            if not group.group_name or any(group.group_name == other["groupName"] for other in groups):
                raise InvalidArgument(f"custom.{field}.groupName: each group needs a name of its own, not {group.group_name!r}")
            replicas = parts.at_least(group.replicas, 0, field=f"{field}.replicas")
            groups.append(
                {
                    "groupName": group.group_name,
                    "replicas": replicas,
                    "minReplicas": max(0, min(group.min_replicas, replicas)),
                    "maxReplicas": max(group.max_replicas, replicas),
                    "rayStartParams": _WORKER_PARAMS | dict(group.ray_start_params),
                    "template": manifest(self._group(context, group, WORKER, field=f"{field}.k8sPod"), context),
                }
            )
        return groups

    def _group(
        self, context: TaskContext, group: ray_pb2.HeadGroupSpec | ray_pb2.WorkerGroupSpec, container: str, *, field: str
    ) -> Template:
        role = Role(
            container=container,
            command=(),
            extended=group.extended_resources if group.HasField("extended_resources") else None,
            pod=group.k8s_pod if group.HasField("k8s_pod") else None,
            field=field,
        )
        return self._roles.template(context, role)

    def state(self, job: parts.Objects) -> State:
        """What a RayJob tells. Never raises."""
        status = parts.status(job)
        said, done = text(status.get("jobDeploymentStatus")), text(status.get("jobStatus"))
        ended = moment(status.get("endTime"))
        if said == "Complete" and done not in ("FAILED", "STOPPED"):
            return parts.succeeded(ended)
        if said in ("Complete", "Failed", "ValidationFailed"):
            return _failed(job, said, done)
        phase = _PHASES.get(said, Phase.RUNNING)
        since = moment(status.get("startTime")) if said and phase is not Phase.RUNNING else None
        reason = parts.told(said, text(status.get("message")) or _cluster(status)) if phase is not Phase.RUNNING else ""
        links = self._dashboard(job, ready=phase is Phase.RUNNING)
        return State(phase=phase, since=since if said else parts.created(job), reason=reason, links=links)

    def _dashboard(self, job: parts.Objects, *, ready: bool) -> tuple[execution_pb2.TaskLog, ...]:
        status = parts.status(job)
        within = text(status.get("dashboardURL"))
        if self._config.ray_dashboard:
            cluster, submission = text(status.get("rayClusterName")), text(status.get("jobId"))
            uri = parts.address(self._config.ray_dashboard, job, rayClusterName=cluster, rayJobID=submission)
        else:
            uri = f"http://{within}" if within and "://" not in within else within
        return parts.dashboard("Ray Dashboard", uri, ready=ready)


def _failed(job: parts.Objects, said: str, done: str) -> State:
    status = parts.status(job)
    reason, message = text(status.get("reason")), text(status.get("message")).strip()
    if said == "ValidationFailed" or reason == "ValidationFailed":
        told = f"KubeRay does not take the RayJob: {message or reason}"
        at = moment(status.get("endTime"))
        return parts.failed("ValidationFailed", told, at=at, phase=Phase.QUEUED, failure=Failure.USER, retryable=False)
    told = f"the Ray job {'was stopped' if done == 'STOPPED' else 'failed'}: {parts.told(reason, message) or done or said}"
    system = reason in _SYSTEM and done != "FAILED"
    return parts.failed(
        reason or "RayJobFailed",
        told,
        at=moment(status.get("endTime")),
        phase=Phase.RUNNING if done else Phase.INITIALIZING,
        failure=Failure.SYSTEM if system else None if not done else Failure.USER,
    )


def _cluster(status: parts.Objects) -> str:
    """Why the cluster is not there yet."""
    cluster = mapping(status.get("rayClusterStatus"))
    failing = parts.conditions({"status": cluster}).get("ReplicaFailure")
    if failing is not None:
        return parts.told(failing.reason, failing.message)
    return parts.told(text(cluster.get("state")), text(cluster.get("reason")))


def _runtime_env(job: ray_pb2.RayJob) -> str:
    """YAML; the older field has the same as JSON, which YAML includes."""
    said: str = job.runtime_env_yaml
    if said or not job.runtime_env:
        return said
    try:
        return json.dumps(json.loads(base64.b64decode(job.runtime_env, validate=True)))
    except (binascii.Error, ValueError) as error:
        raise InvalidArgument(f"custom.runtimeEnv is no JSON in base64: {error}") from error


def _autoscaler(options: ray_pb2.AutoscalerOptions) -> dict[str, Any]:
    said: dict[str, Any] = {
        "upscalingMode": _UPSCALING.get(options.upscaling_mode),
        "idleTimeoutSeconds": parts.at_least(
            options.idle_timeout_seconds, 0, field="rayCluster.autoscalerOptions.idleTimeoutSeconds"
        ),
        "image": options.image,
        "env": [{"name": entry.key, "value": entry.value} for entry in options.env],
        "resources": {kind: amounts for kind, amounts in resources.written(options.resources).items() if amounts},
    }
    return {key: value for key, value in said.items() if value}


def _submitter(head: Template, context: TaskContext) -> dict[str, Any]:
    container = {"name": SUBMITTER, "image": head.primary_container()["image"], "resources": _SUBMITTER_RESOURCES}
    spec = {key: head.spec[key] for key in _SUBMITTER_HAS if key in head.spec}
    spec |= {"containers": [container], "restartPolicy": "Never", "enableServiceLinks": False}
    return {"metadata": {"labels": head.labels | marks(context, leads=True)}, "spec": spec}
