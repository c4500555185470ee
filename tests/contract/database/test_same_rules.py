"""What unit tests prove of SQL on SQLite, once more on Postgres: lists in pages, filters, and the tree of actions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from flyteidl2.common import list_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import Connection, NullPool, delete, insert
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from flyte_unified.db import schema
from flyte_unified.db.tables import metadata
from tests.postgres import PostgresServer
from tests.unit.ledger import test_cascade as cascade
from tests.unit.lists import test_filters_and_pages as lists

_CASES = next(mark for mark in lists.test_a_filter_shows_what_its_function_says.pytestmark if mark.name == "parametrize").args


@pytest.fixture
async def connection(postgres: PostgresServer) -> AsyncIterator[AsyncConnection]:
    """In a transaction that is rolled back."""
    engine = create_async_engine("postgresql+asyncpg://" + postgres.url().partition("://")[2], poolclass=NullPool)
    async with engine.connect() as connection:
        yield connection
        await connection.rollback()
    await engine.dispose()


def _things(connection: Connection, rows: list[dict[str, Any]]) -> None:
    lists._table.drop(connection, checkfirst=True)
    lists._table.create(connection)
    if rows:
        connection.execute(insert(lists._table), rows)


@pytest.mark.parametrize(*_CASES)
async def test_a_filter_shows_the_same(
    connection: AsyncConnection, function: str, field: str, values: list[str], expected: set[str]
) -> None:
    """Every function of filters, on the rows and with the results that are SQLite's."""

    def found(connection: Connection) -> set[str]:
        _things(connection, lists._THINGS)
        return lists._names(connection, list_pb2.Filter(function=function, field=field, values=values))

    assert await connection.run_sync(found) == expected


async def test_pages_show_every_row_once_and_in_order(connection: AsyncConnection) -> None:
    """Whatever the sort, its directions, NULLs among the values and the pages' size."""

    def check(connection: Connection) -> None:
        @settings(deadline=None, max_examples=15, database=None, suppress_health_check=list(HealthCheck))
        @given(rows=lists._rows, sorts=lists._sorts, limit=st.integers(1, 7))
        def one(rows: list[dict[str, Any]], sorts: list[tuple[str, bool]], limit: int) -> None:
            _things(connection, rows)
            keys = [list_pb2.Sort(key=key, direction=0 if descending else 1) for key, descending in sorts]
            shown = lists._pages(connection, list_pb2.ListRequest(limit=limit, sort_by_fields=keys))
            assert [row[0] for page in shown for row in page] == lists._in_order(rows, sorts)

        one()

    await connection.run_sync(check)


async def test_nothing_lives_below_an_end(connection: AsyncConnection) -> None:
    """Whatever is enqueued, moved and retried in whatever order: what is stored is what is told."""

    def check(connection: Connection) -> None:
        class Tree(cascade.Tree):
            def _open(self) -> Connection:
                schema.prepare(connection)
                for table in reversed(metadata.sorted_tables):
                    connection.execute(delete(table))
                return connection

            def teardown(self) -> None:
                """The connection goes on."""

        bounds = settings(max_examples=10, stateful_step_count=20, deadline=None, database=None)
        run_state_machine_as_test(Tree, settings=settings(bounds, suppress_health_check=list(HealthCheck)))  # type: ignore[no-untyped-call]

    await connection.run_sync(check)
