"""A real database for whatever room wants one."""

from __future__ import annotations

import pytest

from flyte_unified.core.context import CallContext
from tests.databases import database, pytest_generate_tests
from tests.unit.manual_clock import ManualClock

__all__ = ["database", "pytest_generate_tests"]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def ctx() -> CallContext:
    return CallContext(procedure="/test")
