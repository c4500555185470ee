"""When the machine slept: a wall clock that runs ahead of the monotonic one tells."""

from __future__ import annotations

from flyte_unified.core.clock import SECOND, Clock, Micros
from flyte_unified.executor.reconcile import Sleep

_LEAST = 2 * SECOND
_REMEMBERED = 64


class Watch:
    """Looks whenever somebody asks for the time; made when the server starts. ``sleeps`` are the latest, oldest first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead = self._offset()
        self.sleeps: tuple[Sleep, ...] = ()

    def now(self) -> Micros:
        now, offset = self._clock.now(), self._offset()
        if offset - self._ahead > _LEAST:
            self.sleeps = (*self.sleeps[1 - _REMEMBERED :], Sleep(now, offset - self._ahead))
        self._ahead = offset
        return now

    def _offset(self) -> int:
        return self._clock.now() - int(self._clock.monotonic() * SECOND)
