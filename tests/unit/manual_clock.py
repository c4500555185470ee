"""A clock that a test sets."""

from __future__ import annotations

from flyte_unified.core.clock import SECOND, Micros


class ManualClock:
    """Stands still until ``pass_by``."""

    def __init__(self) -> None:
        self._now = 1_700_000_000 * SECOND

    def now(self) -> Micros:
        return Micros(self._now)

    def monotonic(self) -> float:
        return self._now / SECOND

    def pass_by(self, seconds: float) -> Micros:
        self._now += round(seconds * SECOND)
        return self.now()
