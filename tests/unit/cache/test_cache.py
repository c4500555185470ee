"""The cache as the executor uses it: results, reservations, and who is woken when."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable
from typing import TypeVar

import pytest
from flyteidl2.task import run_pb2

from flyte_unified.cache.api import Cache, scoped_key
from flyte_unified.core.ids import ActionKey
from flyte_unified.db.api import Database
from tests.unit.manual_clock import ManualClock
from tests.virtual_time import LoopClock

T = TypeVar("T")
SOURCE = ActionKey("p", "development", "r1", "a0")
OTHER = ActionKey("p", "development", "r2", "a0")
GLOBAL = run_pb2.CACHE_LOOKUP_SCOPE_GLOBAL
IN_PROJECT = run_pb2.CACHE_LOOKUP_SCOPE_PROJECT_DOMAIN


@pytest.fixture
def cache(database: Database, clock: ManualClock) -> Cache:
    return Cache(database=database, clock=clock)


async def _holding_the_clock(awaitable: Awaitable[T]) -> T:
    """Virtual time stands still until ``awaitable`` is done: the database's own threads do not hold it."""
    done = threading.Event()
    blocker = asyncio.get_running_loop().run_in_executor(None, done.wait)
    try:
        return await awaitable
    finally:
        done.set()
        await blocker


async def test_a_result_is_found_under_its_key(cache: Cache) -> None:
    """A hit says where the outputs are and which attempt made them; another key has none."""
    assert await cache.lookup("k") is None
    await cache.store("k", "/out/1", source=SOURCE, attempt=2, overwrite=False)
    found = await cache.lookup("k")

    assert found is not None
    assert (found.output_uri, found.source, found.attempt) == ("/out/1", SOURCE, 2)
    assert await cache.lookup("other") is None


async def test_the_first_result_stays(cache: Cache) -> None:
    """Two computed the same: one result is as good as the other, and whoever used the first is not confused."""
    await cache.store("k", "/out/1", source=SOURCE, attempt=1, overwrite=False)
    await cache.store("k", "/out/2", source=OTHER, attempt=1, overwrite=False)
    found = await cache.lookup("k")
    assert found is not None and (found.output_uri, found.source) == ("/out/1", SOURCE)


async def test_a_run_that_overwrites_the_cache_replaces_the_result(cache: Cache, clock: ManualClock) -> None:
    """From then on the new one is found, and its age counts from then, even if the clock was set back."""
    await cache.store("k", "/out/1", source=SOURCE, attempt=1, overwrite=False)
    clock.pass_by(-60)
    await cache.store("k", "/out/2", source=OTHER, attempt=3, overwrite=True)
    found = await cache.lookup("k", max_age=30)
    assert found is not None
    assert (found.output_uri, found.source, found.attempt) == ("/out/2", OTHER, 3)


async def test_an_old_result_is_none_for_who_wants_a_young_one(cache: Cache, clock: ManualClock) -> None:
    """The age is the asker's limit: another, with a wider one, still finds the result."""
    await cache.store("k", "/out/1", source=SOURCE, attempt=1, overwrite=False)
    clock.pass_by(60)
    assert await cache.lookup("k", max_age=60) is not None
    clock.pass_by(0.001)
    assert await cache.lookup("k", max_age=60) is None
    assert await cache.lookup("k", max_age=61) is not None
    assert await cache.lookup("k") is not None


async def test_one_of_many_gets_the_reservation(cache: Cache) -> None:
    """Of any number who want to compute at once, one may; all are told who."""
    answers = await asyncio.gather(*(cache.reserve("k", f"owner{n}", heartbeat=10) for n in range(50)))
    assert len(set(answers)) == 1


async def test_a_renewed_reservation_stays_and_a_forgotten_one_goes(cache: Cache, clock: ManualClock) -> None:
    """Three heartbeats may be missed; then the next who asks takes over, and the former owner is told so."""
    assert await cache.reserve("k", "a", heartbeat=10) == "a"
    clock.pass_by(29)
    assert await cache.reserve("k", "b", heartbeat=10) == "a"
    assert await cache.reserve("k", "a", heartbeat=10) == "a"
    clock.pass_by(29)
    assert await cache.reserve("k", "b", heartbeat=10) == "a"
    clock.pass_by(1)
    assert await cache.reserve("k", "b", heartbeat=10) == "b"
    assert await cache.reserve("k", "a", heartbeat=10) == "b"


async def test_one_of_many_takes_over(cache: Cache, clock: ManualClock) -> None:
    """An expired reservation goes to one of those who wait for it, not to each of them."""
    await cache.reserve("k", "gone", heartbeat=10)
    clock.pass_by(30)
    answers = await asyncio.gather(*(cache.reserve("k", f"owner{n}", heartbeat=10) for n in range(50)))
    assert len(set(answers)) == 1 and "gone" not in answers


@pytest.mark.parametrize(("asked", "given"), [(2, 2), (10, 10), (3600, 10), (0, 10)])
async def test_nobody_holds_a_key_for_longer_than_the_settings_let_him(cache: Cache, asked: float, given: float) -> None:
    """A longer heartbeat is cut, a shorter one kept, none means the longest."""
    assert (await cache.reservation("k", "a", heartbeat=asked)).heartbeat == given * 1_000_000


async def test_only_its_owner_gives_a_reservation_back(cache: Cache) -> None:
    """A late word of one who lost it changes nothing."""
    await cache.reserve("k", "a", heartbeat=10)
    await cache.release("k", "b")
    assert await cache.reserve("k", "b", heartbeat=10) == "a"
    await cache.release("k", "a")
    assert await cache.reserve("k", "b", heartbeat=10) == "b"


async def test_a_start_forgets_what_expired_and_nothing_else(cache: Cache, database: Database, clock: ManualClock) -> None:
    """Who holds a reservation through a restart of the server keeps it; the rest does not pile up."""
    await cache.reserve("old", "a", heartbeat=10)
    clock.pass_by(20)
    await cache.reserve("held", "a", heartbeat=10)
    clock.pass_by(15)
    again = Cache(database=database, clock=clock)
    await again.start()
    clock.pass_by(-15)  # had it only expired, it would hold again
    assert await again.reserve("old", "b", heartbeat=10) == "b"
    assert await again.reserve("held", "b", heartbeat=10) == "a"


async def _waiting(cache: Cache, key: str) -> asyncio.Task[None]:
    """Someone who waits for ``key``, and does not go on by himself."""
    waiter = asyncio.create_task(cache.freed(key), name=f"wait for {key}")
    await cache.lookup("anything")  # a turn of the database's readers, which the waiter is before us at
    await cache.lookup("anything")
    assert not waiter.done()
    return waiter


async def test_a_release_wakes_all_who_wait(cache: Cache) -> None:
    """They all may try again, and only those of that key; nobody looks before."""
    await cache.reserve("k", "a", heartbeat=10)
    await cache.reserve("other", "a", heartbeat=10)
    waiters = [await _waiting(cache, "k") for _ in range(3)]
    stranger = await _waiting(cache, "other")
    await cache.release("k", "b")
    assert not any(waiter.done() for waiter in waiters)

    await cache.release("k", "a")
    await asyncio.wait_for(asyncio.gather(*waiters), 5)
    assert not stranger.done()
    await cache.release("other", "a")
    await asyncio.wait_for(stranger, 5)


async def test_a_result_wakes_who_waits(cache: Cache) -> None:
    """It is all that they wait for, whether its maker gives the reservation back or not."""
    await cache.reserve("k", "a", heartbeat=10)
    waiter = await _waiting(cache, "k")
    await cache.store("k", "/out/1", source=SOURCE, attempt=1, overwrite=False)
    await asyncio.wait_for(waiter, 5)


async def test_nothing_is_waited_for_where_nothing_is_reserved(cache: Cache) -> None:
    """A release between the refusal and the wait is not missed."""
    await cache.reserve("k", "a", heartbeat=10)
    assert await cache.reserve("k", "b", heartbeat=10) == "a"
    await cache.release("k", "a")
    await cache.freed("k")


@pytest.mark.virtual_time
async def test_a_holder_that_is_heard_of_no_more_is_waited_for_until_it_expires(database: Database) -> None:
    """The wait ends by itself at the expiry, not before and not much after."""
    cache = Cache(database=database, clock=LoopClock())
    await cache.reserve("k", "gone", heartbeat=10)
    start = asyncio.get_running_loop().time()
    await cache.freed("k")
    assert asyncio.get_running_loop().time() - start == pytest.approx(30, abs=0.01)
    assert await cache.reserve("k", "b", heartbeat=10) == "b"


@pytest.mark.virtual_time
async def test_a_holder_that_renews_is_waited_for_longer(database: Database) -> None:
    """Each renewal moves the end of the wait."""
    cache = Cache(database=database, clock=LoopClock())
    await cache.reserve("k", "a", heartbeat=10)
    loop = asyncio.get_running_loop()
    start = loop.time()
    waiter = asyncio.create_task(cache.freed("k"), name="wait")
    await asyncio.sleep(20)
    await _holding_the_clock(cache.reserve("k", "a", heartbeat=10))
    await waiter
    assert loop.time() - start == pytest.approx(50, abs=0.01)


async def test_a_wait_that_is_given_up_leaves_nothing_behind(cache: Cache) -> None:
    """A cancelled waiter is forgotten, and those beside it are woken all the same."""
    await cache.reserve("k", "a", heartbeat=10)
    first, second = await _waiting(cache, "k"), await _waiting(cache, "k")
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await cache.release("k", "a")
    await asyncio.wait_for(second, 5)


@pytest.mark.parametrize("key", ["k", "k" * 5000, "/", "p/development/k", "//k", "sha256/00"])
def test_keys_of_different_scopes_never_meet(key: str) -> None:
    """One key in all projects, in each of two projects and in each of two domains is five keys, of bounded length."""
    scoped = {
        scoped_key(key, GLOBAL, project="p", domain="d"),
        scoped_key(key, IN_PROJECT, project="p", domain="d"),
        scoped_key(key, IN_PROJECT, project="p", domain="e"),
        scoped_key(key, IN_PROJECT, project="q", domain="d"),
        scoped_key(key + "x", GLOBAL, project="p", domain="d"),
    }
    assert len(scoped) == 5
    assert max(map(len, scoped)) <= 512


def test_a_key_for_all_is_the_same_from_everywhere() -> None:
    """An unspecified scope is global; a global key does not say who asked."""
    keys = {
        scoped_key("k", scope, project=project, domain="d")
        for scope in (GLOBAL, run_pb2.CACHE_LOOKUP_SCOPE_UNSPECIFIED)
        for project in ("p", "q")
    }
    assert len(keys) == 1
