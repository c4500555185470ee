"""The schema is the same whichever way a database came to it, and moves forward only."""

from __future__ import annotations

import shutil
from pathlib import Path
from textwrap import dedent

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, insert, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from flyte_unified.core.errors import FailedPrecondition
from flyte_unified.db import schema
from flyte_unified.db.sqlite import SQLiteDatabase
from flyte_unified.db.tables import metadata, projects

MIGRATIONS = Path(__file__).parents[2] / "migrations"
PROJECT = {"id": "kept", "name": "Kept", "created_at": 1, "updated_at": 1}


def _config(scripts: Path = MIGRATIONS) -> Config:
    config = Config()
    config.set_main_option("script_location", str(scripts))
    return config


def _objects(engine: Engine) -> dict[str, str | None]:
    """Every table and index with the text that made it."""
    with engine.connect() as connection:
        return {row.name: row.sql for row in connection.exec_driver_sql("SELECT name, sql FROM sqlite_master")}


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
    config = _config()
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
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
    assert ScriptDirectory.from_config(_config()).get_heads() == [schema.HEAD]


async def test_a_second_start_changes_nothing(tmp_path: Path) -> None:
    """Preparing a database of this version again leaves it as it is."""
    engine = await _created(tmp_path / "flyte.db")
    before = _objects(engine)
    await _started(tmp_path / "flyte.db")
    assert _objects(engine) == before


STEP = """
    import sqlalchemy as sa
    from alembic import op

    revision, down_revision = "9001", "{head}"

    def upgrade():
        with op.batch_alter_table("runs") as runs:
            runs.add_column(sa.Column("colour", sa.Text, nullable=False, server_default="red"))
            runs.alter_column("labels", new_column_name="tags")
        op.create_table("later", sa.Column("id", sa.Integer, primary_key=True))
        {last}
"""


def _release(monkeypatch: pytest.MonkeyPatch, directory: Path, *, last: str = "pass") -> None:
    """Makes this program one release newer: another migration after today's."""
    scripts = directory / "migrations"
    shutil.copytree(MIGRATIONS, scripts, ignore=shutil.ignore_patterns("__pycache__"))
    (scripts / "versions" / "9001_later.py").write_text(dedent(STEP.format(head=schema.HEAD, last=last)))
    monkeypatch.setattr(schema, "_scripts", lambda: scripts)
    monkeypatch.setattr(schema, "HEAD", "9001")


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
    _release(monkeypatch, tmp_path)

    await _started(tmp_path / "flyte.db")

    with engine.connect() as connection:
        assert _revision(connection) == "9001"
        assert connection.exec_driver_sql("SELECT colour FROM runs").scalars().all() == ["red"]
        assert connection.exec_driver_sql("SELECT name FROM actions").scalars().all() == ["a0"]
        assert connection.execute(select(projects.c.id)).scalars().all() == ["kept"]
        assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []


async def test_a_migration_that_fails_leaves_the_older_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step is one transaction: what it had changed before it failed is undone, and the old program still starts."""
    engine = await _created(tmp_path / "flyte.db")
    before = _objects(engine)
    with monkeypatch.context() as newer:
        _release(newer, tmp_path, last='op.execute("SELECT nothing FROM nowhere")')
        with pytest.raises(OperationalError, match="nowhere"):
            await _started(tmp_path / "flyte.db")

    assert _objects(engine) == before
    await _started(tmp_path / "flyte.db")


async def test_a_newer_database_without_room_for_us_is_refused_and_left_alone(tmp_path: Path) -> None:
    """A schema that is for newer programs stops the start, with words on what to do, and nothing of it is changed."""
    engine = await _created(tmp_path / "flyte.db")
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        connection.exec_driver_sql("UPDATE compatibility SET minimum = '9001'")
    before = _objects(engine)

    with pytest.raises(FailedPrecondition, match=r"schema 9999, for programs of schema 9001.*newer flyte-unified.*--data-dir"):
        await _started(tmp_path / "flyte.db")

    assert _objects(engine) == before
