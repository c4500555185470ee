"""A served edge."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.edge.service import Service, serving


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving() as service:
        yield service
