"""What a pod and its events say to people: the log context of an attempt, its cluster events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flyteidl2.core import execution_pb2
from flyteidl2.workflow import run_definition_pb2

from flyte_unified.core.clock import Micros, timestamp
from flyte_unified.plugins.pods.reading import Container, Facts, mapping, moment, read, text, whole

_TYPES = {
    "Normal": run_definition_pb2.ClusterEvent.TYPE_NORMAL,
    "Warning": run_definition_pb2.ClusterEvent.TYPE_WARNING,
}


def started_at(pod: Mapping[str, Any]) -> Micros | None:
    """When the primary container began to run; None if it has not."""
    main = read(pod).main
    return main.since if main is not None else None


def log_context(pods: Iterable[Mapping[str, Any]], *, primary: str = "") -> execution_pb2.LogContext:
    """The containers of ``pods`` and when they ran. ``primary`` names the pod whose log is the attempt's; else the first."""
    parts = [_pod(read(pod)) for pod in pods]
    first = parts[0].pod_name if parts else ""
    return execution_pb2.LogContext(pods=parts, primary_pod_name=primary or first)


def details(pod: Mapping[str, Any]) -> run_definition_pb2.ActionAttempt:
    """What an attempt's record takes from its pod; equal for equal pods, so that what is told again is kept once."""
    context = log_context([pod])
    began = any(c.process.HasField("container_start_time") for part in context.pods for c in part.containers)
    return run_definition_pb2.ActionAttempt(log_context=context, logs_available=began)


def cluster_event(event: Mapping[str, Any]) -> run_definition_pb2.ClusterEvent | None:
    """A core v1 Event (or one of events.k8s.io/v1) as the console shows it; None for one that says nothing.

    It bears the time of its first occurrence, as the cluster counts repetitions up in the same object.
    """
    message, reason = text(event.get("message")) or text(event.get("note")), text(event.get("reason"))
    if not (message or reason):
        return None
    times = (event.get(key) for key in ("firstTimestamp", "eventTime", "deprecatedFirstTimestamp", "lastTimestamp"))
    created = mapping(event.get("metadata")).get("creationTimestamp")
    at = next((found for value in (*times, created) if (found := moment(value)) is not None), None)
    count = whole(mapping(event.get("series")).get("count")) or whole(event.get("count")) or 1
    return run_definition_pb2.ClusterEvent(
        occurred_at=timestamp(at) if at is not None else None,
        message=message or reason,
        type=_TYPES.get(text(event.get("type")), run_definition_pb2.ClusterEvent.TYPE_UNSPECIFIED),
        reason=reason,
        source_component=text(mapping(event.get("source")).get("component")) or text(event.get("reportingComponent")),
        count=count,
    )


def _pod(facts: Facts) -> execution_pb2.PodLogContext:
    main = (facts.main,) if facts.main is not None else ()
    return execution_pb2.PodLogContext(
        namespace=facts.namespace,
        pod_name=facts.name,
        primary_container_name=facts.primary,
        containers=[_container(container) for container in (*main, *facts.others)],
        init_containers=[_container(container) for container in facts.inits],
    )


def _container(container: Container) -> execution_pb2.ContainerContext:
    context = execution_pb2.ContainerContext(container_name=container.name)
    if container.since is not None:
        context.process.container_start_time.CopyFrom(timestamp(container.since))
    if container.ended is not None and container.ended.finished is not None:
        context.process.container_end_time.CopyFrom(timestamp(container.ended.finished))
    return context
