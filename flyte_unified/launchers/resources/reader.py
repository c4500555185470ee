"""What a launcher reads in an operator's resource: what its plugin says, its deletion, and which pod has its log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from flyteidl2.workflow import run_definition_pb2

from flyte_unified.core.clock import SECOND, Micros
from flyte_unified.core.phases import Phase
from flyte_unified.kube.client import Kube
from flyte_unified.kube.kinds import PODS, Kind, Object
from flyte_unified.launchers.objects.identity import FINALIZER
from flyte_unified.launchers.objects.logs import Place
from flyte_unified.launchers.objects.times import parsed
from flyte_unified.launchers.pods.reader import place
from flyte_unified.launchers.resources.leaders import Leaders
from flyte_unified.ledger.api import Failure
from flyte_unified.plugins.api import Exit, Fault, Resource, State
from flyte_unified.plugins.pods import records

_LOG_PODS = "flyte.org/log-pods"
_LOG_CONTAINER = "flyte.org/log-container"
"""Annotations: the labels of the pods of which the first has the log, and its container. The next leader has only these."""


def notes(work: Resource, name: str) -> dict[str, str]:
    """The annotations of a resource that is called ``name``."""
    labels = ",".join(f"{label}={value}" for label, value in work.pod_labels(name).items())
    return {_LOG_PODS: labels} | ({_LOG_CONTAINER: work.container} if work.container else {})


class ResourceReader:
    """``told`` is the plugin's, ``leaders`` the pods without which it can't begin; ``lost`` is how many seconds what a deleted
    resource made may take to go.

    A resource is deleted in the foreground: our finalizer would otherwise keep it, and with it what it made, running.
    """

    propagation = "Foreground"

    def __init__(
        self, *, kube: Kube, kind: Kind, told: Callable[[Mapping[str, Any]], State], leaders: Leaders, lost: float
    ) -> None:
        self._kube = kube
        self._kind = kind
        self._told = told
        self._leaders = leaders
        self._lost = lost

    def state(self, obj: Object, now: Micros) -> State:
        told = self._told(obj)
        metadata = obj["metadata"]
        if "deletionTimestamp" not in metadata:
            return self._held_up(obj, told, now)
        given_up = Micros((parsed(metadata["deletionTimestamp"]) or now) + int(self._lost * SECOND))
        if any(name != FINALIZER for name in metadata.get("finalizers") or ()) and now < given_up:
            return replace(told, exit=None, again=given_up)
        return told if told.exit is not None else self.gone(obj, now)

    def _held_up(self, obj: Object, told: State, now: Micros) -> State:
        """``told``, unless pods say why it is no further than that."""
        if told.exit is not None or told.phase is Phase.RUNNING:
            return told
        held = self._leaders.holding_up(obj["metadata"]["namespace"], obj["metadata"]["name"], now)
        return told if held is None or not (held.reason or held.exit) else replace(held, links=told.links)

    def gone(self, obj: Object, now: Micros) -> State:
        message = f"the {self._kind.kind} {obj['metadata']['name']} was deleted before it had ended"
        fault = Fault(code=f"{self._kind.kind}Deleted", message=message, failure=Failure.SYSTEM)
        return replace(self._told(obj), since=now, exit=Exit(fault=fault), again=None)

    def started(self, obj: Object) -> Micros | None:
        """Known from its state."""
        return None

    def where(self, obj: Object) -> str:
        return f"{self._kind.kind} {obj['metadata']['name']}"

    def details(self, obj: Object) -> run_definition_pb2.ActionAttempt | None:
        """Those of its pod come with ``locate``."""
        return None

    def place(self, obj: Object) -> Place | None:
        return None

    def lingers(self, obj: Object, now: Micros) -> Micros | None:
        """What is given up for its pods' sake; of a failure that its operator tells nothing comes."""
        if "deletionTimestamp" in obj["metadata"] or self._told(obj).exit is not None:
            return None
        return Micros(now + int(self._lost * SECOND))

    def remains(self, obj: Object, *, faulty: bool) -> int | None:
        """What has ended of itself its operator tidies up."""
        return 0 if faulty and "deletionTimestamp" not in obj["metadata"] else None

    async def locate(self, obj: Object) -> tuple[Place, run_definition_pb2.ActionAttempt] | None:
        annotations = obj["metadata"].get("annotations") or {}
        if not (labels := annotations.get(_LOG_PODS)):
            return None
        pods: list[Object] = []
        async with aclosing(self._kube.pages(PODS, namespace=obj["metadata"]["namespace"], labels=labels)) as pages:
            async for items, _ in pages:
                pods += items
        if not pods:
            return None
        pod = min(pods, key=lambda pod: (pod["metadata"].get("creationTimestamp", ""), pod["metadata"]["name"]))
        found = place(pod, annotations.get(_LOG_CONTAINER, ""))
        if found is None:
            return None
        context = records.log_context([pod], primary=found.pod)
        context.pods[0].primary_container_name = found.container
        return found, run_definition_pb2.ActionAttempt(log_context=context, logs_available=True)
