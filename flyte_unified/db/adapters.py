"""The database that the settings ask for: a file, or Postgres by its address."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyte_unified import settings
from flyte_unified.core.errors import FailedPrecondition
from flyte_unified.db.api import Database, Notice
from flyte_unified.db.sqlite import SQLiteDatabase

if TYPE_CHECKING:
    from flyte_unified.db.feed import Feed


def choose(
    database: settings.Database,
    *,
    file: Path,
    tell: Callable[[Sequence[tuple[Any, ...]]], None],
    notice: Callable[[Notice | None], None],
) -> tuple[Database, Feed | None]:
    """The database and, where others write to it too, what they tell: actions to ``tell``, all else to ``notice``.

    Raises FailedPrecondition where a library is missing.
    """
    if not database.url:
        return SQLiteDatabase(file, queue_limit=database.queue_limit), None
    try:
        from flyte_unified.db.feed import Feed  # a laptop has no need of them
        from flyte_unified.db.postgres import PostgresDatabase
    except ModuleNotFoundError as error:
        raise FailedPrecondition(f"database.url needs {error.name}: pip install 'flyte-unified[cluster]'") from error

    postgres = PostgresDatabase(
        database.url,
        pool_size=database.pool_size,
        queue_limit=database.queue_limit,
        statement_timeout=database.statement_timeout,
    )
    feed = Feed(
        database.url,
        replica=postgres.replica,
        tell=tell,
        notice=notice,
        statement_timeout=database.statement_timeout,
    )
    return postgres, feed
