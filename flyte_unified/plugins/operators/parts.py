"""What the families share: reading a task's custom message, what an end is, links."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from flyteidl2.core import execution_pb2
from google.protobuf import json_format
from google.protobuf.message import Message

from flyte_unified.core.clock import Micros
from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.phases import Phase
from flyte_unified.core.templates import render
from flyte_unified.kube.kinds import Kind
from flyte_unified.ledger.api import Failure
from flyte_unified.plugins import container as shared
from flyte_unified.plugins.api import Exit, Fault, State, TaskContext
from flyte_unified.plugins.pods.reading import mapping, mappings, moment, text

M = TypeVar("M", bound=Message)

_CLUSTERS_DOING = re.compile(
    r"exceeded quota|\bevict|preempt|node ?lost|node (is )?shut|disruption|connection (refused|reset)|timed? ?out waiting"
    r"|i/o timeout|context deadline|too ?many ?requests|service unavailable|internal error|etcd|failed calling webhook",
    re.IGNORECASE,
)
"""What operators hand on when the cluster failed them, not the task."""

Objects = Mapping[str, Any]


class Condition(NamedTuple):
    """One that holds."""

    reason: str
    message: str
    at: Micros | None


def custom(context: TaskContext, message: M) -> M:
    """The task's custom part, read into ``message``; fields of newer SDKs are passed over. Raises InvalidArgument."""
    written = json_format.MessageToDict(context.spec.task_template.custom)
    try:
        return json_format.ParseDict(written, message, ignore_unknown_fields=True)
    except json_format.ParseError as error:
        raise InvalidArgument(f"custom is no {message.DESCRIPTOR.name}: {error}") from error


def at_least(number: int, least: int, *, field: str) -> int:
    """``number``. Raises InvalidArgument if it is lower."""
    if number < least:
        raise InvalidArgument(f"custom.{field} is {number}; it has to be at least {least}")
    return number


def resource(kind: Kind, *, labels: Mapping[str, str], annotations: Mapping[str, str], spec: Objects) -> dict[str, Any]:
    """A manifest."""
    metadata = {"labels": dict(labels), "annotations": dict(annotations)}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": spec}


def links(context: TaskContext) -> tuple[execution_pb2.TaskLog, ...]:
    return shared.links(context, shared.variables(context))


def status(obj: Objects) -> Objects:
    return mapping(obj.get("status"))


def created(obj: Objects) -> Micros | None:
    return moment(mapping(obj.get("metadata")).get("creationTimestamp"))


def conditions(obj: Objects) -> dict[str, Condition]:
    """Those that hold, by type, the latest last."""
    holding = [entry for entry in mappings(status(obj).get("conditions")) if entry.get("status") == "True"]
    found = [
        (text(e.get("type")), Condition(text(e.get("reason")), text(e.get("message")), moment(e.get("lastTransitionTime"))))
        for e in holding
    ]
    return dict(sorted(found, key=lambda entry: entry[1].at or 0))


def succeeded(at: Micros | None, links: tuple[execution_pb2.TaskLog, ...] = ()) -> State:
    return State(phase=Phase.RUNNING, since=at, exit=Exit(code=0), links=links)


def failed(
    code: str,
    message: str,
    *,
    at: Micros | None,
    phase: Phase = Phase.RUNNING,
    failure: Failure | None = None,
    retryable: bool = True,
    links: tuple[execution_pb2.TaskLog, ...] = (),
) -> State:
    """``phase`` is how far it had come. Without ``failure`` the message tells whose it is."""
    whose = failure if failure is not None else blame(message)
    known = Fault(code=code, message=message, failure=whose, retryable=retryable)
    return State(phase=phase, since=at, reason=message, exit=Exit(fault=known), links=links)


def blame(message: str) -> Failure:
    return Failure.SYSTEM if _CLUSTERS_DOING.search(message) else Failure.USER


def told(*parts: str) -> str:
    return ": ".join(part for part in parts if part)


def address(template: str, obj: Objects, **more: str) -> str:
    """``template`` for one object; empty while it lacks what the object doesn't tell yet."""
    metadata = mapping(obj.get("metadata"))
    known = {"namespace": text(metadata.get("namespace")), "name": text(metadata.get("name"))} | more
    uri = render((template,), {name.lower(): value for name, value in known.items() if value})[0]
    return "" if "{{" in uri else uri


def dashboard(name: str, uri: str, *, ready: bool, live: bool = True) -> tuple[execution_pb2.TaskLog, ...]:
    """A link; none without an address. A ``live`` one is of use only while the task runs."""
    if not uri:
        return ()
    link = execution_pb2.TaskLog(
        name=name, uri=uri, ready=ready, link_type=execution_pb2.TaskLog.DASHBOARD, HideOnceFinished=live
    )
    return (link,)
