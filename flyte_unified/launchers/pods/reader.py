"""What a launcher reads in a pod, and what of a pod is worth its memory. What it means is ``plugins.pods``' to say."""

from __future__ import annotations

from typing import Any

from flyteidl2.workflow import run_definition_pb2

from flyte_unified.core.clock import SECOND, Micros
from flyte_unified.kube.kinds import Object
from flyte_unified.launchers.objects.identity import WORK
from flyte_unified.launchers.objects.logs import Place
from flyte_unified.plugins.api import State
from flyte_unified.plugins.pods import records
from flyte_unified.plugins.pods.config import Patience
from flyte_unified.plugins.pods.reading import PRIMARY, UPLOADER, read
from flyte_unified.plugins.pods.state import gone, state

_METADATA = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "finalizers",
)
_ANNOTATIONS = (WORK, PRIMARY, UPLOADER)
_SPEC = ("nodeName", "terminationGracePeriodSeconds")
_CONTAINER = ("name", "image", "restartPolicy")
_STATUS = ("phase", "reason", "message", "startTime")
_CONTAINER_STATUS = ("name", "started", "state")
_CONDITION = ("type", "status", "reason", "message", "lastTransitionTime")
_GRACE = 30
"""Kubernetes' own, where a pod says nothing."""


class PodReader:
    """``patience`` bounds trouble that may pass."""

    propagation = "Background"

    def __init__(self, patience: Patience) -> None:
        self._patience = patience

    def state(self, obj: Object, now: Micros) -> State:
        return state(obj, now=now, config=self._patience)

    def gone(self, obj: Object, now: Micros) -> State:
        return gone(now=now)

    def started(self, obj: Object) -> Micros | None:
        return records.started_at(obj)

    def where(self, obj: Object) -> str:
        return read(obj).node

    def details(self, obj: Object) -> run_definition_pb2.ActionAttempt | None:
        return records.details(obj)

    def place(self, obj: Object) -> Place | None:
        return place(obj)

    def lingers(self, obj: Object, now: Micros) -> Micros | None:
        """An image may be there a moment later."""
        facts = read(obj)
        if facts.over or (facts.main is not None and facts.main.ended is not None):
            return None
        if facts.deleted is not None and not facts.node:
            return None
        until = Micros((facts.deleted or now) + int(self._patience.lost * SECOND))
        return until if until > now else None

    def remains(self, obj: Object, *, faulty: bool) -> int | None:
        """Other containers; or all, of a pod that was given up."""
        facts = read(obj)
        if facts.over:
            return None
        if facts.deleted is None:
            grace = (obj.get("spec") or {}).get("terminationGracePeriodSeconds")
            return _GRACE if grace is None else int(grace)
        lost = facts.main is not None and facts.main.ended is None
        return 0 if lost else None  # its node will not say that it has ended

    async def locate(self, obj: Object) -> tuple[Place, run_definition_pb2.ActionAttempt] | None:
        """It is the pod itself."""
        return None


def place(pod: Object, container: str = "") -> Place | None:
    """``container``, or the primary one, if it has run."""
    facts = read(pod)
    for found in (*([facts.main] if facts.main else ()), *facts.others):
        if found.since is not None and found.name == (container or facts.primary):
            return Place(facts.namespace, facts.name, found.name)
    return None


def trim(pod: Object) -> Object:
    """Without what nobody here reads: most of a pod is its spec, and that is known by whoever made it."""
    metadata, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
    return {
        "metadata": {**_part(metadata, _METADATA), "annotations": _part(metadata.get("annotations") or {}, _ANNOTATIONS)},
        "spec": {
            **_part(spec, _SPEC),
            **{name: [_container(entry) for entry in spec.get(name) or ()] for name in ("containers", "initContainers")},
        },
        "status": {
            **_part(status, _STATUS),
            "conditions": [_part(entry, _CONDITION) for entry in status.get("conditions") or ()],
            **{
                name: [_part(entry, _CONTAINER_STATUS) for entry in status.get(name) or ()]
                for name in ("containerStatuses", "initContainerStatuses")
            },
        },
    }


def _container(spec: Object) -> Object:
    """Of the environment only what tells for which variable a secret is wanted."""
    secret = [entry for entry in spec.get("env") or () if "secretKeyRef" in (entry.get("valueFrom") or {})]
    return _part(spec, _CONTAINER) | ({"env": secret} if secret else {})


def _part(of: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: of[name] for name in names if name in of}
