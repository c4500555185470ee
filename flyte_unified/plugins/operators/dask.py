"""``dask``: a DaskJob of the Dask operator: a runner with the task's command, a scheduler and workers with Dask's own.

The runner's end is the job's. Runner and scheduler never stand where they may be interrupted: all is lost with either. The
operator copies the resource's labels and annotations to every pod, so each role's own are said beside its spec.
Sources: flyteidl2/plugins/dask.proto; the operator's custom resources and controller (kubernetes.dask.org/v1).
"""

from __future__ import annotations

import math
from typing import Any

from flyteidl2.plugins import dask_pb2

from flyte_unified.core.phases import Phase
from flyte_unified.core.quantities import quantity
from flyte_unified.plugins.api import Resource, State, TaskContext
from flyte_unified.plugins.operators import parts
from flyte_unified.plugins.operators.config import OperatorConfig
from flyte_unified.plugins.operators.kinds import DASK_JOB, resource_name
from flyte_unified.plugins.operators.roles import Role, Roles, manifest
from flyte_unified.plugins.pods.reading import mapping, moment, text

RUNNER, SCHEDULER, WORKER = "job-runner", "scheduler", "dask-worker"

_COMM, _DASHBOARD = ("tcp-comm", 8786), ("http-dashboard", 8787)
"""Ports by the names under which the operator looks for them."""

_PHASES = {"": Phase.QUEUED, "JobCreated": Phase.INITIALIZING, "ClusterCreated": Phase.INITIALIZING}


class Dask:
    def __init__(self, roles: Roles, config: OperatorConfig) -> None:
        self._roles = roles
        self._config = config

    def describe(self, context: TaskContext) -> Resource:
        """Raises InvalidArgument naming the field."""
        job = parts.custom(context, dask_pb2.DaskJob())
        runner = self._roles.template(context, Role(container=RUNNER, steady=True))
        spec = {
            "job": manifest(runner, context, leads=True),
            "cluster": {
                "spec": {"scheduler": self._scheduler(context, job.scheduler), "worker": self._worker(context, job.workers)}
            },
        }
        return Resource(
            manifest=parts.resource(DASK_JOB, labels=runner.labels, annotations=runner.annotations, spec=spec),
            plural=DASK_JOB.plural,
            state=self.state,
            pod_labels=lambda name: {"dask.org/cluster-name": name, "dask.org/component": "job-runner"},
            container=RUNNER,
            links=parts.links(context),
        )

    def _scheduler(self, context: TaskContext, asked: dask_pb2.DaskScheduler) -> dict[str, Any]:
        role = Role(
            container=SCHEDULER, command=("dask", "scheduler"), image=asked.image, resources=asked.resources, steady=True
        )
        template = self._roles.template(context, role)
        template.spec["restartPolicy"] = "Always"
        main = template.primary_container()
        main["ports"] = [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in (_COMM, _DASHBOARD)]
        main.setdefault(
            "readinessProbe",
            {
                "httpGet": {"port": _DASHBOARD[0], "path": "/health"},
                "initialDelaySeconds": 5,
                "periodSeconds": 5,
                "failureThreshold": 30,
            },
        )
        ports = [{"name": name, "port": port, "targetPort": name, "protocol": "TCP"} for name, port in (_COMM, _DASHBOARD)]
        selector = {"dask.org/cluster-name": resource_name(context), "dask.org/component": "scheduler"}
        service = {"type": "ClusterIP", "selector": selector, "ports": ports}
        return manifest(template, context, leads=True) | {"service": service}

    def _worker(self, context: TaskContext, asked: dask_pb2.DaskWorkerGroup) -> dict[str, Any]:
        """Workers are told their limits, as Dask knows no others than the machine's."""
        role = Role(
            container=WORKER,
            command=("dask", "worker", "--name", "$(DASK_WORKER_NAME)"),
            image=asked.image,
            resources=asked.resources,
        )
        template = self._roles.template(context, role)
        template.spec["restartPolicy"] = "Always"
        main = template.primary_container()
        limits = mapping(mapping(main.get("resources")).get("limits"))
        if cpu := text(limits.get("cpu")):
            main["args"] += ["--nthreads", str(max(1, math.ceil(quantity(cpu, field="resources.cpu"))))]
        if memory := text(limits.get("memory")):
            main["args"] += ["--memory-limit", str(int(quantity(memory, field="resources.memory")))]
        return manifest(template, context) | {"replicas": asked.number_of_workers}

    def state(self, job: parts.Objects) -> State:
        """What a DaskJob tells: no more than whether its runner has ended, and how. Never raises."""
        status = parts.status(job)
        said, ended = text(status.get("jobStatus")), moment(status.get("endTime"))
        if said in ("Successful", "Completed"):
            return parts.succeeded(ended)
        if said == "Failed":
            runner = text(status.get("jobRunnerPodName"))
            return parts.failed(
                "DaskJobFailed", f"the Dask job failed{f': its runner {runner} did' if runner else ''}", at=ended
            )
        phase = _PHASES.get(said, Phase.RUNNING)
        since = moment(status.get("startTime")) if phase is Phase.RUNNING else parts.created(job)
        uri = parts.address(self._config.dask_dashboard, job)
        links = parts.dashboard("Dask Dashboard", uri, ready=phase is Phase.RUNNING)
        return State(phase=phase, since=since, reason=said if phase is Phase.INITIALIZING else "", links=links)
