"""A server that shall take no more work, before it is stopped or looked after.

Calls are answered, so what runs can go on to its end; a load balancer sees ``/readyz`` say no, and runs that come nonetheless
are kept for when the server, or the next, begins again. Nothing of it outlives the process.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from flyte_unified.planes.api import Plane


class Drain:
    """``on`` from when nothing new begins."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self.on = False

    async def set(self, on: bool) -> None:
        self.on = on
        await self._plane.drain(on)

    async def left(self) -> AsyncGenerator[int]:
        """How many actions still run here, and again whenever it is another number; ends with 0."""
        last = -1
        if (controller := self._plane.controller) is not None:
            async with aclosing(controller.running()) as counts:
                async for count in counts:
                    if count != last:
                        yield (last := count)
        if last:
            yield 0
