"""Lines of attempts that ran as pods: from the store when they have ended, from the pod while they run. On any replica.

Where an attempt's output is stands in its record once it has started, so nothing is asked of the cluster before. A connection
that breaks is made again where it left off: kubelets go by whole seconds, so a reader remembers how many lines of the last ones
it was told, and passes over as many. The same count finds the place in the log that is kept when the pod has gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from flyteidl2.workflow import run_definition_pb2

from flyte_unified.core.ids import ActionKey
from flyte_unified.dataproxy.cursor import LogCursor
from flyte_unified.dataproxy.logs import Line, first
from flyte_unified.kube.client import Kube
from flyte_unified.kube.errors import KubeError
from flyte_unified.kube.informer import pause
from flyte_unified.launchers.api import WorkId
from flyte_unified.launchers.kept_logs import address
from flyte_unified.launchers.objects.logs import Place
from flyte_unified.ledger.api import Ledger
from flyte_unified.storage.api import DataStore

_BATCH = 256 * 1024
"""Bytes of a batch, and of what is read ahead."""


class PodLines:
    """The ``Lines`` of attempts whose logs are kept under ``base``."""

    def __init__(self, *, kube: Kube, ledger: Ledger, store: DataStore, base: str) -> None:
        self._kube = kube
        self._ledger = ledger
        self._store = store
        self._base = base

    async def follow(self, key: ActionKey, attempt: int, over: asyncio.Event) -> AsyncGenerator[Sequence[Line]]:
        uri = address(self._base, WorkId(key, attempt))
        cursor = LogCursor()
        failures = 0
        while True:
            ended = over.is_set()
            if await self._store.head(uri) is not None:
                async with aclosing(self._stored(uri, cursor)) as batches:
                    async for batch in batches:
                        yield batch
                await over.wait()
                return
            place = await self._place(key, attempt)
            if place is None:
                if ended:
                    return
                await first(self._begun(key, attempt, over), over)
                continue
            async with aclosing(self._live(place, cursor, over)) as batches:
                async for batch in batches:
                    failures = 0
                    yield batch
            if ended:
                return
            failures += 1
            await first(asyncio.sleep(pause(failures)), over)

    async def _place(self, key: ActionKey, attempt: int) -> Place | None:
        details = await self._ledger.details(key)
        return next((_place(record) for record in details.attempts if record.attempt == attempt), None)

    async def _begun(self, key: ActionKey, attempt: int, over: asyncio.Event) -> None:
        """Returns when the attempt's record says where its output is, or it never will."""
        async with aclosing(self._ledger.watch_action(key)) as states:
            async for action in states:
                if action.attempt == attempt and _place(action.latest()) is not None:
                    return
                if action.attempt > attempt:
                    break
        await over.wait()

    async def _stored(self, uri: str, cursor: LogCursor) -> AsyncGenerator[list[Line]]:
        cursor.again()
        rest = b""
        async for piece in self._store.read(uri):
            for start in range(0, len(piece), _BATCH):
                *lines, rest = (rest + piece[start : start + _BATCH]).split(b"\n")
                if batch := list(cursor.news(lines)):
                    yield batch
        if batch := list(cursor.news([rest] if rest else [])):
            yield batch

    async def _live(self, place: Place, cursor: LogCursor, over: asyncio.Event) -> AsyncGenerator[list[Line]]:
        """From the pod, until its container ends, the connection breaks, or the attempt is over.

        Of one that is over, what there is.
        """
        stream = _Stream()
        lines = self._kube.logs(
            place.pod,
            namespace=place.namespace,
            container=place.container,
            follow=not over.is_set(),
            since_time=cursor.again(),
        )
        reading = asyncio.create_task(stream.read(lines), name=f"log of {place.pod}")
        ending = None if over.is_set() else asyncio.create_task(_cancelled(reading, over), name=f"end of {place.pod}")
        try:
            async for taken in stream:
                if batch := list(cursor.news(taken)):
                    yield batch
        finally:
            for task in filter(None, (reading, ending)):
                task.cancel()
            await asyncio.gather(*filter(None, (reading, ending)), return_exceptions=True)


class _Stream:
    """Lines that have come, taken together; no more is read ahead than a batch."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._size = 0
        self._done = False
        self._more = asyncio.Event()
        self._room = asyncio.Event()

    async def read(self, lines: AsyncGenerator[bytes, None]) -> None:
        """A cluster that can't tell more ends it as the container's end does: the caller looks again."""
        try:
            async with aclosing(lines):
                async for line in lines:
                    self._lines.append(line)
                    self._size += len(line)
                    self._more.set()
                    if self._size >= _BATCH:
                        self._room.clear()
                        await self._room.wait()
        except KubeError:
            return
        finally:
            self._done = True
            self._more.set()

    def __aiter__(self) -> _Stream:
        return self

    async def __anext__(self) -> list[bytes]:
        await self._more.wait()
        if not self._lines and self._done:
            raise StopAsyncIteration
        taken, self._lines, self._size = self._lines, [], 0
        if not self._done:
            self._more.clear()
        self._room.set()
        return taken


def _place(record: run_definition_pb2.ActionAttempt) -> Place | None:
    context = record.log_context
    for pod in context.pods:
        if pod.pod_name == context.primary_pod_name or not context.primary_pod_name:
            first = pod.containers[0].container_name if pod.containers else ""
            return Place(pod.namespace, pod.pod_name, pod.primary_container_name or first)
    return None


async def _cancelled(reading: asyncio.Task[None], over: asyncio.Event) -> None:
    await over.wait()
    reading.cancel()
