"""``spark``: a SparkApplication of Kubeflow's Spark operator, 2.0 or later (it takes pod templates).

The driver runs the SDK's entrypoint with the task's command as its arguments. How much cpu and memory driver and executors
have is Spark's configuration to say, as it works out overheads itself; whatever else their pods have is the task's.
Sources: flyteidl2/plugins/spark.proto; the operator's v1beta2 API; Spark's "Running on Kubernetes".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from flyteidl2.core import execution_pb2
from flyteidl2.plugins import spark_pb2

from flyte_unified.core.clock import Micros
from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.phases import Phase
from flyte_unified.ledger.api import Failure
from flyte_unified.plugins.api import Exit, Resource, State, TaskContext
from flyte_unified.plugins.operators import parts
from flyte_unified.plugins.operators.config import OperatorConfig
from flyte_unified.plugins.operators.kinds import SPARK_APPLICATION
from flyte_unified.plugins.operators.roles import Role, Roles, command, manifest
from flyte_unified.plugins.pods.build import Template
from flyte_unified.plugins.pods.reading import mapping, moment, text, whole

DRIVER, EXECUTOR = "spark-kubernetes-driver", "spark-kubernetes-executor"

_TYPES = {
    spark_pb2.SparkApplication.PYTHON: "Python",
    spark_pb2.SparkApplication.JAVA: "Java",
    spark_pb2.SparkApplication.SCALA: "Scala",
    spark_pb2.SparkApplication.R: "R",
}

_PHASES = {
    "": Phase.QUEUED,
    "SUBMITTED": Phase.INITIALIZING,
    "PENDING_SUBMISSION": Phase.INITIALIZING,
    "RESUMING": Phase.INITIALIZING,
    "SUSPENDING": Phase.WAITING_FOR_RESOURCES,
    "SUSPENDED": Phase.WAITING_FOR_RESOURCES,
}
"""Any other state that is no end, ones that nobody here has heard of included, is one of an application that runs."""

_CONTAINER_ENDED = re.compile(r"driver container failed with ExitCode: (\d+), Reason: (\w*)")
_DRIVER_LOST = re.compile(r"driver (pod not found|container status missing)|driver pod deleted", re.IGNORECASE)


class Spark:
    def __init__(self, roles: Roles, config: OperatorConfig) -> None:
        self._roles = roles
        self._config = config

    def describe(self, context: TaskContext) -> Resource:
        """Raises InvalidArgument naming the field."""
        job = parts.custom(context, spark_pb2.SparkJob())
        if not (job.mainApplicationFile or job.mainClass):
            raise InvalidArgument("custom: one of mainApplicationFile and mainClass is needed")
        conf = self._conf(job)
        driver = self._pod(context, job, DRIVER, field="driverPod", steady=True)
        executor = self._pod(context, job, EXECUTOR, field="executorPod")
        main = driver.primary_container()
        spec = {
            "type": _TYPES.get(job.applicationType, "Python"),
            "mode": "cluster",
            "sparkVersion": self._config.spark_version,
            "image": main["image"],
            "mainApplicationFile": job.mainApplicationFile,
            "mainClass": job.mainClass,
            "arguments": list(command(context)),
            "sparkConf": conf,
            "hadoopConf": dict(job.hadoopConf),
            "restartPolicy": {"type": "Never"},
            "driver": self._role(manifest(driver, context, leads=True), conf, "driver"),
            "executor": self._role(manifest(executor, context), conf, "executor")
            | _number(conf, "spark.executor.instances", "instances"),
        } | _optional(main, conf)
        if job.applicationType == spark_pb2.SparkApplication.PYTHON:
            spec["pythonVersion"] = "3"
        return Resource(
            manifest=parts.resource(
                SPARK_APPLICATION,
                labels=driver.labels,
                annotations=driver.annotations,
                spec={key: value for key, value in spec.items() if value},
            ),
            plural=SPARK_APPLICATION.plural,
            state=self.state,
            pod_labels=lambda name: {"sparkoperator.k8s.io/app-name": name, "spark-role": "driver"},
            container=DRIVER,
            links=parts.links(context),
        )

    def _conf(self, job: spark_pb2.SparkJob) -> dict[str, str]:
        """A limit of cpu for those whose number of cores is said, as Spark itself sets none."""
        conf = dict(self._config.spark_conf)
        if job.executorPath:
            conf |= {"spark.pyspark.python": job.executorPath, "spark.pyspark.driver.python": job.executorPath}
        conf |= job.sparkConf
        for role in ("driver", "executor"):
            asked = conf.get(f"spark.kubernetes.{role}.request.cores") or conf.get(f"spark.{role}.cores")
            if asked:
                conf.setdefault(f"spark.kubernetes.{role}.limit.cores", asked)
            conf[f"spark.kubernetes.{role}.podTemplateContainerName"] = DRIVER if role == "driver" else EXECUTOR
        return conf

    def _pod(
        self, context: TaskContext, job: spark_pb2.SparkJob, container: str, *, field: str, steady: bool = False
    ) -> Template:
        pod = getattr(job, field) if job.HasField(field) else None
        role = Role(container=container, command=(), pod=pod, field=field, steady=steady)
        template = self._roles.template(context, role)
        template.spec.setdefault("serviceAccountName", self._config.spark_service_account)
        for amounts in (template.primary_container().get("resources") or {}).values():
            if isinstance(amounts, dict):
                amounts.pop("cpu", None)
                amounts.pop("memory", None)
        return template

    def _role(self, template: Mapping[str, Any], conf: Mapping[str, str], role: str) -> dict[str, Any]:
        memory = conf.get(f"spark.{role}.memory")
        return (
            {"template": template, "serviceAccount": template["spec"]["serviceAccountName"]}
            | _number(conf, f"spark.{role}.cores", "cores")
            | ({"memory": memory} if memory else {})
        )

    def state(self, app: parts.Objects) -> State:
        """What a SparkApplication tells. Never raises."""
        status = parts.status(app)
        current = mapping(status.get("applicationState"))
        said, message = text(current.get("state")), text(current.get("errorMessage"))
        ended = moment(status.get("terminationTime"))
        if said == "COMPLETED":
            return parts.succeeded(ended, self._history(app))
        if said == "SUBMISSION_FAILED" or (said == "FAILED" and not whole(status.get("executionAttempts"))):
            at = ended or moment(status.get("lastSubmissionAttemptTime"))
            reason = f"the application could not be submitted: {message or 'the operator does not say why'}"
            return parts.failed("SparkSubmissionFailed", reason, at=at, phase=Phase.INITIALIZING)
        if said == "FAILED":
            return self._failed(app, message, ended)
        phase = _PHASES.get(said, Phase.RUNNING)
        since = moment(status.get("lastSubmissionAttemptTime")) if said else parts.created(app)
        reason = parts.told(said, message) if message or said not in ("", "RUNNING") else ""
        return State(phase=phase, since=since, reason=reason, links=self._driver(app, ready=said == "RUNNING"))

    def _failed(self, app: parts.Objects, message: str, at: Micros | None) -> State:
        links = self._history(app)
        told = f"the Spark application failed: {message or 'its log may tell why'}"
        if (end := _CONTAINER_ENDED.search(message)) is not None and end[2] == "OOMKilled":
            return State(phase=Phase.RUNNING, since=at, reason=told, exit=Exit(code=137, out_of_memory=True), links=links)
        failure = Failure.SYSTEM if _DRIVER_LOST.search(message) else None
        return parts.failed("SparkDriverLost" if failure else "SparkFailed", told, at=at, failure=failure, links=links)

    def _driver(self, app: parts.Objects, *, ready: bool) -> tuple[execution_pb2.TaskLog, ...]:
        """The driver's own UI, where the operator made an ingress to it."""
        uri = text(mapping(parts.status(app).get("driverInfo")).get("webUIIngressAddress"))
        if uri and not uri.startswith(("http://", "https://")):
            uri = f"https://{uri}"
        return parts.dashboard("Spark Driver UI", uri, ready=ready)

    def _history(self, app: parts.Objects) -> tuple[execution_pb2.TaskLog, ...]:
        application = text(parts.status(app).get("sparkApplicationId"))
        uri = parts.address(self._config.spark_history, app, sparkApplicationID=application)
        return parts.dashboard("Spark History UI", uri, ready=True, live=False)


def _number(conf: Mapping[str, str], key: str, name: str) -> dict[str, int]:
    """``conf[key]`` as the operator's field ``name``; nothing where it isn't said. Raises InvalidArgument."""
    if not (said := conf.get(key)):
        return {}
    if not said.isdecimal():
        raise InvalidArgument(f"custom.sparkConf[{key}] is {said!r}, no number")
    return {name: int(said)}


def _optional(main: Mapping[str, Any], conf: Mapping[str, str]) -> dict[str, Any]:
    found = {"imagePullPolicy": main.get("imagePullPolicy"), "batchScheduler": conf.get("spark.batchScheduler")}
    return {key: value for key, value in found.items() if value}
