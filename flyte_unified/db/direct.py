"""An ``Each`` as SQLite's driver takes it.

SQLAlchemy needs several times as long to hand a statement to SQLite, and its rows back, as SQLite to carry it out, and whoever
writes waits for that. What an ``Each`` says never changes: so it is made into text once, and given to the driver.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from functools import cache
from typing import Any

from sqlalchemy import Connection, Integer, LargeBinary, Result, String
from sqlalchemy.dialects import sqlite

from flyte_unified.db import batches
from flyte_unified.db.api import Statement
from flyte_unified.db.each import Each

_DIALECT = sqlite.dialect()
_AS_THEY_ARE = (Integer, String, LargeBinary)
"""Types that SQLite's driver takes and gives without any conversion"""


def execute(connection: Connection, statement: Statement) -> tuple[Result[Any], bool]:
    """As ``batches.execute``."""
    each, values = statement if isinstance(statement, tuple) else (None, ())
    if not isinstance(each, Each):
        return batches.execute(connection, statement)
    text, names, fixed = _compiled(each)
    driver, rows = driver_of(connection), []
    for one in (values,) if isinstance(values, Mapping) else values:
        given = {**one, **fixed}
        rows += driver.execute(text, [given[name] for name in names]).fetchall()
    return each.answer(rows), each.silent or (bool(rows) and not each.reads)


def driver_of(connection: Connection) -> sqlite3.Connection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver


@cache
def _compiled(each: Each) -> tuple[str, list[str], dict[str, Any]]:
    """The text; the names of its parameters, in their order; the values of those that are the same for everyone."""
    types = (*each.values.values(), *(column.type for column in each.one.exported_columns))
    if odd := [type_ for type_ in types if not isinstance(type_, _AS_THEY_ARE)]:
        raise TypeError(f"values of the types {odd} would have to be converted")
    compiled = each.one.compile(dialect=_DIALECT)
    fixed = {name: value for name, value in compiled.params.items() if name not in each.values}
    return str(compiled), list(compiled.positiontup or ()), fixed
