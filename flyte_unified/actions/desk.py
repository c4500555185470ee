"""Keys to be looked at, each by one worker at a time: what a controller's work queue is.

Who changes something about a key pokes it; whoever works on it looks at its latest state, so that changes in between count
as one. A key whose work failed is left alone for a growing, bounded and jittered time, whatever happens to it meanwhile.
Times of all keys hang on one timer, and nothing runs while there is nothing to do.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Awaitable, Callable, Hashable
from itertools import count
from typing import Generic, TypeVar, cast

import structlog

from flyte_unified.core.errors import FlyteUnifiedError, Unavailable
from flyte_unified.kube.errors import Away, Conflict, KubeError, Missing, Throttled

_log = structlog.get_logger(__name__)

_SHORTEST, _LONGEST = 0.05, 30.0
"""Seconds between two tries, before jitter."""
_NOTED = 6
"""Failures in a row at which what passes by itself is logged."""
_PASSING = (Away, Conflict, Missing, Throttled, Unavailable)

K = TypeVar("K", bound=Hashable)


class Desk(Generic[K]):
    """Calls ``work(key)`` for what was poked, at most ``width`` at one time. ``name`` is for logs."""

    def __init__(self, work: Callable[[K], Awaitable[None]], *, name: str, width: int) -> None:
        self._work = work
        self._name = name
        self._width = width
        self._ready: dict[K, None] = {}
        self._busy: set[K] = set()
        self._again: set[K] = set()
        self._failures: dict[K, int] = {}
        self._resting: set[K] = set()
        self._later: list[tuple[float, int, K]] = []
        self._numbers = count()
        self._timer: asyncio.TimerHandle | None = None
        self._workers: set[asyncio.Task[None]] = set()
        self._closed = False

    def poke(self, key: K) -> None:
        """Look at it soon, or at the end of the time for which it is left alone."""
        if key in self._busy:
            self._again.add(key)
        elif key not in self._resting:
            self._start(key)

    def later(self, key: K, seconds: float) -> None:
        """Look at it then too."""
        entry = (asyncio.get_running_loop().time() + max(0.0, seconds), next(self._numbers), key)
        heapq.heappush(self._later, entry)
        if self._later[0] is entry:
            self._arm()

    def rest(self, key: K, failures: int) -> None:
        """Leave it alone, as if so many tries in a row had failed."""
        self._resting.add(key)
        self.later(key, pause(failures))

    async def close(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        workers = list(self._workers)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    def _start(self, key: K) -> None:
        self._ready[key] = None
        if len(self._workers) < self._width and not self._closed:
            self._workers.add(asyncio.create_task(self._serve(), name=f"{self._name} worker"))

    async def _serve(self) -> None:
        try:
            await self._empty()
        finally:  # at once, for what is poked next to find its worker
            self._workers.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _empty(self) -> None:
        while self._ready:
            key = next(iter(self._ready))
            del self._ready[key]
            self._busy.add(key)
            try:
                await self._work(key)
                self._failures.pop(key, None)
            except Exception as error:
                self._failed(key, error)
            finally:
                self._busy.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.poke(key)

    def _failed(self, key: K, error: Exception) -> None:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        if not isinstance(error, FlyteUnifiedError):
            _log.exception("a step failed; it will be tried again", desk=self._name, key=str(key))
        elif failures == (_NOTED if isinstance(error, _PASSING) else 1):
            _log.warning("not done yet; it will be tried again", desk=self._name, key=str(key), error=error.message)
        self._resting.add(key)
        told = error.retry_after if isinstance(error, KubeError) else None
        self.later(key, max(told or 0.0, pause(failures)))

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if self._later and not self._closed:
            self._timer = asyncio.get_running_loop().call_at(self._later[0][0], self._tick)

    def _tick(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._later and self._later[0][0] <= now:
            key = heapq.heappop(self._later)[2]
            self._resting.discard(key)
            self.poke(key)
        self._arm()


def pause(failures: int) -> float:
    """Seconds to wait after so many failures in a row: growing, bounded, and not the same for all."""
    return min(_LONGEST, _SHORTEST * 2.0 ** min(failures - 1, 16)) * random.uniform(0.5, 1.0)
