"""RunService on a real ledger and a real directory; what other rooms would do is a dictionary here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from flyte_unified.db.api import Database
from tests.unit.runs.world import World, world_in


@pytest.fixture
async def world(tmp_path: Path, database: Database) -> AsyncIterator[World]:
    async with world_in(tmp_path, database) as world:
        yield world
