"""A controller's world, one for a test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.unit.executor.world import World, world_in


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with world_in(tmp_path) as world:
        yield world


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Rendering a traceback for people takes longer than the test that provokes it."""
    with capture_logs():
        yield
