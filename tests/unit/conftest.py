"""A real database for whatever room wants one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from flyte_unified.core.context import CallContext
from flyte_unified.db.sqlite import SQLiteDatabase
from tests.unit.manual_clock import ManualClock


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SQLiteDatabase]:
    database = SQLiteDatabase(tmp_path / "flyte.db")
    await database.start()
    yield database
    await database.stop()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def ctx() -> CallContext:
    return CallContext(procedure="/test")
