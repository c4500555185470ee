"""What every database promises, and what replicas that share one promise together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any, Protocol

import asyncpg
import pytest
from sqlalchemy import text

from flyte_unified.db.api import Database, Work
from flyte_unified.db.postgres import PostgresDatabase
from tests.contract.database.replicas import Replica
from tests.databases import clear, database, pytest_generate_tests
from tests.postgres import MISSING, PostgresServer

__all__ = ["database", "pytest_generate_tests"]

collect_ignore_glob = (
    ["test_outages.py", "test_replicas.py", "test_same_*.py", "test_server_on_postgres.py", "test_statements.py"]
    if MISSING
    else []
)


_RESTARTING = ("test_outages.py", "test_server_on_postgres.py")


class Gate(Protocol):
    """Holds what runs into it until it is opened, so that what comes meanwhile shares the next batch."""

    def work(self) -> Work[None]: ...

    async def reached(self) -> None: ...

    async def open(self) -> None: ...


class ThreadGate:
    """For work that runs in a thread."""

    def __init__(self) -> None:
        self._reached, self._opened = threading.Event(), threading.Event()

    def work(self) -> Work[None]:
        yield text("SELECT 1")
        self._reached.set()
        assert self._opened.wait(10)

    async def reached(self) -> None:
        assert await asyncio.to_thread(self._reached.wait, 10)

    async def open(self) -> None:
        self._opened.set()


class LockGate:
    """For work that waits for the server: a lock that a session of its own holds."""

    def __init__(self, session: asyncpg.Connection) -> None:
        self._session = session
        self._reached = asyncio.Event()

    def work(self) -> Work[None]:
        self._reached.set()
        yield text("SELECT pg_advisory_xact_lock(1)")

    async def reached(self) -> None:
        async with asyncio.timeout(10):
            await self._reached.wait()

    async def open(self) -> None:
        await self._session.execute("SELECT pg_advisory_unlock(1)")


@pytest.fixture
async def gate(database: Database, request: pytest.FixtureRequest) -> AsyncIterator[Gate]:
    if not isinstance(database, PostgresDatabase):
        yield ThreadGate()
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    session = await asyncpg.connect(server.url())
    await session.execute("SELECT pg_advisory_lock(1)")
    yield LockGate(session)
    await session.close()


@pytest.fixture
async def pair(postgres: PostgresServer) -> AsyncIterator[tuple[Replica, Replica]]:
    """Two replicas on one server."""
    await clear(postgres.url())
    one, other = Replica(postgres.url()), Replica(postgres.url())
    await asyncio.gather(one.start(), other.start())
    yield one, other
    await one.stop()
    await other.stop()


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Whoever restarts the server comes last."""
    items.sort(key=lambda item: item.path.parent.name == "database" and item.path.name in _RESTARTING)
