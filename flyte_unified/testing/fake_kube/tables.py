"""Objects as rows, for people: what ``kubectl get`` shows is made by the server."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from flyte_unified.testing.fake_kube import versions
from flyte_unified.testing.fake_kube.resources import Object, Resource
from flyte_unified.testing.fake_kube.store import Record

_STEP = re.compile(
    r"\.?(?P<name>[\w-]+)|\['(?P<quoted>[^']+)'\]|\[(?P<index>\d+|\*)\]|\[\?\(@\.(?P<key>\w+)==\"(?P<value>[^\"]*)\"\)\]"
)
Column = tuple[str, str, Callable[[Object], Any], int]
"""Name, type, what stands in it, and its priority: above 0 is for wide output."""


def wanted(accept: str) -> bool:
    """Whether a client prefers a table."""
    first = accept.partition(",")[0]
    return "as=Table" in first and "g=meta.k8s.io" in first


def partial(accept: str) -> bool:
    """Whether a client wants of objects what all have in common, and no more."""
    return "as=PartialObjectMetadata" in accept.partition(",")[0]


def trimmed(body: bytes) -> bytes:
    """An object or a list, with no more of each object than its metadata."""
    content = orjson.loads(body)
    if content.get("kind") == "Status":
        return body
    if "items" in content:
        items = [{"metadata": item["metadata"]} for item in content["items"]]
        content = {"kind": "PartialObjectMetadataList", "metadata": content["metadata"], "items": items}
    else:
        content = {"kind": "PartialObjectMetadata", "metadata": content["metadata"]}
    return orjson.dumps({"apiVersion": "meta.k8s.io/v1", **content})


def table(resource: Resource, records: Iterable[Record], meta: Mapping[str, Any], include: str, *, head: bool = True) -> bytes:
    """A ``Table``. ``include`` says what of each object comes along: Object, Metadata or None."""
    columns = _columns(resource)
    rows = [_row(columns, versions.read(resource, record), include) for record in records]
    definitions = [
        {"name": name, "type": kind, "format": "name" if name == "Name" else "", "description": "", "priority": priority}
        for name, kind, _, priority in columns
    ]
    content = {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": meta,
        "columnDefinitions": definitions if head else None,
    }
    return orjson.dumps({**content, "rows": rows})


def _row(columns: tuple[Column, ...], content: Object, include: str) -> Object:
    row: Object = {"cells": [cell(content) for _, _, cell, _ in columns]}
    if include == "Object":
        row["object"] = content
    elif include != "None":
        row["object"] = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": content["metadata"]}
    return row


def age(text: Any) -> str:
    """How long ago a time stamp was, as short as kubectl says it."""
    if not text:
        return "<unknown>"
    seconds = max(int((datetime.now(UTC) - datetime.fromisoformat(str(text))).total_seconds()), 0)
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return f"{minutes}m{seconds % 60 or ''}{'s' if seconds % 60 else ''}"
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60 or ''}{'m' if minutes % 60 else ''}"
    return f"{hours}h" if days < 2 else f"{days}d" if days < 730 else f"{days // 365}y"


def look(content: Any, path: str) -> Any:
    """A JSONPath as printer columns use it: names, indices and ``[?(@.type=="Ready")]``."""
    for step in _STEP.finditer(path):
        if isinstance(content, list):
            content = _item(content, step)
        elif isinstance(content, dict):
            content = content.get(step["name"] or step["quoted"])
        else:
            return None
    return content


def _item(items: list[Any], step: re.Match[str]) -> Any:
    if step["key"]:
        return next((one for one in items if isinstance(one, dict) and str(one.get(step["key"])) == step["value"]), None)
    if step["index"] == "*":
        return items[0] if items else None
    return items[int(step["index"])] if step["index"] and int(step["index"]) < len(items) else None


def _path(path: str) -> Callable[[Object], Any]:
    return lambda content: look(content, path)


def _age(content: Object) -> str:
    return age(content["metadata"].get("creationTimestamp"))


def _count(*keys: str) -> Callable[[Object], int]:
    return lambda content: sum(len(content.get(key) or ()) for key in keys)


def _pod_ready(pod: Object) -> str:
    statuses = pod.get("status", {}).get("containerStatuses") or ()
    return f"{sum(1 for one in statuses if one.get('ready'))}/{len(pod['spec']['containers'])}"


def _pod_status(pod: Object) -> str:
    """The most telling word about a pod: why a container waits or ended, else the phase."""
    status = pod.get("status", {})
    word = status.get("reason") or status.get("phase", "Unknown")
    for one in status.get("containerStatuses") or ():
        state = one.get("state") or {}
        ended, waits = state.get("terminated"), state.get("waiting")
        if waits and waits.get("reason"):
            word = waits["reason"]
        elif ended:
            word = ended.get("reason") or f"ExitCode:{ended.get('exitCode', 0)}"
    if pod["metadata"].get("deletionTimestamp"):
        return "Unknown" if status.get("reason") == "NodeLost" else "Terminating"
    return str(word)


def _pod_restarts(pod: Object) -> str:
    return str(sum(one.get("restartCount", 0) for one in pod.get("status", {}).get("containerStatuses") or ()))


def _node_status(node: Object) -> str:
    ready = look(node, '.status.conditions[?(@.type=="Ready")].status')
    words = ["Ready" if ready == "True" else "NotReady" if ready else "Unknown"]
    return ",".join([*words, *(["SchedulingDisabled"] if node.get("spec", {}).get("unschedulable") else [])])


def _ports(service: Object) -> str:
    ports = service["spec"].get("ports") or ()
    return ",".join(f"{one.get('port')}/{one.get('protocol', 'TCP')}" for one in ports) or "<none>"


def _fraction(done: str, wanted_path: str) -> Callable[[Object], str]:
    return lambda content: f"{look(content, done) or 0}/{look(content, wanted_path) or 0}"


def _event_object(event: Object) -> str:
    about = event.get("involvedObject") or event.get("regarding") or {}
    return f"{str(about.get('kind', '')).lower()}/{about.get('name', '')}"


def _event_age(event: Object) -> str:
    return age(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp"))


_NAME: Column = ("Name", "string", _path(".metadata.name"), 0)
_AGE: Column = ("Age", "string", _age, 0)


def _text(name: str, path: str, priority: int = 0) -> Column:
    return (name, "string", lambda content: str(look(content, path) or "<none>"), priority)


_BUILTIN: Mapping[tuple[str, str], tuple[Column, ...]] = {
    ("", "pods"): (
        _NAME, ("Ready", "string", _pod_ready, 0), ("Status", "string", _pod_status, 0),
        ("Restarts", "string", _pod_restarts, 0), _AGE, _text("IP", ".status.podIP", 1), _text("Node", ".spec.nodeName", 1),
    ),
    ("", "namespaces"): (_NAME, _text("Status", ".status.phase"), _AGE),
    ("", "nodes"): (_NAME, ("Status", "string", _node_status, 0), _AGE, _text("Version", ".status.nodeInfo.kubeletVersion")),
    ("", "configmaps"): (_NAME, ("Data", "integer", _count("data", "binaryData"), 0), _AGE),
    ("", "secrets"): (_NAME, _text("Type", ".type"), ("Data", "integer", _count("data"), 0), _AGE),
    ("", "services"): (_NAME, _text("Type", ".spec.type"), _text("Cluster-IP", ".spec.clusterIP"),
                       ("Port(s)", "string", _ports, 0), _AGE),
    ("", "events"): (
        ("Last Seen", "string", _event_age, 0), _text("Type", ".type"), _text("Reason", ".reason"),
        ("Object", "string", _event_object, 0),
        ("Message", "string", lambda event: str(event.get("message") or event.get("note") or "").strip(), 0),
    ),
    ("apps", "deployments"): (_NAME, ("Ready", "string", _fraction(".status.readyReplicas", ".spec.replicas"), 0), _AGE),
    ("apps", "statefulsets"): (_NAME, ("Ready", "string", _fraction(".status.readyReplicas", ".spec.replicas"), 0), _AGE),
    ("apps", "replicasets"): (_NAME, ("Ready", "string", _fraction(".status.readyReplicas", ".spec.replicas"), 0), _AGE),
    ("batch", "jobs"): (_NAME, ("Completions", "string", _fraction(".status.succeeded", ".spec.completions"), 0), _AGE),
    ("coordination.k8s.io", "leases"): (_NAME, _text("Holder", ".spec.holderIdentity"), _AGE),
    ("apiextensions.k8s.io", "customresourcedefinitions"): (_NAME, _text("Created At", ".metadata.creationTimestamp")),
}  # fmt: skip


def _columns(resource: Resource) -> tuple[Column, ...]:
    if not resource.custom or not resource.columns:
        return _BUILTIN.get(resource.shelf, (_NAME, _AGE))
    return (_NAME, *(_custom(column) for column in resource.columns))


def _custom(column: Mapping[str, Any]) -> Column:
    path = column["jsonPath"]
    if column["type"] == "date":
        return (column["name"], "date", lambda content: age(look(content, path)), column.get("priority", 0))
    return (column["name"], column["type"], _path(path), column.get("priority", 0))
