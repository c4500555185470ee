"""What an app is where Knative is installed: one Service of Knative's, which scales it by load, puts it to sleep and wakes it.

https://knative.dev/docs/serving/reference/serving-api/ Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

from flyteidl2.app import app_definition_pb2 as idl
from yarl import URL

from flyte_unified.apps.cluster.manifests import Surroundings, is_ready, parts
from flyte_unified.apps.cluster.status import current_of, short, starting
from flyte_unified.apps.model import App, Phase, Substate, Told
from flyte_unified.core.clock import seconds
from flyte_unified.kube.kinds import KNATIVE_SERVICES, Object
from flyte_unified.plugins.pods import reading
from flyte_unified.plugins.pods.config import PodConfig
from flyte_unified.plugins.pods.serving import port_of, understood

_SCALING = "autoscaling.knative.dev/"
_DEADLINE = "serving.knative.dev/progress-deadline"
_WITHIN = {"networking.knative.dev/visibility": "cluster-local"}
"""The way from outside is ours: Knative's own ingress would pass whoever stands before our port by."""
_PROTOCOLS = ("h2c", "http1")
"""The names that a port may have."""
_SHORTEST_WINDOW, _HOUR = 6, 3600
"""Seconds: the bounds of Knative's, and the second of requests, too."""
_OWN = ("restartPolicy", "terminationGracePeriodSeconds")
"""What Knative says of pods, and nobody else may."""


def manifest(app: App, *, namespace: str, idle: float, surroundings: Surroundings, config: PodConfig) -> Object:
    """As it is to be applied. ``idle`` is in seconds, for an app that says nothing else. Raises InvalidArgument."""
    metadata, pod = parts(app, namespace=namespace, surroundings=surroundings, config=config)
    with understood():
        _fit(pod.primary_container())
    spec = {name: value for name, value in pod.spec.items() if name not in _OWN}
    if app.spec.timeouts.HasField("request_timeout"):
        spec["timeoutSeconds"] = min(max(1, ceil(seconds(app.spec.timeouts.request_timeout))), _HOUR)
    notes = {**pod.annotations, **_scaling(app.spec.autoscaling, idle), _DEADLINE: f"{max(1, round(surroundings.start))}s"}
    return {
        "apiVersion": KNATIVE_SERVICES.api_version,
        "kind": KNATIVE_SERVICES.kind,
        "metadata": {**metadata, "labels": {**metadata["labels"], **_WITHIN}},
        "spec": {"template": {"metadata": {"labels": pod.labels, "annotations": notes}, "spec": spec}},
    }


def _fit(main: dict[str, Any]) -> None:
    """To what Knative takes: it has a probe of its own, sets PORT itself, and knows two names of the one port."""
    port, protocol = port_of(main)
    if main.get("readinessProbe", {}).get("tcpSocket") == {"port": port}:
        del main["readinessProbe"]
    main["env"] = [entry for entry in main["env"] if entry["name"] != "PORT"]
    main["ports"] = [{"containerPort": port, **({"name": protocol} if protocol in _PROTOCOLS else {})}]


def _scaling(asked: idl.AutoscalingConfig, idle: float) -> dict[str, str]:
    least = asked.replicas.min
    said = {"min-scale": str(least), "max-scale": str(max(1, least, asked.replicas.max))}
    if asked.HasField("scaledown_period"):
        said["window"] = f"{min(max(_SHORTEST_WINDOW, ceil(seconds(asked.scaledown_period))), _HOUR)}s"
    else:  # only when the last pod goes: a window so long would scale by load as slowly
        said["scale-to-zero-pod-retention-period"] = f"{min(ceil(idle), _HOUR)}s"
    match asked.scaling_metric.WhichOneof("metric"):
        case "concurrency":
            said |= {"metric": "concurrency", "target": str(asked.scaling_metric.concurrency.target_value)}
        case "request_rate":
            said |= {"metric": "rps", "target": str(asked.scaling_metric.request_rate.target_value)}
    return {f"{_SCALING}{name}": value for name, value in said.items()}


def status(app: App, service: Object | None, pods: Sequence[Object]) -> Told | None:
    """What is to be said of it; None: nothing new."""
    if not app.wanted:
        return Told(phase=Phase.DEPLOYMENT_STATUS_STOPPED) if service is None and not pods else None
    current = current_of(app, pods)
    conditions = _conditions(service)
    ready = conditions.get("Ready", {})
    if ready.get("status") == "True":
        if replicas := sum(map(is_ready, current)):
            return Told(phase=Phase.DEPLOYMENT_STATUS_ACTIVE, substate=Substate.RUNNING, replicas=replicas)
        awake = current or app.spec.autoscaling.replicas.min
        substate = Substate.SCALING_FROM_ZERO if awake else Substate.SCALED_TO_ZERO
        return Told(phase=Phase.DEPLOYMENT_STATUS_ACTIVE, substate=substate)
    made = conditions.get("ConfigurationsReady", {})  # the route's trouble, which may be told in Ready, comes of it
    why = made if made.get("status") == "False" else ready
    words = short(reading.text(why.get("message")) or reading.text(why.get("reason")))
    failed = Told(phase=Phase.DEPLOYMENT_STATUS_FAILED, message=words) if ready.get("status") == "False" else None
    return starting(app, current, failed=failed)


def address(service: Object) -> URL | None:
    """Where it is asked within the cluster; None before a revision of it was ready."""
    told = reading.mapping(service.get("status"))
    url = URL(reading.text(reading.mapping(told.get("address")).get("url")))
    return url if url.host and told.get("latestReadyRevisionName") else None


def _conditions(service: Object | None) -> dict[str, Mapping[str, Any]]:
    """By type, of the present generation: nothing is known of one that Knative has not seen."""
    told = reading.mapping((service or {}).get("status"))
    if service is None or told.get("observedGeneration") != service["metadata"].get("generation"):
        return {}
    return {reading.text(one.get("type")): one for one in reading.mappings(told.get("conditions"))}
