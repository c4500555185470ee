"""Standing for election again and again, also after terms that failed.

A term that fails as soon as it begins would fail again at once, and take the lead from a replica that fares better: so a server
that fails stands for it less and less often, until one of its terms is under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from flyte_unified.core.errors import FlyteUnifiedError
from flyte_unified.kube.errors import Forbidden

_log = structlog.get_logger(__name__)

_SHORTEST, _LONGEST = 2.0, 120.0
"""Seconds"""


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
        while True:
            error: Exception | None = None
            try:
                await self._run()
            except Exception as failed:  # whatever it is, the next term may do better
                error = failed
            self._failures += 1
            pause = min(_LONGEST, _SHORTEST * 2.0 ** min(self._failures - 1, 16))
            _tell(error, pause)
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
