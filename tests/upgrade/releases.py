"""Releases to come, as tests make them up, and what a migration takes away from the programs before it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from flyte_unified.db import schema

MIGRATIONS = Path(__file__).parents[2] / "migrations"
LATER = "9001"

ADDS = """
    with op.batch_alter_table("actions") as actions:
        actions.add_column(sa.Column("colour", sa.Text, nullable=False, server_default="red"))
        actions.add_column(sa.Column("weight", sa.Integer))
    op.create_table("later", sa.Column("id", sa.Integer, primary_key=True))
    op.create_index("ix_runs_later", "runs", ["created_by"])
"""
"""What a release may do while the one before it still runs."""

TAKES = {
    "a renamed column": 'op.alter_column("runs", "labels", new_column_name="tags")',
    "a dropped column": 'op.drop_column("actions", "queue")',
    "a dropped table": 'op.drop_table("attempts")',
    "a column to fill": 'op.add_column("projects", sa.Column("colour", sa.Text, nullable=False))',
    "a column of another type": 'op.alter_column("actions", "depth", type_=sa.BigInteger, postgresql_using="depth::bigint")',
    "a column that must be filled": 'op.alter_column("actions", "parent", nullable=False)',
    "a default that is gone": 'op.alter_column("actions", "attempt", server_default=None)',
    "a rule more": 'op.create_index("ix_tasks_later", "tasks", ["name"], unique=True)',
}
"""What it may not, one by one; for Postgres."""


def config(scripts: Path = MIGRATIONS) -> Config:
    found = Config()
    found.set_main_option("script_location", str(scripts))
    return found


def scripts(directory: Path, *, step: str, minimum: str | None = None) -> Path:
    """Today's migrations and a later one of ``step``; those of programs older than ``minimum`` can't use what it makes."""
    copied = directory / "migrations"
    shutil.copytree(MIGRATIONS, copied, ignore=shutil.ignore_patterns("__pycache__"))
    raised = f"op.execute(\"UPDATE compatibility SET minimum = '{minimum}'\")" if minimum else "pass"
    head = ["import sqlalchemy as sa", "from alembic import op", f'revision, down_revision = "{LATER}", "{schema.HEAD}"']
    body = [f"    {line}" for line in (*dedent(step).strip().splitlines(), raised)]
    (copied / "versions" / f"{LATER}_later.py").write_text("\n".join([*head, "def upgrade():", *body]))
    return copied


def release(patch: pytest.MonkeyPatch, directory: Path, *, step: str, minimum: str | None = None) -> None:
    """Makes this program one release newer, as far as its schema goes."""
    later = scripts(directory, step=step, minimum=minimum)
    patch.setattr(schema, "_scripts", lambda: later)
    patch.setattr(schema, "HEAD", LATER)


def losses(opened: Callable[[], AbstractContextManager[Connection]], found: Config, since: str = "base") -> Iterator[str]:
    """Runs every migration on an empty database; what each after ``since`` takes from the programs that it leaves in use."""
    before: dict[str, Any] = {}
    for script in reversed([*ScriptDirectory.from_config(found).walk_revisions(since)]):
        with opened() as connection:
            found.attributes["connection"] = connection
            command.upgrade(found, script.revision)
        with opened() as connection:
            after = _tables(connection)
            noted = "compatibility" in after
            out = connection.exec_driver_sql("SELECT minimum FROM compatibility").scalar_one() if noted else ""
            connection.rollback()
        if out != script.revision:
            yield from (f"{script.revision}: {loss}" for loss in _losses(before, after))
        before = after


def _tables(connection: Connection) -> dict[str, Any]:
    look = inspect(connection)
    found = {}
    for table in look.get_table_names():
        rules = [str(look.get_pk_constraint(table)["constrained_columns"])]
        rules += [str(index["column_names"]) for index in look.get_indexes(table) if index["unique"]]
        rules += [str(each) for each in (*look.get_unique_constraints(table), *look.get_foreign_keys(table))]
        rules += [str(each) for each in look.get_check_constraints(table)]
        columns = {each["name"]: (str(each["type"]), each["nullable"], each["default"]) for each in look.get_columns(table)}
        found[table] = (columns, set(rules))
    return found


def _losses(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    for table, (columns, rules) in before.items():
        if table not in after:
            yield f"table {table} is gone"
            continue
        columns_after, rules_after = after[table]
        yield from (f"{table}: {rule} is demanded" for rule in rules_after - rules)
        for name, (_, nullable, default) in columns_after.items():
            if name not in columns and not nullable and default is None:
                yield f"{table}.{name} must be filled"
        for name, column in columns.items():
            if columns_after.get(name) != column:
                yield f"{table}.{name} was {column} and is {columns_after.get(name)}"
