"""Ends tracked runs of which nothing is heard any more: a client that was killed has told nobody.

The SDK sends no heartbeat, only what happens, so silence has to be long to mean anything. What is reported after all is refused
as of any run that was aborted. Every server may do this, as a run is aborted once, whoever does it.
"""

from __future__ import annotations

import asyncio

import structlog

from flyte_unified.core.clock import SECOND, Clock
from flyte_unified.core.errors import FlyteUnifiedError
from flyte_unified.ledger.api import Ledger
from flyte_unified.tracked import store

_log = structlog.get_logger(__name__)

_LEAST = 60.0
"""Seconds between two looks."""


class Silence:
    """``limit`` is how long (seconds) a run may be silent; 0: for ever."""

    def __init__(self, *, ledger: Ledger, clock: Clock, limit: float) -> None:
        self._ledger = ledger
        self._clock = clock
        self._limit = limit
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._limit:
            self._task = asyncio.create_task(self._run(), name="silence of tracked runs")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _run(self) -> None:
        while True:
            try:
                wait = await self._look()
            except Exception as error:  # whatever it is: nobody else would look
                foreseen = isinstance(error, FlyteUnifiedError)
                _log.warning("tracked runs could not be looked at; they will be", error=str(error), exc_info=not foreseen)
                wait = _LEAST
            await asyncio.sleep(max(wait, _LEAST))

    async def _look(self) -> float:
        """Aborts the runs that are silent for too long. Seconds until another may be; a run to come has all its time."""
        wait = self._limit
        for run, heard in await self._ledger.read(store.heard):
            left = self._limit - (self._clock.now() - heard) / SECOND
            if left > 0:
                wait = min(wait, left)
                continue
            reason = f"nothing was reported for {self._limit:g} s (tracked.silence): its client seems to be gone"
            await self._ledger.abort_run(run, reason=reason)
        return wait
