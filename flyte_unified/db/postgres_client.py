"""How a Postgres server is reached, and what its errors mean.

Addresses are libpq's (``postgresql://user:password@host:port/database?sslmode=require``); what they leave out is taken from
the PG* variables and ``~/.pgpass``. Codes: https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

from collections.abc import Iterator

import asyncpg
from sqlalchemy.exc import DBAPIError, InterfaceError, StatementError

from flyte_unified.core.errors import Internal, InvalidArgument, ResourceExhausted, Unavailable

CHANNEL = "flyte_unified_changes"
"""NOTIFY's; what is told on it is the number of the replica that wrote."""

_CONNECT_SECONDS = 3.0
_ANSWER_SECONDS = 5.0
"""How much later than its own time limit an answer of the server may come, before the connection counts as dead."""

_IDLE = "10s"

_TRANSIENT = frozenset({"40001", "40P01", "55P03", "0A000"})
"""Lost against another transaction, or (0A000) planned before the schema changed: the same again may succeed."""
_READ_ONLY = "25006"
_AWAY = frozenset({"57P01", "57P02", "57P03", "57P05", "25P03", _READ_ONLY, "53300"})
"""The server stops, starts, has become a standby, has no connection left, or has ended ours."""
_CANCELED = "57014"
_DISK_FULL = "53100"


_BY_KEY = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off"}
"""How rows named by their keys are found, whatever the planner thinks of a table that was empty when it was asked first."""


async def connect(url: str, *, statement_timeout: float, by_key: bool = False) -> asyncpg.Connection:
    """A connection whose statements end after ``statement_timeout`` seconds; 0: never.

    ``by_key``: all that it asks for is named by its key.
    """
    settings = {
        "application_name": "flyte-unified",
        "statement_timeout": str(round(statement_timeout * 1000)),
        # A replica that vanished, or stands still, in a transaction holds its locks no longer than this.
        "idle_in_transaction_session_timeout": _IDLE if statement_timeout else "0",
        "jit": "off",
        "timezone": "UTC",
        **(_BY_KEY if by_key else {}),
    }
    return await asyncpg.connect(
        url,
        timeout=_CONNECT_SECONDS,
        command_timeout=statement_timeout + _ANSWER_SECONDS if statement_timeout else None,
        server_settings=settings,
    )


def waits() -> Iterator[float]:
    """Seconds between tries to reach the server."""
    wait = 0.05
    while True:
        yield wait
        wait = min(2 * wait, 1.0)


def is_away(error: BaseException) -> bool:
    """Whether the server, or the way to it, is the reason, and not what was asked."""
    cause, known = _cause(error), state(error)
    if isinstance(cause, OSError | TimeoutError | asyncpg.InternalClientError) or known in _AWAY or known.startswith("08"):
        return True
    if isinstance(cause, asyncpg.InterfaceError) or isinstance(error, InterfaceError):
        return not isinstance(cause, ValueError)  # a value that its column cannot hold, found out on our side
    return isinstance(error, DBAPIError) and error.connection_invalidated


def is_undone(error: BaseException) -> bool:
    """Whether a statement that commits by itself did nothing: it was never sent, or the server itself says that it failed."""
    known = state(error)
    return isinstance(_cause(error), asyncpg.InterfaceError) or (bool(known) and not known.startswith("08"))


def is_read_only(error: BaseException) -> bool:
    """Whether something was to be written where nothing may be: by a read, or on a server that has become a standby."""
    return state(error) == _READ_ONLY


def is_transient(error: BaseException) -> bool:
    return state(error) in _TRANSIENT


def told(error: Exception) -> Exception:
    """What a caller is told of an error of the database; anything else as it is."""
    if is_away(error):
        wrapped: Exception = Unavailable(f"the database is away: {words(error)}")
    elif not isinstance(error, DBAPIError | asyncpg.PostgresError):
        return error
    elif (known := state(error)) == _CANCELED:
        wrapped = Unavailable("the database took longer than database.statement_timeout")
    elif known == _DISK_FULL:
        wrapped = ResourceExhausted(f"the database refused a statement: {words(error)}")
    elif known.startswith("22") or isinstance(_cause(error), ValueError):
        wrapped = InvalidArgument(f"a value that the database cannot hold: {words(error)}")
    elif is_transient(error):
        wrapped = Unavailable(f"other writes were always faster: {words(error)}")
    else:
        wrapped = Internal(f"the database refused a statement: {words(error)}")
    wrapped.__cause__ = error
    return wrapped


def words(error: BaseException) -> str:
    """What happened, without the statement that it happened to."""
    cause = _cause(error)
    return str(cause) or type(cause).__name__


def _cause(error: BaseException) -> BaseException:
    """The error of asyncpg, or of the system, from under SQLAlchemy's."""
    if isinstance(error, StatementError) and error.orig is not None:
        return error.orig.__cause__ or error.orig
    return error


def state(error: BaseException) -> str:
    """The SQLSTATE of what went wrong; empty where the server said none."""
    return str(getattr(_cause(error), "sqlstate", "") or "")
