"""The port to the database.

A piece of work is a generator: it yields statements, is sent their results, and returns what its caller wants to know. It does
no I/O itself, so the same text runs on a synchronous driver in the writer's thread and on an asynchronous one, alone or
together with others in one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from sqlalchemy import Executable, Result

from flyte_unified.core.ids import ActionKey
from flyte_unified.db.each import Each

T = TypeVar("T")

Statement = Executable | tuple[Executable | Each, Mapping[str, Any] | Sequence[Mapping[str, Any]]]
"""A statement, alone or with its parameters; a sequence of parameters runs it once for each.

An ``Each`` may be sent together with those of other callers, whose statements may come before and after it. Of a sequence, each
row has another key, and the answer holds the rows of all.
"""

Work = Generator[Statement, Result[Any], T]
"""Steps of one transaction. May be run again from its start, by a new call of the function that made it."""


class Notice(NamedTuple):
    """Something beside an action that changed, and that other replicas would like to know of: a topic, and what of it."""

    topic: str
    key: str


class Database(Protocol):
    """One database, opened by ``start`` (schema included) and closed by ``stop``."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    @property
    def waiting(self) -> int:
        """Writes that are not committed yet."""

    async def write(
        self,
        work: Callable[[], Work[T]],
        *,
        then: Callable[[T], None] | None = None,
        changed: Callable[[T], Iterable[ActionKey | Notice]] | None = None,
        single: bool = False,
    ) -> T:
        """Runs ``work`` in a transaction and answers after the commit.

        ``then`` is called with the result after the commit, in the order of commits, even if the caller was cancelled:
        the place to wake watchers. ``changed`` names the actions, or else, that the result is about, for other replicas,
        where the database has any. ``single``: its first statement is an ``Each`` that, where it can be sent alone and gives a
        row, is all that it writes. Raises ResourceExhausted at once when the queue of writes is full, Unavailable when
        the database is away and nothing was committed.
        """

    async def read(self, work: Callable[[], Work[T]]) -> T:
        """Runs ``work``, which only reads, on a snapshot of its own. Raises Unavailable when the database is away."""
