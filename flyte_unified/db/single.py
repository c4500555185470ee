"""Writes that are one statement, and commit by themselves: what others are told of them is written by the same statement.

In a transaction of its own a lone write costs four ways to the server: BEGIN, the statement, its rows in ``changes``, COMMIT.
Most writes of a cluster are alone, as pods move one by one, and most are one statement of an ``Each`` that says so (``alone``).
Here that statement is sent with the rest of its transaction in it, for all of a batch that wait with the same one.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Row,
    Select,
    bindparam,
    cast,
    func,
    insert,
    literal_column,
    select,
    true,
)

from flyte_unified.core.errors import FlyteUnifiedError
from flyte_unified.db.batches import Job
from flyte_unified.db.each import Each, Given
from flyte_unified.db.tables import actions, changes
from flyte_unified.db.together import given_rows, parameters

_PLACE = ("project", "domain", "run", "name")
LIVE_BELOW = """
    CREATE OR REPLACE FUNCTION pg_temp.flyte_live_below(text, text, text, text) RETURNS boolean LANGUAGE sql VOLATILE AS
    'SELECT EXISTS (
        SELECT 1 FROM actions WHERE project = $1 AND domain = $2 AND run = $3 AND parent = $4 AND ended_at IS NULL
    )'
"""
"""Whether an action has live children at the time of the call: what is volatile sees more than the statement that calls it."""


class Single:
    """One job, which waits at its first statement."""

    def __init__(self, job: Job) -> None:
        """``each`` is None where that can't be sent alone."""
        self.job = job
        self.each: Each | None = None
        self._steps: Generator[Any, Any, Any] = job.work()
        try:
            statement = next(self._steps)
        except (StopIteration, FlyteUnifiedError):
            return
        if isinstance(statement, tuple) and isinstance(statement[0], Each) and isinstance(statement[1], dict):
            self.each, self.values = (statement[0] if statement[0].alone is not None else None), statement[1]

    @property
    def key(self) -> tuple[Any, ...]:
        assert self.each is not None
        return self.each.key_of(self.values)

    def answer(self, row: Sequence[Any]) -> None:
        """The statement gave it ``row``; what it asks after that has no rows, as the statement saw to it."""
        assert self.each is not None
        self.job.error = None
        result = self.each.answer([row[: len(self.each.columns)]])
        try:
            while True:
                each, _ = self._steps.send(result)
                if not each.reads:
                    raise TypeError("what is sent alone writes nothing else")
                result = each.answer([])
        except StopIteration as end:
            self.job.result = end.value


def kinds(batch: Sequence[Job]) -> list[list[Single]]:
    """``batch`` by its statements; empty where not all of it can be sent alone, or one transaction costs less."""
    groups: dict[Each, dict[tuple[Any, ...], Single]] = {}
    for job in batch:
        if not job.single or job.alone or (single := Single(job)).each is None:
            return []
        group = groups.setdefault(single.each, {})
        if single.key in group or len(groups) > _MOST:
            return []
        group[single.key] = single
    return [list(group.values()) for group in groups.values()]


_MOST = 2
"""Statements in place of one transaction: each of them waits for the disk."""


def send(
    connection: Connection, group: Sequence[Single], *, lock: int, origin: int, channel: str
) -> tuple[Sequence[Row[Any]], int | None]:
    """Writes what ``group`` waits for, with its changes; the rows it gave, and the id of the last change.

    ``lock`` puts commits in order, ``origin`` signs the changes, ``channel`` is where they are told. The connection is one
    that commits each statement.
    """
    each = group[0].each
    assert each is not None
    rows = [single.values for single in sorted(group, key=lambda single: single.key)]
    values = dict(rows[0]) if len(rows) == 1 else parameters(each, rows)
    statement = _statement(each, many=len(rows) > 1)
    values |= {"about_lock": lock, "about_origin": origin, "about_channel": channel, "about_told": str(origin)}
    told = connection.execute(statement, values).all()
    return told, told[0].mark if told else None


def settle(group: Sequence[Single], rows: Sequence[Sequence[Any]]) -> list[Job]:
    """Gives each of ``group`` its row; those that got none wrote nothing."""
    each = group[0].each
    assert each is not None
    found = {each.key_in(row): row for row in rows}
    left = []
    for single in group:
        if (row := found.get(single.key)) is None:
            left.append(single.job)
        else:
            single.answer(row)
    return left


def written_since(each: Each | None, mark: int, origin: int) -> Select[Any]:
    """What ``send`` would have told of what this replica committed after ``mark``."""
    assert each is not None
    since = select(*(changes.c[name] for name in _PLACE)).where(changes.c.id > mark, changes.c.origin == origin).subquery()
    same = [actions.c[name] == since.c[name] for name in _PLACE]
    return select(*(actions.c[name] for name in each.columns)).where(*same)


@cache
def _statement(each: Each, *, many: bool) -> Select[Any]:
    """Locks rows first and ``COMMIT_LOCK`` then, as every transaction does: nothing is told before all is written."""
    assert each.alone is not None
    given: Given = given_rows(each) if many else {name: bindparam(name, type_=type_) for name, type_ in each.values.items()}
    written = each.alone(given).cte("written")
    some = select(func.count().label("rows")).select_from(written).subquery("some")
    locked = select(func.pg_advisory_xact_lock(_about("lock")).label("lock")).where(some.c.rows > 0).cte("locked")
    now = cast(literal_column("extract(epoch FROM clock_timestamp()) * 1000000"), BigInteger)
    columns = (cast(_about("origin"), BigInteger), *(written.c[name] for name in _PLACE), now)
    told = select(*columns).select_from(written.join(locked, true()))
    added = insert(changes).from_select(["origin", *_PLACE, "at"], told).returning(changes.c.id).cte("added")
    notified = select(func.pg_notify(_about("channel"), _about("told"))).select_from(locked).scalar_subquery()
    mark = select(func.max(added.c.id)).scalar_subquery().label("mark")
    return select(*(written.c[name] for name in each.columns), mark, notified.label("notified"))


def _about(name: str) -> Any:
    return bindparam(f"about_{name}")
