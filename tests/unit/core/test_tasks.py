"""What is done to its end whoever waits for it."""

from __future__ import annotations

import asyncio

import pytest

from flyte_unified.core.tasks import to_its_end


class Closing:
    """Takes until it is ``let``; then ``fails``, if it is to."""

    def __init__(self, fails: Exception | None = None) -> None:
        self.let = asyncio.Event()
        self.done = False
        self._fails = fails

    async def all(self) -> None:
        await self.let.wait()
        self.done = True
        if self._fails is not None:
            raise self._fails


@pytest.mark.parametrize("times", [0, 1, 2])
async def test_a_cancellation_waits_for_the_end(times: int) -> None:
    """However often it comes; then it goes on to whoever is cancelled."""
    closing = Closing()
    waiting = asyncio.create_task(to_its_end(closing.all(), name="closing"))
    for cancelled in range(times + 1):
        await asyncio.sleep(0)
        assert not waiting.done()
        if cancelled < times:
            waiting.cancel()
    closing.let.set()
    await asyncio.wait((waiting,))
    assert closing.done
    assert waiting.cancelled() == (times > 0)


async def test_what_it_raises_is_raised() -> None:
    """And is the cause of a cancellation that came meanwhile."""
    closing = Closing(ValueError("no"))
    closing.let.set()
    with pytest.raises(ValueError, match="no"):
        await to_its_end(closing.all(), name="closing")
    closing = Closing(ValueError("no"))
    waiting = asyncio.create_task(to_its_end(closing.all(), name="closing"))
    await asyncio.sleep(0)
    waiting.cancel()
    closing.let.set()
    with pytest.raises(asyncio.CancelledError) as raised:
        await waiting
    assert isinstance(raised.value.__cause__, ValueError)
