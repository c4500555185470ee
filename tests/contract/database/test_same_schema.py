"""Postgres has the same schema whichever way it came to it, and replicas that start together make it once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, NullPool
from sqlalchemy.ext.asyncio import create_async_engine

from flyte_unified.core.errors import FailedPrecondition, Unavailable
from flyte_unified.db import schema
from flyte_unified.db.postgres import PostgresDatabase
from flyte_unified.db.tables import metadata, replicated
from tests.postgres import PostgresServer

HEAD = schema.HEAD
MIGRATIONS = Path(__file__).parents[3] / "migrations"
COLUMNS = """
    SELECT table_name, column_name, data_type, character_maximum_length, collation_name, is_nullable, column_default
    FROM information_schema.columns WHERE table_schema = 'public' ORDER BY table_name, column_name
"""
OTHERS = """
    SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
    UNION SELECT relname || ' ' || reloptions::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
    UNION SELECT conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    ORDER BY 1
"""


@pytest.fixture
async def empty(postgres: PostgresServer) -> AsyncIterator[list[str]]:
    """The URLs of two databases without tables."""
    names = ("one", "other")
    session = await asyncpg.connect(postgres.url())
    for name in names:
        await session.execute(f"CREATE DATABASE {name}")
    yield [postgres.url(name) for name in names]
    for name in names:
        await session.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await session.close()


async def _objects(url: str) -> list[tuple[Any, ...]]:
    session = await asyncpg.connect(url)
    found = [tuple(row) for query in (COLUMNS, OTHERS) for row in await session.fetch(query)]
    await session.close()
    return found


async def _started(url: str) -> None:
    database = PostgresDatabase(url)
    try:
        await database.start()
    finally:
        await database.stop()


async def test_a_database_made_at_once_equals_one_made_by_every_migration(empty: list[str]) -> None:
    """Tables, columns, collations, defaults, constraints and indexes; and Alembic finds nothing to add."""
    created, migrated = empty
    await _started(created)

    def migrate(connection: Connection) -> list[Any]:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, [metadata, replicated]))

    engine = create_async_engine("postgresql+asyncpg://" + migrated.partition("://")[2], poolclass=NullPool)
    async with engine.connect() as connection:
        assert await connection.run_sync(migrate) == []
    await engine.dispose()

    assert await _objects(created) == await _objects(migrated)
    assert len(await _objects(created)) > 100


async def test_replicas_that_start_together_make_the_schema_once(empty: list[str]) -> None:
    """All of them are ready; none is in another's way."""
    await asyncio.gather(*(_started(empty[0]) for _ in range(5)))
    assert await _objects(empty[0])


async def test_an_older_schema_is_moved_forward_once(empty: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas of a newer release start together on yesterday's database."""
    moved: list[str] = []
    await _started(empty[0])
    monkeypatch.setattr(schema, "HEAD", "9001")

    def upgrade(connection: Connection, *, found: str) -> None:
        moved.append(found)
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9001'")
        connection.commit()

    monkeypatch.setattr(schema, "upgrade", upgrade)
    await asyncio.gather(*(_started(empty[0]) for _ in range(3)))
    assert moved == [HEAD]


async def test_a_newer_schema_without_room_for_us_is_refused(empty: list[str]) -> None:
    """With words on what to do; nothing of it is changed."""
    await _started(empty[0])
    session = await asyncpg.connect(empty[0])
    await session.execute("UPDATE alembic_version SET version_num = '9999'; UPDATE compatibility SET minimum = '9001'")
    await session.close()
    with pytest.raises(FailedPrecondition, match=r"schema 9999, for programs of schema 9001.*newer flyte-unified"):
        await _started(empty[0])


async def test_a_start_without_a_server_says_so(unused: str) -> None:
    """Unavailable, with the reason, and without the password."""
    with pytest.raises(Unavailable, match="away") as told:
        await _started(unused)
    assert "hidden" not in str(told.value)


@pytest.fixture
def unused() -> str:
    return "postgresql://flyte:hidden@127.0.0.1:1/flyte"
