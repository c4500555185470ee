"""The log of an attempt's container: read through the Kubernetes API, kept in the store so that it outlives pod and node.

It is kept as Kubernetes tells it, a time and a text to a line, under the attempt's own address: whoever follows it from the pod
goes on in the store where the pod left off. What is longer than its bound loses its middle.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from typing import NamedTuple

import structlog

from flyte_unified.core.clock import Clock
from flyte_unified.core.errors import FlyteUnifiedError
from flyte_unified.kube.client import Kube
from flyte_unified.kube.errors import Away, Invalid, KubeError, Missing, Silent, Throttled
from flyte_unified.kube.informer import pause
from flyte_unified.launchers.api import WorkId
from flyte_unified.launchers.kept_logs import Bounded, address, notice
from flyte_unified.launchers.objects.times import rfc3339
from flyte_unified.storage.api import DataStore

_log = structlog.get_logger(__name__)

_PARALLEL = 16
_SMALL = 1 << 20
"""Bytes of a log that are held for each of those read at one time; of one that is longer the rest waits for its turn."""
_LONGEST = 5.0
"""Seconds between two tries at most: the attempt's end waits for its log, and a node keeps that for a while only."""
_LAST_WORDS = 5.0
"""Seconds that a stream may take to end after its container has; and a log that was read early to be read again."""


class Place(NamedTuple):
    """A container whose output is an attempt's."""

    namespace: str
    pod: str
    container: str


@dataclass(frozen=True, slots=True)
class Early:
    """A log that is read while its container is being ended: what is deleted may be gone at once when it has ended."""

    log: Bounded
    reading: asyncio.Task[None]


class LogKeeper:
    """Keeps logs of at most ``limit`` bytes under ``base``; gives up a log after ``patience`` seconds of its node's silence."""

    def __init__(self, *, kube: Kube, store: DataStore, base: str, limit: int, clock: Clock, patience: float = 120.0) -> None:
        self._kube = kube
        self._store = store
        self._base = base
        self._limit = limit
        self._clock = clock
        self._patience = patience
        self._turns = asyncio.Semaphore(_PARALLEL)
        self._large = asyncio.Lock()

    def begin(self, place: Place) -> Early:
        """Reads on until the container ends. The caller passes it to ``keep``, or cancels it."""
        log = Bounded(min(self._limit, _SMALL))
        return Early(log, asyncio.create_task(self._once(place, log, follow=True), name=f"last words of {place.pod}"))

    async def keep(self, work: WorkId, place: Place, early: Early | None = None) -> None:
        """Returns when the log of a container that has ended is in the store, or what could not be had of it is told there.

        After an ``early`` reading that broke off not much is hoped for.
        """
        patience = self._patience if early is None else min(self._patience, _LAST_WORDS)
        if early is not None and await _ended(early):
            await self._put(work, early.log.content(), whole=True)
            return
        small = min(self._limit, _SMALL)
        async with self._turns:
            log, lost = await self._read(place, small, patience, stop=small < self._limit)
            if not log.lost or small == self._limit:
                await self._finish(work, log, lost, early)
                return
        async with self._large:
            log, lost = await self._read(place, self._limit, patience)
            await self._finish(work, log, lost, early)

    async def _finish(self, work: WorkId, log: Bounded, lost: str, early: Early | None) -> None:
        if lost and early is not None and early.log:
            log = early.log
        content = log.content()
        if lost:
            content += notice(rfc3339(self._clock.now()), f"the rest of the log is lost: {lost}") + b"\n"
        await self._put(work, content, whole=not lost)

    async def _read(self, place: Place, limit: int, patience: float, *, stop: bool = False) -> tuple[Bounded, str]:
        """The log, and why it is not whole. With ``stop``, no further than to where something has no room."""
        log = Bounded(limit)
        loop = asyncio.get_running_loop()
        waited, failures = 0.0, 0
        while True:
            began = loop.time()
            try:
                await self._once(place, log, stop=stop)
                return log, ""
            except Invalid:  # it never ran
                return log, ""
            except (Away, Throttled) as error:
                failures += 1
                wait = max(error.retry_after or 0.0, min(pause(failures), _LONGEST))
                # without an API server nothing ends, so that is waited for; a node is not for ever
                waited += loop.time() - began + wait if error.status or isinstance(error, Silent) else 0.0
                if waited > patience:
                    return log, error.message
                await asyncio.sleep(wait)
            except Missing:
                return log, f"pod {place.pod} was gone before it could be read"
            except KubeError as error:
                return log, error.message
            log = Bounded(limit)

    async def _once(self, place: Place, log: Bounded, *, follow: bool = False, stop: bool = False) -> None:
        lines = self._kube.logs(place.pod, namespace=place.namespace, container=place.container, follow=follow)
        async with aclosing(lines):
            async for line in lines:
                log.add(line)
                if stop and log.lost:
                    return

    async def _put(self, work: WorkId, content: bytes, *, whole: bool) -> None:
        """What is not whole replaces nothing: an earlier leader may have had more of it."""
        waited, failures = 0.0, 0
        while True:
            try:
                await self._store.put(address(self._base, work), content, if_absent=not whole)
            except FlyteUnifiedError as error:
                failures += 1
                waited += (wait := min(pause(failures), _LONGEST))
                if waited > self._patience:
                    _log.warning("a log is not kept", work=str(work), error=error.message)
                    return
                await asyncio.sleep(wait)
            else:
                return


async def _ended(early: Early) -> bool:
    """Whether the whole log was read."""
    await asyncio.wait((early.reading,), timeout=_LAST_WORDS)
    if not early.reading.done():
        early.reading.cancel()
        await asyncio.wait((early.reading,))
    return not early.reading.cancelled() and early.reading.exception() is None
