"""A server that shall take no more work, before it is stopped or looked after.

Calls are answered, so what runs can go on to its end; a load balancer sees ``/readyz`` say no, and runs that come nonetheless
are kept for when the server, or the next, begins again. Nothing of it outlives the process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from flyte_unified.planes.api import Plane


class Drain:
    """``on`` from when nothing new begins."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self.on = False

    async def set(self, on: bool) -> None:
        self.on = on
        await self._plane.drain(on)

    async def left(self) -> AsyncIterator[int]:
        """How many actions still have a process here, and again whenever it is another number; ends with 0."""
        last = -1
        if (controller := self._plane.controller) is not None:
            async for count in controller.processes():
                if count != last:
                    yield (last := count)
        if last:
            yield 0
