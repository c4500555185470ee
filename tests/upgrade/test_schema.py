"""The schema is the same whichever way a database came to it, and moves forward only."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, insert, select
from sqlalchemy.pool import NullPool

from flyte_unified.core.clock import SystemClock
from flyte_unified.core.errors import FailedPrecondition
from flyte_unified.db import schema
from flyte_unified.db.sqlite import SQLiteDatabase
from flyte_unified.db.tables import metadata, projects
from flyte_unified.ledger.api import Ledger
from tests.unit.ledger.births import RUN, run
from tests.upgrade.releases import ADDS, LATER, config, losses, release

PROJECT = {"id": "kept", "name": "Kept", "created_at": 1, "updated_at": 1}


def _objects(engine: Engine) -> dict[str, str | None]:
    """Every table and index with the text that made it; a column that was added later stands in no line of its own."""
    with engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master").all()
    return {row.name: " ".join(row.sql.split()) if row.sql is not None else None for row in found}


def _engine(path: Path) -> Engine:
    return create_engine(f"sqlite:///{path}", poolclass=NullPool)


async def _started(path: Path) -> None:
    """What a start of the server does to the database."""
    database = SQLiteDatabase(path)
    await database.start()
    await database.stop()


async def _created(path: Path) -> Engine:
    await _started(path)
    return _engine(path)


def _migrated(path: Path) -> Engine:
    engine = _engine(path)
    scripted = config()
    with engine.connect() as connection:
        scripted.attributes["connection"] = connection
        command.upgrade(scripted, "head")
    return engine


def _revision(connection: Connection) -> str:
    return str(connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one())


async def test_a_database_made_at_once_equals_one_made_by_every_migration(tmp_path: Path) -> None:
    """Tables, columns, defaults, constraints, indexes and the noted revision are the same, to the letter."""
    created, migrated = await _created(tmp_path / "created.db"), _migrated(tmp_path / "migrated.db")

    assert _objects(created) == _objects(migrated)
    with created.connect() as one, migrated.connect() as other:
        assert _revision(one) == _revision(other) == schema.HEAD


def test_the_tables_say_what_the_migrations_make(tmp_path: Path) -> None:
    """Alembic finds nothing to generate: a changed table without its migration fails here."""
    with _migrated(tmp_path / "flyte.db").connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_head_is_the_newest_migration() -> None:
    """The revision that a new database is stamped with is the end of a single line of migrations."""
    assert ScriptDirectory.from_config(config()).get_heads() == [schema.HEAD]


async def test_a_second_start_changes_nothing(tmp_path: Path) -> None:
    """Preparing a database of this version again leaves it as it is."""
    engine = await _created(tmp_path / "flyte.db")
    before = _objects(engine)
    await _started(tmp_path / "flyte.db")
    assert _objects(engine) == before


STEP = """
    with op.batch_alter_table("runs") as runs:
        runs.add_column(sa.Column("colour", sa.Text, nullable=False, server_default="red"))
        runs.alter_column("labels", new_column_name="tags")
    op.create_table("later", sa.Column("id", sa.Integer, primary_key=True))
"""


async def test_an_older_database_is_moved_forward_at_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start of a newer program keeps the rows, also of a table that is rebuilt while others refer to it."""
    engine = await _created(tmp_path / "flyte.db")
    run = {"project": "p", "domain": "d", "run": "r"}
    with engine.begin() as connection:
        connection.execute(insert(projects), PROJECT)
        connection.execute(
            insert(metadata.tables["runs"]),
            {**run, "run_spec": b"", "content": "", "output_base": "", "start_time": 1, "created_at": 1},
        )
        connection.execute(
            insert(metadata.tables["actions"]),
            {**run, "name": "a0", "depth": 0, "action_type": 1, "phase": 1, "version": 1, "created_at": 1}
            | {"updated_at": 1, "record": b""},
        )
    release(monkeypatch, tmp_path, step=STEP)

    await _started(tmp_path / "flyte.db")

    with engine.connect() as connection:
        assert _revision(connection) == LATER
        assert connection.exec_driver_sql("SELECT colour FROM runs").scalars().all() == ["red"]
        assert connection.exec_driver_sql("SELECT name FROM actions").scalars().all() == ["a0"]
        assert connection.execute(select(projects.c.id)).scalars().all() == ["kept"]
        assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []


async def test_a_migration_that_fails_leaves_the_older_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step is one transaction: what it had changed before it failed is undone, and the old program still starts."""
    engine = await _created(tmp_path / "flyte.db")
    before = _objects(engine)
    with monkeypatch.context() as newer:
        release(newer, tmp_path, step=dedent(STEP) + 'op.execute("SELECT nothing FROM nowhere")')
        with pytest.raises(FailedPrecondition, match=r"could not be moved from schema .* is undone: near"):
            await _started(tmp_path / "flyte.db")

    assert _objects(engine) == before
    await _started(tmp_path / "flyte.db")


async def test_a_newer_database_without_room_for_us_is_refused_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A schema that is for newer programs stops the start, with words on what to do, and nothing of it is changed."""
    engine = await _created(tmp_path / "flyte.db")
    with monkeypatch.context() as newer:
        release(newer, tmp_path, step=STEP, minimum=LATER)
        await _started(tmp_path / "flyte.db")
        await _started(tmp_path / "flyte.db")
    before = _objects(engine)

    with pytest.raises(FailedPrecondition, match=r"schema 9001, for programs of schema 9001.*newer flyte-unified.*--data-dir"):
        await _started(tmp_path / "flyte.db")

    assert _objects(engine) == before


def test_a_migration_takes_nothing_from_the_programs_before_it(tmp_path: Path) -> None:
    """It adds, or notes that they are out: while a cluster is upgraded, old and new use one schema."""
    assert list(losses(_engine(tmp_path / "flyte.db").connect, config())) == []


async def test_a_newer_database_with_room_for_us_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The release after this one only added: this one goes on, also when it starts anew, and changes nothing."""
    engine = await _created(tmp_path / "flyte.db")
    with monkeypatch.context() as newer:
        release(newer, tmp_path, step=ADDS)
        await _started(tmp_path / "flyte.db")
    before = _objects(engine)
    database = SQLiteDatabase(tmp_path / "flyte.db")
    await database.start()
    ledger = Ledger(database=database, clock=SystemClock())
    await ledger.create_run(run())
    assert (await ledger.run(RUN))[0] == run().run
    await database.stop()
    assert _objects(engine) == before
    with engine.connect() as connection:
        assert _revision(connection) == LATER
