"""What the cluster tells of objects, as it tells it (core v1 Events), kept nowhere.

Events carry no labels of ours: those of all objects of the kind and namespace pass by here. So they are read one after the
other and never gathered; a cache of them, by which upstream grew out of its memory, would hold others' for an hour.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Protocol

import structlog

from flyte_unified.kube.client import Kube
from flyte_unified.kube.errors import Away, KubeError
from flyte_unified.kube.informer import pause
from flyte_unified.kube.kinds import EVENTS, Object

_log = structlog.get_logger(__name__)

_BRIEF = 1.0
"""Seconds below which a watch that ended with nothing has failed."""


class Heard(Protocol):
    def __call__(self, event: Object, /, *, new: bool) -> None: ...


class ClusterEvents:
    """Calls ``on_event`` with each Event of an object of ``kind``: those there are, and (``new``) those that come. May tell
    one again.

    What happens while the server is away may go untold: these are for people, and decide nothing.
    """

    def __init__(self, kube: Kube, *, kind: str, namespace: str, on_event: Heard) -> None:
        self._kube = kube
        self._kind = kind
        self._namespace = namespace
        self._fields = f"involvedObject.kind={kind}"
        self._on_event = on_event
        self._task: asyncio.Task[None] | None = None
        self._version = ""
        self._failures = 0

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"events of {self._kind}")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                if not self._version:
                    await self._list()
                await self._follow()
            except KubeError as error:
                self._failures += 1
                if self._failures == 1:
                    _log.info("events are followed no longer", kind=self._kind, error=error.message)
                if not isinstance(error, Away):
                    self._version = ""
                await asyncio.sleep(max(error.retry_after or 0.0, pause(self._failures)))

    async def _list(self) -> None:
        version = ""
        async with aclosing(self._kube.pages(EVENTS, namespace=self._namespace, fields=self._fields)) as pages:
            async for items, of in pages:
                version = of
                for event in items:
                    self._on_event(event, new=False)
        self._version = version

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        opened, news = loop.time(), 0
        watch = self._kube.watch(EVENTS, namespace=self._namespace, fields=self._fields, resource_version=self._version)
        async with aclosing(watch):
            async for change, event in watch:
                news += 1
                if news > 1:
                    self._failures = 0
                self._version = event["metadata"]["resourceVersion"]
                if change in ("ADDED", "MODIFIED"):
                    self._on_event(event, new=True)
        if news <= 1 and loop.time() - opened < _BRIEF:
            raise Away("the watch of events ended at once")
