"""A component's events, as core v1 Events: said without waiting, told in order, and a repeated one counted instead of repeated.

An event is told on a best effort, as everywhere in Kubernetes: one that the server does not take is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools

import structlog

from flyte_unified.core.clock import Clock
from flyte_unified.kube.client import Kube
from flyte_unified.kube.errors import KubeError
from flyte_unified.kube.kinds import EVENTS
from flyte_unified.testing.kubelet.environment import Object
from flyte_unified.testing.kubelet.status import stamp

_log = structlog.get_logger(__name__)
_BOUND = 10_000
_REMEMBERED = 4096
_numbers = itertools.count(1)


class Recorder:
    """``component`` and ``host`` are the events' source."""

    def __init__(self, kube: Kube, *, component: str, host: str = "", clock: Clock) -> None:
        self._kube = kube
        self._source = {"component": component} | ({"host": host} if host else {})
        self._clock = clock
        self._queue: asyncio.Queue[Object] = asyncio.Queue(_BOUND)
        self._told: dict[tuple[str, ...], Object] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._tell(), name="kubelet events")

    async def stop(self, patience: float) -> None:
        """Tell what is left, for ``patience`` seconds at most."""
        if self._task is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._queue.join()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None

    def say(self, obj: Object, reason: str, message: str, *, container: str = "", warning: bool = False) -> None:
        """An event about ``obj``, or about one container of a pod (``container`` is a field path's last part, with braces)."""
        metadata = obj["metadata"]
        involved = {"apiVersion": "v1", "kind": obj.get("kind", "Pod"), "name": metadata["name"], "uid": metadata["uid"]}
        if metadata.get("namespace"):
            involved["namespace"] = metadata["namespace"]
        if container:
            involved["fieldPath"] = container
        with contextlib.suppress(asyncio.QueueFull):
            self._queue.put_nowait(self._event(involved, reason, message, "Warning" if warning else "Normal"))

    def _event(self, involved: Object, reason: str, message: str, kind: str) -> Object:
        now = self._clock.now()
        name = f"{involved['name']}.{now:x}{next(_numbers):04x}"
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": involved.get("namespace", "default")},
            "involvedObject": involved,
            "reason": reason,
            "message": message[:1024],
            "type": kind,
            "source": self._source,
            "reportingComponent": self._source["component"],
            "reportingInstance": self._source.get("host", ""),
            "firstTimestamp": stamp(now),
            "lastTimestamp": stamp(now),
            "count": 1,
        }

    async def _tell(self) -> None:
        while True:
            event = await self._queue.get()
            try:
                await self._tell_one(event)
            except KubeError as error:
                _log.debug("an event is dropped", error=error.message)
            finally:
                self._queue.task_done()

    async def _tell_one(self, event: Object) -> None:
        involved = event["involvedObject"]
        key = (involved["uid"], involved.get("fieldPath", ""), event["reason"], event["message"])
        namespace = event["metadata"]["namespace"]
        if earlier := self._told.get(key):
            earlier["count"] += 1
            change = {"count": earlier["count"], "lastTimestamp": event["lastTimestamp"]}
            await self._kube.patch(EVENTS, earlier["metadata"]["name"], change, namespace=namespace)
            return
        if len(self._told) >= _REMEMBERED:
            self._told.pop(next(iter(self._told)))
        await self._kube.create(EVENTS, event, namespace=namespace)
        self._told[key] = event
