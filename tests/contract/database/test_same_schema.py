"""Postgres has the same schema whichever way it came to it, and replicas that start together make it once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import nullcontext
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
from flyte_unified.core.phases import Phase
from flyte_unified.db import schema
from flyte_unified.db.postgres import PostgresDatabase
from flyte_unified.db.tables import metadata, replicated
from flyte_unified.ledger.api import Everything, Move
from tests.contract.database.replicas import Replica
from tests.postgres import PostgresServer
from tests.unit.ledger.births import ROOT, action, run, spec
from tests.upgrade.releases import ADDS, LATER, TAKES, config, losses, release, scripts

HEAD = schema.HEAD
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
        scripted = config()
        scripted.attributes["connection"] = connection
        command.upgrade(scripted, "head")
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


async def test_a_newer_schema_without_room_for_us_is_refused(
    empty: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With words on what to do; nothing of it is changed."""
    await _started(empty[0])
    with monkeypatch.context() as newer:
        release(newer, tmp_path, step=TAKES["a renamed column"], minimum=LATER)
        await _started(empty[0])
    before = await _objects(empty[0])
    with pytest.raises(FailedPrecondition, match=r"schema 9001, for programs of schema 9001.*newer flyte-unified"):
        await _started(empty[0])
    assert await _objects(empty[0]) == before


async def _losses(url: str, found: Config, since: str = "base") -> list[str]:
    engine = create_async_engine("postgresql+asyncpg://" + url.partition("://")[2], poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(lambda connection: list(losses(lambda: nullcontext(connection), found, since)))
    finally:
        await engine.dispose()


async def test_a_migration_takes_nothing_from_the_programs_before_it(empty: list[str], tmp_path: Path) -> None:
    """It adds, or notes that they are out: while a cluster is upgraded, old and new use one schema."""
    assert await _losses(empty[0], config()) == []
    assert await _losses(empty[1], config(scripts(tmp_path, step=ADDS)), HEAD) == []


@pytest.mark.parametrize("what", TAKES)
async def test_what_a_migration_takes_is_found(empty: list[str], tmp_path: Path, what: str) -> None:
    """One thing each, unless it says that the programs before it are out."""
    (tmp_path / "out").mkdir()
    assert len(await _losses(empty[0], config(scripts(tmp_path, step=TAKES[what])), HEAD)) == 1
    assert await _losses(empty[1], config(scripts(tmp_path / "out", step=TAKES[what], minimum=LATER)), HEAD) == []


async def test_old_and_new_serve_on_one_schema(empty: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rolling upgrade: while the old writes, the new one migrates and joins; none fails, each hears the other.

    Then the old one starts anew on the newer schema, as when its pod is moved.
    """
    old, new = Replica(empty[0]), Replica(empty[0])
    await old.start()
    await old.ledger.create_run(run())
    going = True
    written: list[str] = []

    async def work(replica: Replica, side: str) -> None:
        while going:
            name = f"{side}{len(written)}"
            written.append(name)
            known, _ = await replica.ledger.enqueue(action(name), spec())
            for phase in (Phase.RUNNING, Phase.SUCCEEDED):
                (known,) = await replica.ledger.move(known.key, Move(to=phase), known=known)

    async def until(reached: Callable[[], bool]) -> None:
        with old.ledger.changes.subscribe(Everything()) as told:
            async with asyncio.timeout(20):
                while not reached():
                    await told.next()

    works = [asyncio.create_task(work(old, f"old{number}x")) for number in range(4)]
    await until(lambda: len(written) > 20)
    with monkeypatch.context() as newer:
        release(newer, tmp_path, step=ADDS)
        await new.start()
    assert not any(each.done() for each in works)
    works += [asyncio.create_task(work(new, f"new{number}x")) for number in range(4)]
    count = len(written)
    await until(lambda: len(written) > count + 50 and len(old.heard) > 20 and len(new.heard) > 20)
    going = False
    await asyncio.gather(*works)
    await old.stop()

    again = Replica(empty[0])
    await again.start()
    stored = await again.ledger.family(ROOT)
    assert {each.key.name for each in stored if each.terminal} == set(written)
    await again.ledger.move(ROOT, Move(to=Phase.SUCCEEDED))
    await again.stop()
    await new.stop()


async def test_a_start_without_a_server_says_so(unused: str) -> None:
    """Unavailable, with the reason, and without the password."""
    with pytest.raises(Unavailable, match="away") as told:
        await _started(unused)
    assert "hidden" not in str(told.value)


@pytest.fixture
def unused() -> str:
    return "postgresql://flyte:hidden@127.0.0.1:1/flyte"
