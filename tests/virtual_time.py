"""An event loop whose clock jumps to the next timer when nothing is left to do, so that hours pass in no time.

Select it with ``@pytest.mark.virtual_time``. Real files and sockets work too, but a timer does not wait for them: only
work in the loop's own executors holds the clock. A loop that is idle without any timer is dead and says so.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from typing import Any

from flyte_unified.core.clock import SECOND, Micros

EPOCH = Micros(1_700_000_000 * SECOND)
"""The wall time at which a virtual loop begins."""

_DEAD_AFTER = 5.0
"""Real seconds that an idle loop without timers waits for the outside before it is called dead."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """``time()`` begins at 0 and moves only when the loop is idle."""

    def __init__(self) -> None:
        self._virtual_now = 0.0
        self._in_executors = 0
        self._real = selectors.DefaultSelector()
        super().__init__(_JumpingSelector(self._real, self._idle))

    def time(self) -> float:
        return self._virtual_now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = super().run_in_executor(executor, func, *args)
        self._in_executors += 1
        future.add_done_callback(self._left_executor)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Without the timeout, which would be over before a thread could end."""
        await super().shutdown_default_executor()

    def _left_executor(self, _: asyncio.Future[Any]) -> None:
        self._in_executors -= 1

    def _idle(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        if ready := self._real.select(0):
            return ready
        if self._in_executors:
            return self._real.select(None)
        if timeout is not None:
            self._virtual_now += timeout
            return []
        if ready := self._real.select(_DEAD_AFTER):
            return ready
        raise RuntimeError("the loop is idle and has no timer: what the test waits for will never happen")


class _JumpingSelector(selectors.BaseSelector):
    """The real selector, but one that asks ``idle`` before it would block."""

    def __init__(
        self,
        real: selectors.BaseSelector,
        idle: Callable[[float | None], list[tuple[selectors.SelectorKey, int]]],
    ) -> None:
        self._real = real
        self._wait = idle

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return self._real.select(0)
        return self._wait(timeout)

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Any:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


class LoopClock:
    """A ``core.clock.Clock`` that follows the running loop: virtual in a virtual loop."""

    def now(self) -> Micros:
        return Micros(EPOCH + round(self.monotonic() * SECOND))

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()
