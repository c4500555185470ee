"""``database``: an empty one, over every adapter that can be had. For conftests to import."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import NullPool, create_engine, event

from flyte_unified.db import schema
from flyte_unified.db.api import Database
from flyte_unified.db.postgres import PostgresDatabase
from flyte_unified.db.sqlite import SQLiteDatabase
from flyte_unified.db.tables import compatibility, metadata, replicated
from tests.postgres import MISSING, PostgresServer

KINDS = ["sqlite"] if MISSING else ["sqlite", "postgres"]
_EVERYWHERE = os.environ.get("TEST_DATABASES") == "all"
"""Beyond the contract, too: CI asks for it. A minute and a half that most changes need not wait for."""
_TABLES = ", ".join(table.name for each in (metadata, replicated) for table in each.sorted_tables if table is not compatibility)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests of the contract have every database, others SQLite unless all are asked for.

    A loop with virtual time waits for no socket, so its tests have SQLite alone; ``only_sqlite`` names other cases.
    """
    if "database" not in metafunc.fixturenames:
        return
    marks = [mark.name for mark in metafunc.definition.iter_markers()]
    contract = "contract" in metafunc.definition.path.parts
    one = "virtual_time" in marks or "only_sqlite" in marks or not (contract or _EVERYWHERE)
    metafunc.parametrize("database", ["sqlite"] if one else KINDS, indirect=True)


async def clear(url: str) -> None:
    """Leaves the tables, where there are any, without rows."""
    connection = await asyncpg.connect(url)
    try:
        if await connection.fetchval("SELECT to_regclass('changes')") is not None:
            await connection.execute("; ".join(f"DELETE FROM {name}" for name in reversed(_TABLES.split(", "))))
    finally:
        await connection.close()


def sqlite(path: Path) -> SQLiteDatabase:
    """One with empty tables in a new file, before its start. As no test cuts the power, its disk is never waited for."""
    path.write_bytes(_empty())
    database = SQLiteDatabase(path)
    event.listen(database._engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
    return database


@functools.cache
def _empty() -> bytes:
    """A file with all tables: to make it takes longer than most tests that want one."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "flyte.db")
        with create_engine(f"sqlite:///{path}", poolclass=NullPool).connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            schema.prepare(connection)
        return path.read_bytes()


@pytest.fixture
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    database: Database
    if request.param == "sqlite":
        database = sqlite(tmp_path / "flyte.db")
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        await clear(server.url())
        database = PostgresDatabase(server.url(), pool_size=3)
    await database.start()
    yield database
    await database.stop()
