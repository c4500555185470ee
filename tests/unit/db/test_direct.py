"""Statements that go straight to SQLite's driver. That they say what SQLAlchemy would is tests/contract/database's."""

from __future__ import annotations

import pytest
from sqlalchemy import JSON, NullPool, create_engine, insert, literal_column, select

from flyte_unified.db.direct import execute
from flyte_unified.db.each import Each
from flyte_unified.db.tables import runs


def test_what_the_driver_would_not_convert_is_refused() -> None:
    """A value of JSON would reach SQLite as it is: such a statement is told to be wrong the first time it is used."""
    each = Each(
        lambda given: insert(runs).from_select(["labels"], select(given["_labels"])),
        values={"_labels": JSON()},
        key={"_labels": "labels"},
    )
    with create_engine("sqlite://", poolclass=NullPool).connect() as connection, pytest.raises(TypeError, match="JSON"):
        execute(connection, (each, {"_labels": {}}))


def test_other_statements_are_sqlalchemys() -> None:
    """What is made for one call only is not worth a text of its own."""
    with create_engine("sqlite://", poolclass=NullPool).connect() as connection:
        result, wrote = execute(connection, select(literal_column("1")))
        assert (result.scalar_one(), wrote) == (1, False)
