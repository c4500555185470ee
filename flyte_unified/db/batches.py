"""What writers of every database share: callers' work, how it is run, and how its callers are answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, Result, Select

from flyte_unified.core.errors import FlyteUnifiedError
from flyte_unified.core.ids import ActionKey
from flyte_unified.db.api import Notice, Statement, Work
from flyte_unified.db.each import Each

T = TypeVar("T")

CLOSED = "the server is starting or stopping: its database is not open"


@dataclass(slots=True)
class Job:
    """One caller's work, and then what became of it."""

    work: Callable[[], Work[Any]]
    then: Callable[[Any], None] | None
    changed: Callable[[Any], Iterable[ActionKey | Notice]] | None
    future: asyncio.Future[Any]
    since: float = 0.0
    """When it was asked for, in the loop's seconds."""
    single: bool = False
    """Its first statement may be all that it writes."""
    tries: int = 0
    alone: bool = False
    """A batch that it was part of failed: it is to be run for itself."""
    result: Any = None
    error: Exception | None = None


class DirtyError(Exception):
    """Work raised after it had written: the transaction must be rolled back."""


def full(waiting: int) -> str:
    """What a caller is told when too many wait already."""
    return f"{waiting} writes wait for the database; at most database.queue_limit may"


def execute(connection: Connection, statement: Statement) -> tuple[Result[Any], bool]:
    """The result of one statement, and whether something was written."""
    if not isinstance(statement, tuple):
        return connection.execute(statement), not isinstance(statement, Select)
    what, values = statement
    if not isinstance(what, Each):
        return connection.execute(what, values), not isinstance(what, Select)
    if what.reads and isinstance(values, Mapping):
        return connection.execute(what.one, values), False
    results = [connection.execute(what.one, row) for row in ((values,) if isinstance(values, Mapping) else values)]
    if what.silent:
        return results[-1], True
    rows = [row for result in results for row in result]
    return what.answer(rows), bool(rows) and not what.reads


Execute = Callable[[Connection, Statement], tuple[Result[Any], bool]]


def perform(connection: Connection, batch: Sequence[Job], *, execute: Execute = execute) -> None:
    """Runs every job in the transaction under way; one that is refused before it has written keeps its error."""
    for job in batch:
        job.result = job.error = None
        try:
            job.result = drive(connection, job.work, execute=execute)
        except FlyteUnifiedError as error:
            job.error = error


def drive(connection: Connection, work: Callable[[], Work[T]], *, execute: Execute = execute) -> T:
    """The result of ``work``. Raises DirtyError in place of an error of ours when something was written before it."""
    steps = work()
    dirty = False
    try:
        statement = next(steps)
        while True:
            result, wrote = execute(connection, statement)
            dirty = dirty or wrote
            statement = steps.send(result)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # a generator's result is untyped in StopIteration
    except FlyteUnifiedError as error:
        if dirty:
            raise DirtyError from error
        raise


def refusal(error: Exception) -> Exception:
    """The caller's own error, where work was undone for it."""
    return error.__cause__ if isinstance(error, DirtyError) and isinstance(error.__cause__, Exception) else error


def deliver(batch: Sequence[Job]) -> None:
    """Answers the callers, and does what follows a commit."""
    for job in batch:
        if job.error is not None:
            if not job.future.done():
                job.future.set_exception(job.error)
            continue
        if job.then is not None:
            try:
                job.then(job.result)
            except Exception as error:  # the commit stands: everyone is answered all the same
                told = {"message": "what follows a commit failed", "exception": error}
                asyncio.get_running_loop().call_exception_handler(told)
        if not job.future.done():
            job.future.set_result(job.result)
