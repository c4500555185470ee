"""Statements about one row, which a database may send for many callers at once.

A round trip costs Postgres and us more than the row it is about. So a store writes what is asked most often as an ``Each``:
built once with the parameters of one row, and, where callers wait together, once more with a table of their values
(``db.together``). The text is the same, so what holds of one holds of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Delete, Insert, Result, Select, Update, bindparam
from sqlalchemy.engine import IteratorResult
from sqlalchemy.engine.result import SimpleResultMetaData
from sqlalchemy.types import TypeEngine

Given = Mapping[str, ColumnElement[Any]]
"""The values of one row, by name, as a statement may refer to them."""
Build = Callable[[Given], Select[Any] | Insert | Update | Delete]


class Each:
    """``build`` makes the statement; ``values`` names and types what it is given.

    ``key`` says whose a row of the answer is: names of values, and of the columns that come back equal to them. Two callers of
    one key are never in one statement, but for those that only read, or are told nothing.

    ``alone`` makes it for a transaction of its own (``db.single``). A row that this gives says that everything is done: of what
    its caller still asks there are no rows. It is an action that changed, its place first.
    """

    def __init__(
        self,
        build: Build,
        *,
        values: Mapping[str, TypeEngine[Any]],
        key: Mapping[str, str],
        alone: Callable[[Given], Insert | Update] | None = None,
    ) -> None:
        self.build = build
        self.alone = alone
        self.values = dict(values)
        self.one = build({name: bindparam(name, type_=type_) for name, type_ in values.items()})
        self.reads = isinstance(self.one, Select)
        self.columns = [str(name) for name in self.one.exported_columns.keys()]  # noqa: SIM118  # no mapping
        self.silent = not self.columns
        self._key = tuple(key)
        self._places = [self.columns.index(name) for name in key.values()] if self.columns else []
        self._metadata = SimpleResultMetaData(self.columns)

    def key_of(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(values[name] for name in self._key)

    def key_in(self, row: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(row[place] for place in self._places)

    def answer(self, rows: Sequence[Sequence[Any]]) -> Result[Any]:
        """What one caller is told."""
        return IteratorResult(self._metadata, iter(rows))
