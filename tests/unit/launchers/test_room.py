"""The line before a quota."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest

from flyte_unified.core.ids import RunKey
from flyte_unified.kube.errors import Forbidden
from flyte_unified.launchers.api import WorkId
from flyte_unified.launchers.objects.room import Room

RUN = RunKey("p", "development", "r1")
WORKS = [WorkId(RUN.action(f"a{number}"), 1) for number in range(100)]

pytestmark = pytest.mark.virtual_time


class NoRights:
    """A cluster whose quotas we may not see."""

    async def pages(self, *_: Any, **__: Any) -> AsyncGenerator[Any, None]:
        raise Forbidden("cannot list resource resourcequotas", status=403)
        yield


class Desk:
    """The one who asks the server: ``space`` says how many more it takes."""

    def __init__(self) -> None:
        self.space = 0
        self.tries: list[WorkId] = []
        self.room = Room(NoRights(), namespace="n", let=self.tried)

    def tried(self, work: WorkId) -> None:
        self.tries.append(work)
        asyncio.get_running_loop().call_soon(self._answered, work)

    def _answered(self, work: WorkId) -> None:
        if self.space:
            self.space -= 1
            self.room.leave("n", work)
        else:
            self.room.join("n", work)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk()
    for work in WORKS:
        desk.room.join("n", work)
    yield desk
    await desk.room.close()


async def test_a_full_house_is_asked_seldom(desk: Desk) -> None:
    """However many wait: two a minute at last, and never the same one twice in a row."""
    await asyncio.sleep(600)
    assert 15 <= len(desk.tries) <= 60
    assert len(set(desk.tries)) == len(desk.tries)


async def test_room_for_some_is_found_at_once(desk: Desk) -> None:
    """News lets the first in line try, its success the next, a refusal ends it."""
    desk.space = 10
    desk.room.freed("n")
    await asyncio.sleep(0.1)
    assert desk.tries == WORKS[:11]
    desk.space = 1
    desk.room.freed("n")
    await asyncio.sleep(0.1)
    assert desk.tries[11:] == WORKS[11:13]


async def test_news_while_one_tries_is_not_lost(desk: Desk) -> None:
    """The refusal may be older than the news."""
    desk.room.freed("n")
    desk.room.freed("n")
    await asyncio.sleep(0.1)
    assert desk.tries == WORKS[:2]


async def test_elsewhere_there_is_room(desk: Desk) -> None:
    """News of another namespace wakes nobody here; who gives up is not asked."""
    desk.room.freed("other")
    assert desk.tries == []
    desk.room.leave("n", WORKS[0])
    desk.room.freed("n")
    assert desk.tries == [WORKS[1]]
    await asyncio.sleep(0.1)
