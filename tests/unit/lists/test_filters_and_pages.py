"""Lists: what filters mean, and that pages show every row once, in order, in a real database."""

from __future__ import annotations

import sqlite3
from functools import partial
from typing import Any

import pytest
from flyteidl2.common import list_pb2
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import BigInteger, Column, Connection, MetaData, StaticPool, Table, Text, create_engine, insert, select

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.filters import INTEGER, LONG, TIME, conditions, enumeration
from flyte_unified.core.paging import DEFAULT_LIMIT, MAX_LIMIT, Order, listing
from flyte_unified.core.phases import Phase
from flyte_unified.db import lists
from flyte_unified.db.lists import Field

_table = Table(
    "things",
    MetaData(),
    Column("name", Text, primary_key=True),
    Column("note", Text),
    Column("size", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
)
_fields = {
    "name": Field(_table.c.name),
    "note": Field(_table.c.note, nullable=True),
    "size": Field(_table.c.size, LONG),
    "count": Field(_table.c.size, INTEGER),
    "ended_at": Field(_table.c.ended_at, TIME, nullable=True),
    "phase": Field(_table.c.size, enumeration(Phase)),
}
_kinds = lists.kinds(_fields.get)
_Filter = list_pb2.Filter


def _database(rows: list[dict[str, Any]]) -> Connection:
    engine = create_engine("sqlite://", poolclass=StaticPool, creator=lambda: sqlite3.connect(":memory:"))
    connection = engine.connect()
    _table.create(connection)
    if rows:
        connection.execute(insert(_table), rows)
    return connection


def _pages(connection: Connection, request: list_pb2.ListRequest, *, default: tuple[Order, ...] = ()) -> list[list[Any]]:
    pages = []
    while True:
        page = listing(request, _kinds, default=default, key=("name",))
        rows = connection.execute(lists.apply(select(_table), page, _fields.get)).all()
        shown, token = lists.cut(rows, page)
        pages.append([row[:4] for row in shown])
        if not token:
            return pages
        request.token = token


def _names(connection: Connection, *filters: list_pb2.Filter) -> set[str]:
    request = list_pb2.ListRequest(limit=MAX_LIMIT, filters=filters)
    return {row[0] for page in _pages(connection, request) for row in page}


_rows = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.text("abAB", max_size=3),
            "note": st.none() | st.text("xy", max_size=1),
            "size": st.integers(-2, 2),
            "ended_at": st.none() | st.integers(0, 2),
        }
    ),
    max_size=30,
    unique_by=lambda row: row["name"],
)


def _null_first(key: str, row: dict[str, Any]) -> tuple[Any, ...]:
    return (0,) if row[key] is None else (1, row[key])


def _in_order(rows: list[dict[str, Any]], sorts: list[tuple[str, bool]]) -> list[str]:
    """The names, with the rows sorted."""
    expected = sorted(rows, key=lambda row: str(row["name"]), reverse=bool(sorts) and sorts[-1][1])
    for key, descending in reversed(sorts):
        expected.sort(key=partial(_null_first, key), reverse=descending)
    return [row["name"] for row in expected]


_sorts = st.lists(
    st.tuples(st.sampled_from(["name", "note", "size", "ended_at"]), st.booleans()), max_size=4, unique_by=lambda sort: sort[0]
)


@settings(deadline=None, max_examples=60)
@given(rows=_rows, sorts=_sorts, limit=st.integers(1, 7))
def test_pages_show_every_row_once_and_in_order(rows: list[dict[str, Any]], sorts: list[tuple[str, bool]], limit: int) -> None:
    """Whatever the sort, its directions, NULLs among the values and the pages' size."""
    keys = [list_pb2.Sort(key=key, direction=0 if descending else 1) for key, descending in sorts]
    with _database(rows) as connection:
        pages = _pages(connection, list_pb2.ListRequest(limit=limit, sort_by_fields=keys))
    connection.engine.dispose()

    assert [row[0] for page in pages for row in page] == _in_order(rows, sorts)
    assert all(len(page) == limit for page in pages[:-1])


_THINGS: list[dict[str, Any]] = [
    {"name": "Alpha_1", "note": "50%", "size": 4, "ended_at": None},
    {"name": "alpha-2", "note": None, "size": 5, "ended_at": 1_700_000_000_000_000},
    {"name": "beta", "note": "", "size": 10, "ended_at": 1_700_000_000_000_001},
]


@pytest.mark.parametrize(
    ("function", "field", "values", "expected"),
    [
        ("EQUAL", "name", ["beta"], {"beta"}),
        ("NOT_EQUAL", "name", ["beta"], {"Alpha_1", "alpha-2"}),
        ("NOT_EQUAL", "note", ["50%"], {"alpha-2", "beta"}),
        ("GREATER_THAN", "size", ["5"], {"beta"}),
        ("GREATER_THAN_OR_EQUAL", "size", ["5"], {"alpha-2", "beta"}),
        ("LESS_THAN", "ended_at", ["2023-11-14T22:13:20.000001+00:00"], {"alpha-2"}),
        ("LESS_THAN_OR_EQUAL", "ended_at", ["2023-11-14T23:13:20.000001+01:00"], {"alpha-2", "beta"}),
        ("EQUAL", "ended_at", ["2023-11-14T22:13:20Z"], {"alpha-2"}),
        ("CONTAINS", "name", ["lpha"], {"Alpha_1", "alpha-2"}),
        ("CONTAINS", "name", ["alpha"], {"alpha-2"}),
        ("CONTAINS", "name", ["_"], {"Alpha_1"}),
        ("CONTAINS", "note", ["%"], {"Alpha_1"}),
        ("CONTAINS", "name", [""], {"Alpha_1", "alpha-2", "beta"}),
        ("CONTAINS_CASE_INSENSITIVE", "name", ["ALPHA"], {"Alpha_1", "alpha-2"}),
        ("CONTAINS_CASE_INSENSITIVE", "name", ["A_"], {"Alpha_1"}),
        ("VALUE_IN", "size", ["4"], {"Alpha_1"}),
        ("VALUE_IN", "size", ["4", "10"], {"Alpha_1", "beta"}),
        ("VALUE_NOT_IN", "size", ["4", "10"], {"alpha-2"}),
        ("VALUE_NOT_IN", "note", ["50%", "x"], {"alpha-2", "beta"}),
        ("ENDS_WITH", "name", ["-2"], {"alpha-2"}),
        ("ENDS_WITH", "name", ["eta"], {"beta"}),
        ("ENDS_WITH", "name", ["xbeta"], set()),
        ("NOT_ENDS_WITH", "name", ["eta"], {"Alpha_1", "alpha-2"}),
        ("NOT_ENDS_WITH", "note", ["%"], {"alpha-2", "beta"}),
        ("EXISTS", "note", [], {"Alpha_1", "beta"}),
        ("NOT_EXISTS", "note", [], {"alpha-2"}),
        ("NOT_EXISTS", "size", [], set()),
        ("EQUAL", "phase", ["SUCCEEDED"], {"alpha-2"}),
        ("EQUAL", "phase", ["ACTION_PHASE_TIMED_OUT"], set()),
        ("EQUAL", "phase", ["1", "0"], {"beta"}),
    ],
)
def test_a_filter_shows_what_its_function_says(function: str, field: str, values: list[str], expected: set[str]) -> None:
    """Every function, with wildcards as plain text, upper and lower case told apart, and what is absent unequal to all."""
    with _database(_THINGS) as connection:
        assert _names(connection, _Filter(function=function, field=field, values=values)) == expected
    connection.engine.dispose()


def test_filters_hold_together() -> None:
    """Several filters show what meets all of them."""
    with _database(_THINGS) as connection:
        size, name = _Filter(function=2, field="size", values=["4"]), _Filter(function=6, field="name", values=["a"])
        assert _names(connection, size, name) == {"alpha-2", "beta"}
    connection.engine.dispose()


@pytest.mark.parametrize(
    ("function", "field", "values", "told"),
    [
        (0, "nothing", ["1"], "'nothing'"),
        (0, "size", ["four"], "request.filters[0].values (size): 'four' is not a whole number"),
        (0, "size", [str(2**63)], "is not a whole number"),
        (0, "count", [str(2**31)], "is not a whole number"),
        (4, "ended_at", ["yesterday"], "is not a time"),
        (0, "phase", ["11"], "is not one of"),
        (0, "phase", ["LAUGHING"], "is not one of"),
        (0, "name", [], "EQUAL needs a value"),
        (7, "size", [], "VALUE_IN needs a value"),
        (0, "name", ["a", "b"], "takes one value"),
        (0, "name", ["a\0b"], "is not text"),
        (6, "size", ["1"], "CONTAINS is for text"),
        (8, "size", ["1"], "there is no function 8"),
        (7, "size", ["1"] * 501, "at most 500"),
    ],
)
def test_a_wrong_filter_is_the_callers_error(function: int, field: str, values: list[str], told: str) -> None:
    """InvalidArgument, before any SQL, with the field and the value."""
    with pytest.raises(InvalidArgument) as raised:
        conditions([_Filter(function=function, field=field, values=values)], _kinds)
    assert told in raised.value.message


def _listing(**request: Any) -> Any:
    return listing(list_pb2.ListRequest(**request), _kinds, default=(Order("size", True),), key=("name",), scope=("p",))


def test_limits() -> None:
    """No limit is 50, and one over the maximum is refused rather than cut."""
    assert _listing().limit == DEFAULT_LIMIT
    assert _listing(limit=MAX_LIMIT).limit == MAX_LIMIT
    with pytest.raises(InvalidArgument, match=r"request\.limit is 201"):
        _listing(limit=MAX_LIMIT + 1)


def test_orders() -> None:
    """The deprecated sort_by counts where sort_by_fields is empty; the key is appended; DESCENDING is the IDL's default."""
    assert _listing().order == (Order("size", True), Order("name", True))
    assert _listing(sort_by=list_pb2.Sort(key="note", direction=1)).order == (Order("note"), Order("name"))
    both = _listing(sort_by=list_pb2.Sort(key="note"), sort_by_fields=[list_pb2.Sort(key="name")])
    assert both.order == (Order("name", True),)
    with pytest.raises(InvalidArgument, match="can't sort by 'nothing'"):
        _listing(sort_by_fields=[list_pb2.Sort(key="nothing")])


def test_a_token_belongs_to_its_list() -> None:
    """With another order, filter or scope, or tampered with, it is refused as the caller's error."""
    token = _listing().token((1, "a"))
    assert _listing(token=token).after == (1, "a")
    assert _listing(token=token, limit=7).after == (1, "a")
    others: list[dict[str, Any]] = [
        {"sort_by": list_pb2.Sort(key="name")},
        {"filters": [_Filter(field="name", values=["a"])]},
    ]
    for other in others:
        with pytest.raises(InvalidArgument, match=r"request\.token"):
            _listing(token=token, **other)
    wrong = ["50", "!!", token[:-3], _listing().token(("a", "a")), _listing().token((1,)), _listing().token((True, "a"))]
    for text in wrong:
        with pytest.raises(InvalidArgument, match=r"request\.token"):
            _listing(token=text)
    with pytest.raises(InvalidArgument, match=r"request\.token"):
        listing(list_pb2.ListRequest(token=token), _kinds, default=(Order("size", True),), key=("name",), scope=("q",))
