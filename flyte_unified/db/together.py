"""A batch of work whose callers' equal statements are sent as one.

Each piece of work runs on until it yields an ``Each``. There it waits; of all that wait, those with the same statement go
together. So between two of its own statements a piece of work may find that another of the batch was there, just as another
replica might have been: it must not rest on what it read, but on what its statement itself demands (``WHERE``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import ARRAY, Connection, Delete, Insert, Result, Select, String, Text, Update, bindparam, column, func
from sqlalchemy.types import TypeEngine

from flyte_unified.core.errors import FlyteUnifiedError
from flyte_unified.db.batches import DirtyError, Job, execute
from flyte_unified.db.each import Each, Given

_PORTION = 1000
"""Rows of one statement, at most."""


def perform(connection: Connection, batch: Sequence[Job]) -> None:
    """Runs every job in the transaction under way; one that is refused before it has written keeps its error."""
    courses = [_Course(job) for job in batch]
    waiting = [course for course in courses if course.advance(connection, None)]
    while waiting:
        each = waiting[0].each
        others = [course for course in waiting if course.each is not each]
        waiting = others + _send(connection, each, [course for course in waiting if course.each is each])


class _Course:
    """One job on its way from one ``Each`` to the next."""

    def __init__(self, job: Job) -> None:
        job.result = job.error = None
        self._job = job
        self._steps = job.work()
        self._dirty = False
        self.each: Each
        self.rows: dict[tuple[Any, ...], Mapping[str, Any]]
        """What it waits for: the values of each row, by its key."""

    def answer(self, connection: Connection, rows: Sequence[Sequence[Any]]) -> bool:
        """Goes on with what the statement that it waited for gave it."""
        self._dirty = self._dirty or bool(rows and not self.each.reads) or self.each.silent
        return self.advance(connection, self.each.answer(rows))

    def advance(self, connection: Connection, result: Result[Any] | None) -> bool:
        """True when it waits at an ``Each``, False when it is done. Raises DirtyError as ``batches.drive`` does."""
        try:
            statement = next(self._steps) if result is None else self._steps.send(result)
            while not (isinstance(statement, tuple) and isinstance(statement[0], Each)):
                result, wrote = execute(connection, statement)
                self._dirty = self._dirty or wrote
                statement = self._steps.send(result)
            self.each, values = statement[0], statement[1]
        except StopIteration as end:
            self._job.result = end.value
            return False
        except FlyteUnifiedError as error:
            if self._dirty:
                raise DirtyError from error
            self._job.error = error
            return False
        self.rows = {self.each.key_of(row): row for row in ((values,) if isinstance(values, Mapping) else values)}
        return True


def _send(connection: Connection, each: Each, courses: Sequence[_Course]) -> list[_Course]:
    """Sends what ``courses`` wait for; those of them that then wait again, or still."""
    rows: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    answered, left = [], []
    for course in courses:
        if each.reads or each.silent or rows.keys().isdisjoint(course.rows):
            rows |= course.rows
            answered.append(course)
        else:
            left.append(course)
    found: defaultdict[tuple[Any, ...], list[Sequence[Any]]] = defaultdict(list)
    for some in _portions([rows[key] for key in sorted(rows)]):  # whoever locks rows, on any replica, does so in one order
        result = _execute(connection, each, some)
        for row in () if each.silent else result:
            found[each.key_in(row)].append(row)
    again = [one for one in answered if one.answer(connection, [row for key in one.rows for row in found[key]])]
    return left + again


def _portions(rows: list[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    for start in range(0, len(rows), _PORTION):
        yield rows[start : start + _PORTION]


def _execute(connection: Connection, each: Each, rows: Sequence[Mapping[str, Any]]) -> Result[Any]:
    if len(rows) == 1:
        return connection.execute(each.one, rows[0])
    return connection.execute(_many(each), parameters(each, rows))


def parameters(each: Each, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The values of ``rows``, as ``given_rows`` names them."""
    return {_parameter(name): [row[name] for row in rows] for name in each.values}


@cache
def _many(each: Each) -> Select[Any] | Insert | Update | Delete:
    return each.build(given_rows(each))


def given_rows(each: Each) -> Given:
    """A table of values in place of one row's."""
    types = {name: _plain(type_) for name, type_ in each.values.items()}
    arrays = [bindparam(_parameter(name), type_=ARRAY(type_)) for name, type_ in types.items()]
    given = func.unnest(*arrays).table_valued(*(column(name, type_) for name, type_ in types.items()))
    return dict(given.render_derived(name="given").c.items())


def _plain(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    """Postgres would cut a text that is too long, if it were told the length here, and not refuse it."""
    return Text() if isinstance(type_, String) else type_


def _parameter(name: str) -> str:
    return f"all_{name}"
