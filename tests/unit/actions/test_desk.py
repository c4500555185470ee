"""Keys that are looked at by one worker each, in time that jumps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from structlog.testing import capture_logs

from flyte_unified.actions.desk import Desk
from flyte_unified.kube.errors import Away, Throttled

pytestmark = pytest.mark.virtual_time


@asynccontextmanager
async def desk_of(work: Callable[[str], Awaitable[None]], *, width: int = 4) -> AsyncIterator[Desk[str]]:
    desk = Desk(work, name="test", width=width)
    try:
        yield desk
    finally:
        await desk.close()


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_pokes_during_the_work_count_as_one_more():
    """Never two at once on a key, and never a change that nobody looked at."""
    looked: list[tuple[str, float]] = []

    async def work(key: str) -> None:
        looked.append((key, now()))
        await asyncio.sleep(1.0)

    async with desk_of(work) as desk:
        desk.poke("a")
        await asyncio.sleep(0.5)
        for _ in range(3):
            desk.poke("a")
        await asyncio.sleep(5.0)
    assert looked == [("a", 0.0), ("a", 1.0)]


async def test_no_more_at_one_time_than_it_is_wide():
    """In the order of the pokes."""
    running, most, done = 0, 0, []

    async def work(key: str) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(1.0)
        running -= 1
        done.append(key)

    keys = [str(number) for number in range(10)]
    async with desk_of(work, width=3) as desk:
        for key in keys:
            desk.poke(key)
        await asyncio.sleep(10.0)
    assert (most, sorted(done), done[:3]) == (3, keys, keys[:3])


async def test_failures_are_tried_again_with_growing_bounded_pauses():
    """Whatever happens meanwhile; other keys don't wait, and success forgets."""
    looked: list[float] = []
    others: list[float] = []

    async def work(key: str) -> None:
        if key == "b":
            others.append(now())
            return
        looked.append(now())
        if len(looked) < 16:
            raise Away("no")

    with capture_logs() as logs:
        async with desk_of(work) as desk:
            desk.poke("a")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            for _ in range(100):
                desk.poke("a")
            desk.poke("b")
            await asyncio.sleep(600.0)
            assert len(looked) == 16
            desk.poke("a")
            await asyncio.sleep(1.0)
    pauses = [later - earlier for earlier, later in pairwise(looked[:16])]
    assert all(0.025 * 2**number <= pause <= 0.0501 * 2**number for number, pause in enumerate(pauses[:9]))
    assert all(15.0 <= pause <= 30.001 for pause in pauses[10:])
    assert others == [0.0]
    assert len(looked) == 17
    assert [log["log_level"] for log in logs] == ["warning"]


async def test_a_server_says_how_long_to_wait():
    """If that is longer than the pause would be."""
    looked: list[float] = []

    async def work(key: str) -> None:
        looked.append(now())
        if len(looked) == 1:
            raise Throttled("no", retry_after=7.0)

    with capture_logs():
        async with desk_of(work) as desk:
            desk.poke("a")
            await asyncio.sleep(20.0)
    assert looked == [0.0, 7.0]


async def test_an_error_that_nobody_foresaw_is_logged_and_tried_again():
    """It ends no worker."""
    looked: list[str] = []

    async def work(key: str) -> None:
        looked.append(key)
        if len(looked) == 1:
            raise KeyError("bug")

    with capture_logs() as logs:
        async with desk_of(work, width=1) as desk:
            desk.poke("a")
            await asyncio.sleep(1.0)
            desk.poke("b")
            await asyncio.sleep(1.0)
    assert looked == ["a", "a", "b"]
    assert [log["log_level"] for log in logs] == ["error"]


async def test_times_hang_on_one_timer():
    """Each key is looked at in its time, the soonest first, however they were told."""
    looked: list[tuple[str, float]] = []

    async def work(key: str) -> None:
        looked.append((key, now()))

    async with desk_of(work) as desk:
        desk.later("c", 3600.0)
        desk.later("a", -5.0)
        desk.later("b", 60.0)
        await asyncio.sleep(7200.0)
    assert looked == [("a", 0.0), ("b", 60.0), ("c", 3600.0)]


async def test_what_waits_is_left_when_it_closes():
    """Nothing is looked at any more, and what is under way is cancelled."""
    looked: list[str] = []

    async def work(key: str) -> None:
        looked.append(key)
        await asyncio.sleep(100.0)

    async with desk_of(work, width=1) as desk:
        desk.poke("a")
        desk.poke("b")
        desk.later("c", 10.0)
        await asyncio.sleep(1.0)
    desk.poke("d")
    await asyncio.sleep(1000.0)
    assert looked == ["a"]
