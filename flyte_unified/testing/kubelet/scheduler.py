"""Binds pods to nodes, for API servers that have no scheduler. One pod after the other, by priority and age, first fit.

What keeps a pod from every node is told in kube-scheduler's own words, since programs read them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from fractions import Fraction
from typing import Any

import structlog

from flyte_unified.core.clock import Clock, SystemClock
from flyte_unified.kube.client import Kube
from flyte_unified.kube.errors import KubeError, Missing
from flyte_unified.kube.informer import Informer
from flyte_unified.kube.kinds import NODES, PODS, Kind, Object, key_of
from flyte_unified.testing.kubelet.affinity import selected, untolerated
from flyte_unified.testing.kubelet.events import Recorder
from flyte_unified.testing.kubelet.quantities import Amounts, added, amounts, needs
from flyte_unified.testing.kubelet.services import Backoff
from flyte_unified.testing.kubelet.status import stamp

_log = structlog.get_logger(__name__)
_NAME = "default-scheduler"
_STOP_SECONDS = 2.0


class _Binding(Kind):
    """The subresource of one pod, as a kind whose collection it is."""

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        return PODS.path(namespace, self.plural, "binding")


class Scheduler:
    """``name`` is the schedulerName of the pods that it serves."""

    def __init__(self, kube: Kube, *, name: str = _NAME, clock: Clock | None = None) -> None:
        self._kube = kube
        self._name = name
        self._clock = clock or SystemClock()
        self._events = Recorder(kube, component=name, clock=self._clock)
        self._pods = Informer(kube, PODS, on_event=self._hear)
        self._nodes = Informer(kube, NODES, on_event=self._hear)
        self._news = asyncio.Event()
        self._bound: dict[str, str] = {}
        """Where pods are bound to whose objects do not say so yet, by uid."""
        self._told: dict[str, str] = {}
        """What was last said of a pod that fits nowhere, by uid."""
        self._backoff = Backoff(0.2, 10.0)
        self._task: asyncio.Task[None] | None = None

    @classmethod
    @asynccontextmanager
    async def running(cls, kube: Kube, **options: Any) -> AsyncGenerator[Scheduler]:
        scheduler = cls(kube, **options)
        await scheduler.start()
        try:
            yield scheduler
        finally:
            await scheduler.stop()

    async def start(self) -> None:
        await self._nodes.start()
        await self._pods.start()
        self._events.start()
        self._task = asyncio.create_task(self._run(), name=self._name)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._pods.stop()
        await self._nodes.stop()
        await self._events.stop(_STOP_SECONDS)

    def _hear(self, change: str, obj: Object) -> None:
        if change == "DELETED":
            self._bound.pop(obj["metadata"]["uid"], None)
            self._told.pop(obj["metadata"]["uid"], None)
        self._news.set()

    async def _run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self._round()
            except KubeError as error:
                _log.warning("pods wait for a node", error=error.message)
                await asyncio.sleep(max(error.retry_after or 0.0, self._backoff.next()))
                self._news.set()
            else:
                self._backoff.reset()

    async def _round(self) -> None:
        """Every pod that waits, once."""
        pending = [pod for pod in self._pods if self._waits(pod)]
        if not pending:
            return
        used = self._used()
        for pod in sorted(pending, key=lambda p: (-(p["spec"].get("priority") or 0), p["metadata"]["creationTimestamp"])):
            fitting, why = self._fitting(pod, used)
            if fitting is None:
                await self._tell(pod, why)
            elif await self._bind(pod, fitting):
                used[fitting] = added([used[fitting], needs(pod), _ONE])

    def _waits(self, pod: Object) -> bool:
        spec, metadata = pod["spec"], pod["metadata"]
        return (
            not spec.get("nodeName")
            and metadata["uid"] not in self._bound
            and not metadata.get("deletionTimestamp")
            and not spec.get("schedulingGates")
            and spec.get("schedulerName", _NAME) == self._name
            and (pod.get("status") or {}).get("phase", "Pending") == "Pending"
        )

    def _used(self) -> dict[str, Amounts]:
        used: dict[str, Amounts] = {node["metadata"]["name"]: {} for node in self._nodes}
        for pod in self._pods:
            uid = pod["metadata"]["uid"]
            where = pod["spec"].get("nodeName") or self._bound.get(uid)
            if pod["spec"].get("nodeName"):
                self._bound.pop(uid, None)
            if where in used and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
                used[where] = added([used[where], needs(pod), _ONE])
        return used

    def _fitting(self, pod: Object, used: dict[str, Amounts]) -> tuple[str | None, str]:
        """A node for ``pod``, or why there is none."""
        asked = added([needs(pod), _ONE])
        reasons: Counter[str] = Counter()
        for node in self._nodes:
            name = node["metadata"]["name"]
            if not (why := _unfit(pod, node, asked, used.get(name, {}))):
                return name, ""
            reasons.update(why)
        count = len(self._nodes)
        if not count:
            return None, "no nodes available to schedule pods"
        told = ", ".join(sorted(f"{times} {reason}" for reason, times in reasons.items()))
        short = all(reason.startswith("Insufficient") for reason in reasons)
        hope = "No preemption victims found for incoming pod." if short else "Preemption is not helpful for scheduling."
        return None, f"0/{count} nodes are available: {told}. preemption: 0/{count} nodes are available: {count} {hope}"

    async def _bind(self, pod: Object, node: str) -> bool:
        namespace, name = key_of(pod)
        uid = pod["metadata"]["uid"]
        kind = _Binding("", "v1", "Binding", name)
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        metadata = {"name": name, "namespace": namespace, "uid": uid}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": target}
        self._bound[uid] = node
        try:
            await self._kube.create(kind, binding, namespace=namespace)
        except Missing:
            return False
        except KubeError:  # a Conflict too: somebody else may have bound it, or not, which the informer will tell
            del self._bound[uid]
            raise
        self._told.pop(uid, None)
        self._events.say(pod, "Scheduled", f"Successfully assigned {namespace}/{name} to {node}")
        return True

    async def _tell(self, pod: Object, why: str) -> None:
        """That no node fits, when that is new."""
        uid = pod["metadata"]["uid"]
        if self._told.get(uid) == why:
            return
        namespace, name = key_of(pod)
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why}
        others = [c for c in (pod.get("status") or {}).get("conditions") or () if c["type"] != "PodScheduled"]
        condition["lastTransitionTime"] = stamp(self._clock.now())
        patch = {"metadata": {"uid": uid}, "status": {"conditions": [*others, condition]}}
        try:
            await self._kube.patch(PODS, name, patch, namespace=namespace, subresource="status")
        except Missing:
            return
        self._told[uid] = why
        self._events.say(pod, "FailedScheduling", why, warning=True)


_ONE: Amounts = {"pods": Fraction(1)}


def _unfit(pod: Object, node: Object, asked: Amounts, used: Amounts) -> list[str]:
    """Why ``pod`` cannot go to ``node``, in kube-scheduler's words; its filters' first refusal counts."""
    if node["spec"].get("unschedulable"):
        return ["node(s) were unschedulable"]
    if taint := untolerated(pod, node):
        return [f"node(s) had untolerated taint(s) {{{taint['key']}: {taint.get('value', '')}}}"]
    if not selected(pod, node):
        return ["node(s) didn't match Pod's node affinity/selector"]
    status = node.get("status") or {}
    if not any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ()):
        return ["node(s) had untolerated taint(s) {node.kubernetes.io/not-ready: }"]
    room = amounts(status.get("allocatable"))
    short = [n for n, amount in asked.items() if amount and used.get(n, Fraction(0)) + amount > room.get(n, Fraction(0))]
    return ["Too many pods" if name == "pods" else f"Insufficient {name}" for name in short]
