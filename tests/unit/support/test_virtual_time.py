"""The loop that skips waiting."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests import virtual_time

pytestmark = pytest.mark.virtual_time


async def test_hours_pass_in_no_time_and_in_order():
    """Timers fire in the order of their times, at exactly their times, and without waiting."""
    began = time.monotonic()
    clock = virtual_time.LoopClock()
    woken = []

    async def sleeper(delay: float) -> None:
        await asyncio.sleep(delay)
        woken.append((delay, clock.now() - virtual_time.EPOCH))

    await asyncio.gather(*(sleeper(delay) for delay in (7200, 60, 0.5)))
    assert woken == [(0.5, 500_000), (60, 60_000_000), (7200, 7_200_000_000)]
    assert time.monotonic() - began < 2


async def test_a_timeout_of_an_hour_ends_a_wait():
    """A wait that nothing ends is ended by its timeout."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3600):
            await asyncio.Event().wait()


async def test_the_clock_stands_still_while_a_thread_works():
    """Work in an executor is real, so a timer must not overtake it."""
    async with asyncio.timeout(0.001):
        await asyncio.to_thread(time.sleep, 0.02)
    assert asyncio.get_running_loop().time() == 0


async def test_an_idle_loop_without_timers_is_dead(runner, monkeypatch):
    """A wait that nothing can end is an error, not a test that hangs."""
    monkeypatch.setattr(virtual_time, "_DEAD_AFTER", 0.01)
    loop = virtual_time.VirtualTimeLoop()
    with pytest.raises(RuntimeError, match="never happen"):
        await asyncio.to_thread(_run_forever, loop)


def _run_forever(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_until_complete(loop.create_future())
    finally:
        loop.close()
