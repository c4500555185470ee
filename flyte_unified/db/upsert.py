"""INSERT that meets a row which is there already, in one text for both databases.

SQLAlchemy has a clause for each dialect. Their words are the same, and SQLite's, which a laptop's start loads anyway, lacks
one attribute of Postgres's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Insert, Table, insert
from sqlalchemy.dialects.sqlite.dml import OnConflictDoNothing, OnConflictDoUpdate


class _DoNothing(OnConflictDoNothing):
    inherit_cache = True
    constraint_target = None


class _DoUpdate(OnConflictDoUpdate):
    inherit_cache = True
    constraint_target = None


def insert_new(table: Table) -> Insert:
    """Leaves a row of the same key as it is. What was inserted can be told by RETURNING."""
    return insert(table).ext(_DoNothing())


def insert_or_update(table: Table, *, key: str, columns: Sequence[str], where: ColumnElement[bool]) -> Insert:
    """Gives a row of the same key the new values of ``columns``, where it meets ``where``."""
    excluded = new(table)
    values = {name: excluded.c[name] for name in columns}
    return insert(table).ext(_DoUpdate(index_elements=[table.c[key]], set_=values, where=where))


def new(table: Table) -> Any:
    """The row that was to be inserted, as ``where`` may refer to it."""
    return table.alias("excluded")
