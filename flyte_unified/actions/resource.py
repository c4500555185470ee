"""An action as a TaskAction, and what to do when the two differ. Pure.

The database is the truth and the resource its mirror, so every status that we write carries the version of the row that it
tells, and a digest of what it tells. A status that fits its digest is ours, of whatever age and whichever server wrote it: an
echo that means nothing. One that does not was written by another, and is judged by the table of legal moves.

Names, labels and finalizer are Flyte's (executor/api/v1, actions/k8s), but project and domain are part of the name, for runs of
two projects not to collide.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson
from flyteidl2.task import run_pb2, task_definition_pb2

from flyte_unified.actions.status import UNTOLD, Told, fields, moves, read_status, status_of, told_of
from flyte_unified.core.clock import SECOND, Micros
from flyte_unified.core.ids import ActionKey
from flyte_unified.core.names import order_name
from flyte_unified.kube.kinds import TASK_ACTIONS, Object
from flyte_unified.ledger.api import Action, ActionType, Move, Retry

FINALIZER = "flyte.org/plugin-finalizer"
"""It stands between a deletion and the object's end: time to abort the action."""

_OWN = "flyte.org/"
"""Labels that no run chooses."""
TERMINATED = f"{_OWN}termination-status"
"""``terminated`` on an object that only waits for its end."""
_COMPLETED = f"{_OWN}completed-time"
_MINUTE = "%Y-%m-%d.%H-%M"

_BOUND = 512 << 10
"""Bytes of a resource's large parts: a third of what etcd takes in one request."""
_ANNOTATIONS = 200 << 10
"""Bytes; an API server takes 256 KiB, ours and others' together."""
_LABELS = 64
_TEXT = 256
"""Characters of a name for people."""

_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_DOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A TaskAction as it is in the cluster, of which only this is kept."""

    key: ActionKey
    namespace: str
    name: str
    uid: str
    version: str
    """``resourceVersion``"""
    owner: str
    """The uid of its parent's; empty where it has none."""
    finalizers: tuple[str, ...]
    deleting: bool
    completed: str
    """Its label of when it was completed; empty until it is marked as terminated."""
    told: Told
    mark: str
    """Its ``status.recorded``"""

    @property
    def ours(self) -> bool:
        """Whether nobody else wrote its status since we did, or it has none yet."""
        return self.mark.rpartition("/")[2] == self.told.digest if self.mark else self.told == Told()

    def newer_than(self, other: Order) -> bool:
        """Versions of one object grow, as numbers (see ``kube.cache``)."""
        if self.uid == other.uid and self.version.isdecimal() and other.version.isdecimal():
            return int(self.version) > int(other.version)
        return self.version != other.version

    def reference(self, *, controller: bool = False) -> Object:
        """An ownerReference: what has it ends with this."""
        about = {"apiVersion": TASK_ACTIONS.api_version, "kind": TASK_ACTIONS.kind, "name": self.name, "uid": self.uid}
        return about | ({"controller": True} if controller else {}) | {"blockOwnerDeletion": True}


@dataclass(frozen=True, slots=True)
class Tell:
    """Another wrote the status: move the action."""

    steps: tuple[Move | Retry, ...]


@dataclass(frozen=True, slots=True)
class Patch:
    """A merge patch that demands the version it was made for."""

    body: Object
    subresource: str = ""


class Do(enum.Enum):
    """Steps without parameters."""

    CREATE = enum.auto()
    ABORT = enum.auto()
    """Somebody deletes the object of a live action."""
    REST = enum.auto()


Step = Tell | Patch | Do


def next_step(action: Action, order: Order | None, *, parent: str = "", judged: bool = False) -> Step:
    """What brings the resource to what the row says. ``parent`` is the uid of the parent's; ``judged``: its status was.

    A deleted object whose parent's object is another by now was not deleted by anybody but the cluster, which found it
    orphaned: it is let go, and made anew.
    """
    if order is None:
        return Do.REST if action.terminal else Do.CREATE
    if not action.terminal and order.deleting:
        if FINALIZER not in order.finalizers:
            return Do.REST
        return Patch(_released(order)) if order.owner and order.owner != parent else Do.ABORT
    if not (action.terminal or order.ours or judged) and (steps := moves(order.told, action)):
        return Tell(steps)
    if (changed := _status_patch(order, action)) is not None:
        return Patch(changed, subresource="status")
    if action.terminal and (FINALIZER in order.finalizers or not order.completed):
        return Patch(_ended(order, action))
    return Do.REST


# From an action to its resource


def new_order(
    action: Action,
    run_spec: run_pb2.RunSpec,
    task: task_definition_pb2.TaskSpec | None,
    *,
    namespace: str,
    parent: Order | None = None,
) -> tuple[Object, dict[str, bytes]]:
    """The object to create, and what is too large for it, by the address at which it says that it is.

    ``task`` is None for a condition.
    """
    key, kind = action.key, "condition" if action.action_type is ActionType.CONDITION else "task"
    labels = {
        f"{_OWN}project": key.project,
        f"{_OWN}domain": key.domain,
        f"{_OWN}run": key.run,
        f"{_OWN}action": key.name,
        f"{_OWN}action-type": kind,
        f"{_OWN}is-root": "false" if action.parent else "true",
    }
    metadata: Object = {
        "name": order_name(key),
        "namespace": namespace,
        "labels": _labels(run_spec.labels.values) | labels,
        "finalizers": [FINALIZER],
    }
    if annotations := _annotations(run_spec.annotations.values):
        metadata["annotations"] = annotations
    if parent is not None:
        metadata["ownerReferences"] = [parent.reference()]
    small = {
        "project": key.project,
        "domain": key.domain,
        "runName": key.run,
        "actionName": key.name,
        "parentActionName": action.parent,
        "actionType": kind,
        "taskType": action.task_type,
        "shortName": action.short_name[:_TEXT],
        "group": action.group_name[:_TEXT],
        "inputUri": action.input_uri,
        "runOutputBase": action.output_base,
        "cacheKey": action.cache_key,
    }
    spec: Object = {name: value for name, value in small.items() if value}
    if run_spec.HasField("interruptible"):
        spec["interruptible"] = run_spec.interruptible.value
    large, outside = _large_parts(action, run_spec, task)
    made = {"apiVersion": TASK_ACTIONS.api_version, "kind": TASK_ACTIONS.kind, "metadata": metadata, "spec": spec | large}
    return made, outside


def _large_parts(
    action: Action, run_spec: run_pb2.RunSpec, task: task_definition_pb2.TaskSpec | None
) -> tuple[Object, dict[str, bytes]]:
    """Each part in the object, or, the largest first, its address: content has one, whoever of the run needs it."""
    parts: dict[str, bytes] = {}
    if task is not None:
        parts["taskTemplate"] = task.task_template.SerializeToString(deterministic=True)
    elif action.spec:
        parts["conditionSpec"] = action.spec
    environment = {pair.key: pair.value for pair in run_spec.envs.values}
    if environment:
        parts["envVars"] = orjson.dumps(environment)
    outside: dict[str, bytes] = {}
    inside: Object = {}
    left = _BOUND
    for name, raw in sorted(parts.items(), key=lambda part: len(part[1])):
        left -= len(raw) if name == "envVars" else len(raw) * 4 // 3
        if left < 0:
            uri = f"{action.output_base.rstrip('/')}/_orders/{hashlib.sha256(raw).hexdigest()}"
            inside[f"{name}Uri"], outside[uri] = uri, raw
        else:
            inside[name] = environment if name == "envVars" else base64.b64encode(raw).decode()
    return inside, outside


def _labels(chosen: Mapping[str, str]) -> dict[str, str]:
    """What of a run's labels Kubernetes takes: a run is not to wait for ever for a label's sake."""
    fit = [
        (key, value)
        for key, value in sorted(chosen.items())
        if _is_key(key) and not key.startswith(_OWN) and (not value or _QUALIFIED.fullmatch(value))
    ]
    return dict(fit[:_LABELS])


def _annotations(chosen: Mapping[str, str]) -> dict[str, str]:
    fit = {key: value for key, value in chosen.items() if _is_key(key.lower())}
    return fit if sum(len(key.encode()) + len(value.encode()) for key, value in fit.items()) <= _ANNOTATIONS else {}


def _is_key(key: str) -> bool:
    prefix, slash, name = key.rpartition("/")
    return _QUALIFIED.fullmatch(name) is not None and (not slash or _DOMAIN.fullmatch(prefix) is not None)


# Changes of a resource


def _status_patch(order: Order, action: Action) -> Object | None:
    """Only what differs; None where nothing does."""
    told = told_of(action)
    if order.ours and told == (order.told if order.mark else UNTOLD):
        return None
    wanted = status_of(action)
    known, now = fields(order.told), fields(told)
    changed = {name: now.get(name) for name in known | now if known.get(name) != now.get(name)}
    for name in ("conditions", "phaseHistory", "recorded"):
        changed[name] = wanted[name]
    if "signalValue" in changed:
        changed["signalledAt"] = wanted.get("signalledAt")
    return {"metadata": {"resourceVersion": order.version}, "status": changed}


def _ended(order: Order, action: Action) -> Object:
    ended = action.ended_at if action.ended_at is not None else action.updated_at
    labels = {TERMINATED: "terminated", _COMPLETED: _date(ended).strftime(_MINUTE)}
    return _released(order, labels=labels)


def _released(order: Order, **metadata: Object) -> Object:
    others = [finalizer for finalizer in order.finalizers if finalizer != FINALIZER]
    return {"metadata": {"resourceVersion": order.version, "finalizers": others or None, **metadata}}


def completed_at(order: Order) -> Micros | None:
    """When it was completed, to the minute; None where its label does not say."""
    try:
        at = datetime.strptime(order.completed, _MINUTE).replace(tzinfo=UTC)
    except ValueError:
        return None
    return Micros(int(at.timestamp()) * SECOND)


# From a resource to its action


def read_order(obj: Object) -> Order:
    """Of any object that the API server took for a TaskAction."""
    metadata, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    owners = metadata.get("ownerReferences") or []
    labels = metadata.get("labels") or {}
    return Order(
        key=ActionKey(*(spec.get(name, "") for name in ("project", "domain", "runName", "actionName"))),
        namespace=metadata.get("namespace", ""),
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        version=metadata.get("resourceVersion", ""),
        owner=next((owner["uid"] for owner in owners if owner["kind"] == TASK_ACTIONS.kind), ""),
        finalizers=tuple(metadata.get("finalizers") or ()),
        deleting="deletionTimestamp" in metadata,
        completed=(labels.get(_COMPLETED) or "?") if TERMINATED in labels else "",
        told=read_status(status),
        mark=status.get("recorded", ""),
    )


def _date(at: int) -> datetime:
    return datetime.fromtimestamp(at // SECOND, UTC)
