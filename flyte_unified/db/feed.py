"""What other replicas commit, in the order of their commits.

A connection of its own listens. A notification carries no keys, only who wrote: it is the word to read on in ``changes``,
where ids are in the order of commits (see ``db.postgres``), from the last one seen. What is told is each changed action's
row as it is by then. A connection that broke loses nothing, since reading goes on from the same id; one that was away for
so long that rows were removed meanwhile, or that comes back to an older copy of the database, is told every action written
since. A failover may have taken the last commits without a trace, so what is remembered beside actions is then asked anew.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import asyncpg
import structlog

from flyte_unified.core.clock import SECOND
from flyte_unified.db.api import Notice
from flyte_unified.db.postgres_client import CHANNEL, connect, told, waits, words
from flyte_unified.db.tables import actions

_log = structlog.get_logger(__name__)

Row = tuple[Any, ...]

_PAGE = 1000
_KEPT = 3600.0
"""Seconds that a row of ``changes`` is kept."""
_TRIM = 60.0
_ALIVE = 20.0
"""Seconds without news after which the connection is tried: a way that is cut says nothing."""
_SKEW = 300.0
"""Seconds by which the clocks of two replicas may differ."""

_ROW = ", ".join(f"a.{column.name}" for column in actions.columns)
_LATEST = "SELECT coalesce(max(id), 0) FROM changes"
_CHANGED = f"""
    SELECT c.topic, c.key, {_ROW}
    FROM (
        SELECT project, domain, run, name, topic, key, max(id) AS last
        FROM changes
        WHERE id > $1 AND id <= $2 AND origin <> $3 AND (name <> '' OR topic <> '')
        GROUP BY project, domain, run, name, topic, key
    ) AS c
    LEFT JOIN actions AS a USING (project, domain, run, name)
    WHERE c.topic <> '' OR a.name IS NOT NULL
    ORDER BY c.last
"""
_SINCE = f"SELECT {_ROW} FROM actions AS a WHERE a.updated_at >= $1 ORDER BY a.updated_at"
_REMOVE = "DELETE FROM changes WHERE id < $1 AND at < $2"


class Feed:
    """``tell`` is called with rows of ``actions``, columns in the table's order; what ``replica`` itself wrote is left out.

    ``notice`` is called with what else others changed; with None, when that can't be said any more: anything may have changed.
    """

    def __init__(
        self,
        url: str,
        *,
        replica: int,
        tell: Callable[[Sequence[Row]], None],
        notice: Callable[[Notice | None], None],
        statement_timeout: float = 30.0,
    ) -> None:
        self._connect = partial(connect, url, statement_timeout=statement_timeout, by_key=True)
        self._replica = replica
        self._tell = tell
        self._notice = notice
        self._wake = asyncio.Event()
        self._last = 0
        self._read_at = 0.0
        self._trimmed_at = 0.0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Everything that commits after this returns will be told. Raises Unavailable when there is no server."""
        try:
            connection = await self._listening()
            self._last = await connection.fetchval(_LATEST)
        except Exception as error:
            raise told(error) from error
        self._read_at = time.monotonic()
        self._task = asyncio.create_task(self._follow(connection), name="postgres-feed")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _follow(self, connection: asyncpg.Connection | None) -> None:
        pauses = waits()
        while True:
            try:
                if connection is None:
                    connection = await self._listening()
                    await self._catch_up(connection)
                    pauses = waits()
                while True:
                    await self._woken()
                    await self._read(connection)
            except Exception as error:  # whatever it is: without this task watches would be silent for good
                pause = next(pauses)
                _log.warning("changes of other replicas wait for the database", seconds=pause, error=words(error))
                await asyncio.sleep(pause)
            finally:
                if connection is not None:
                    connection.terminate()
                    connection = None

    async def _listening(self) -> asyncpg.Connection:
        connection = await self._connect()
        connection.add_termination_listener(lambda _: self._wake.set())
        await connection.add_listener(CHANNEL, self._notified)
        return connection

    def _notified(self, _connection: object, _process: int, _channel: str, replica: object) -> None:
        if replica != str(self._replica):
            self._wake.set()

    async def _woken(self) -> None:
        try:
            async with asyncio.timeout(_ALIVE):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _catch_up(self, connection: asyncpg.Connection) -> None:
        """No action, if all that was missed can still be read."""
        self._notice(None)
        away = time.monotonic() - self._read_at
        latest = await connection.fetchval(_LATEST)
        if away < _KEPT / 2 and latest >= self._last:
            self._wake.set()
            return
        _log.warning("every action written meanwhile is told", seconds=away)
        since = int((time.time() - away - _SKEW) * SECOND)
        async with connection.transaction():
            page: list[Row] = []
            async for row in connection.cursor(_SINCE, since, prefetch=_PAGE):
                page.append(tuple(row))
                if len(page) == _PAGE:
                    self._tell(page)
                    page = []
            self._tell(page)
        self._last = latest
        self._wake.set()

    async def _read(self, connection: asyncpg.Connection) -> None:
        """Tells what committed since the last time."""
        self._wake.clear()
        latest = await connection.fetchval(_LATEST)
        while self._last < latest:
            upper = min(latest, self._last + _PAGE)
            rows = await connection.fetch(_CHANGED, self._last, upper, self._replica)
            for topic, key, *_ in rows:
                if topic:
                    self._notice(Notice(topic, key))
            if changed := [tuple(row)[2:] for row in rows if not row[0]]:
                self._tell(changed)
            self._last = upper
        self._read_at = time.monotonic()
        if self._read_at - self._trimmed_at > _TRIM:
            await connection.execute(_REMOVE, latest, int((time.time() - _KEPT) * SECOND))
            self._trimmed_at = self._read_at
