"""A world of triggers: by a clock that the test sets, or by the loop's, which is virtual there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.manual_clock import ManualClock
from tests.unit.triggers.world import InlineDatabase, World, world_in
from tests.virtual_time import LoopClock


@pytest.fixture
async def inline() -> AsyncIterator[InlineDatabase]:
    database = InlineDatabase()
    await database.start()
    yield database
    await database.stop()


@pytest.fixture
async def world(tmp_path: Path, clock: ManualClock, inline: InlineDatabase) -> AsyncIterator[World]:
    world = await world_in(tmp_path, clock, inline)
    yield world
    await _close(world)


class ShiftedClock(LoopClock):
    """The loop's, set to another time by ``ahead`` microseconds."""

    ahead = 0

    def now(self) -> int:  # type: ignore[override]
        return super().now() + self.ahead


@pytest.fixture
async def timed(tmp_path: Path, inline: InlineDatabase) -> AsyncIterator[World]:
    world = await world_in(tmp_path, ShiftedClock(), inline)
    yield world
    await _close(world)


async def _close(world: World) -> None:
    world.ledger.changes.close()
    await world.data.stop()
