"""Standing for election again and again, also after terms that failed.

A term that fails as soon as it begins would fail again at once, and take the lead from a replica that fares better: so a server
that fails stands for it less and less often, until one of its terms is under way, or it has stood for a while.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from flyte_unified.core.errors import FlyteUnifiedError
from flyte_unified.kube.errors import Forbidden

_log = structlog.get_logger(__name__)

_SHORTEST, _LONGEST = 2.0, 60.0
"""Seconds"""
_JITTER = 0.2
"""Of a pause, up to so much of it more: replicas that fail together are not to come back together."""


class Campaign:
    """``run`` stands for election and leads, and raises what ended a term of ours."""

    def __init__(self, run: Callable[[], Awaitable[None]]) -> None:
        self._run = run
        self._failures = 0

    def under_way(self) -> None:
        """This term did begin."""
        self._failures = 0

    async def last(self) -> None:
        """Until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            error: Exception | None = None
            began = loop.time()
            try:
                await self._run()
            except Exception as failed:  # whatever it is, the next term may do better
                error = failed
            if loop.time() - began > _LONGEST:
                self._failures = 0
            self._failures += 1
            pause = min(_LONGEST, _SHORTEST * 2.0 ** min(self._failures - 1, 16)) * random.uniform(1.0, 1.0 + _JITTER)
            _tell(error, round(pause, 1))
            await asyncio.sleep(pause)


def _tell(error: Exception | None, pause: float) -> None:
    if isinstance(error, Forbidden) and error.right:
        _log.error(
            f"this server can't lead: its account may not {error.right}; config/kubernetes gives that right",
            error=error.message,
            again_in=pause,
        )
    elif isinstance(error, FlyteUnifiedError):
        _log.warning("a term ended", error=error.message, again_in=pause)
    elif error is not None:
        _log.error("a term failed", exc_info=error, again_in=pause)
