"""Artifacts on a real database."""

from __future__ import annotations

import pytest

from flyte_unified.db.api import Database
from tests.unit.artifacts.world import World, world_on
from tests.unit.manual_clock import ManualClock


@pytest.fixture
def world(database: Database, clock: ManualClock) -> World:
    return world_on(database, clock)
