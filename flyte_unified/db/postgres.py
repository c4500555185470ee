"""Postgres, for the replicas of a cluster: one connection that writes, a pool of those that read.

The writer takes all work that waits, runs it in one transaction and commits once. A batch that fails is rolled back and
replayed caller by caller. Other replicas write at the same time, so work must be right under READ COMMITTED.

A batch ends with its rows in ``changes`` and one NOTIFY. From there to the commit it holds an advisory lock, so that ids are
drawn in the order of commits: who sees one has missed none before it. (NOTIFY makes committers wait for each other anyway;
to wait for the oldest open transaction instead, which the snapshot's xmin tells, would let anybody's forgotten transaction
in the same server stop all watches.) The same rows tell, when the connection breaks during a commit, whether it happened:
the lock is free only when that transaction has ended, and then its row is there or it is not.

While the server is away, writes wait for a few seconds and are then refused as Unavailable, which is said only of what was
certainly not committed. Nothing is given up: as soon as the server answers, so do we.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection, ExceptionContext, NullPool, event, text
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from flyte_unified.core.errors import Code, ResourceExhausted, RpcError, Unavailable
from flyte_unified.core.ids import ActionKey
from flyte_unified.db import schema
from flyte_unified.db.api import Work
from flyte_unified.db.batches import CLOSED, Job, deliver, drive, full, perform, refusal
from flyte_unified.db.postgres_client import CHANNEL, connect, is_away, is_transient, told, waits, words

T = TypeVar("T")

_log = structlog.get_logger(__name__)

_PATIENCE = 4.0
"""Seconds that a call waits for a server that is away: less than clients wait for an answer."""
_TRIES = 5
_SCHEMA_LOCK, _COMMIT_LOCK = 0x666C7974_00000001, 0x666C7974_00000002
_NOBODY = ActionKey("", "", "", "")

_LOCK = text("SELECT pg_advisory_xact_lock(:key)")
_ADD_CHANGES = text(
    """
    WITH added AS (
        INSERT INTO changes (origin, project, domain, run, name, at)
        SELECT CAST(:origin AS bigint), key.project, key.domain, key.run, key.name,
               CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)
        FROM unnest(CAST(:projects AS text[]), CAST(:domains AS text[]), CAST(:runs AS text[]), CAST(:names AS text[]))
             WITH ORDINALITY AS key (project, domain, run, name, place)
        ORDER BY key.place
        RETURNING id
    )
    SELECT max(id), CASE WHEN CAST(:tell AS boolean) THEN pg_notify(:channel, CAST(:origin AS text)) END FROM added
    """
)
_ORIGIN_OF = text("SELECT origin FROM changes WHERE id = :id")


class _HeldUpError(Exception):
    """A batch was not committed, through no fault of the work in it."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class PostgresDatabase:
    """``replica`` is this process's number among those of the cluster, new at every start.

    ``pool_size`` connections read, one more writes. ``queue_limit`` bounds the writes that wait, ``batch_limit`` those of one
    transaction; ``statement_timeout`` is in seconds.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 8,
        queue_limit: int = 10_000,
        statement_timeout: float = 30.0,
        batch_limit: int = 128,
    ) -> None:
        self.replica = secrets.randbits(62)
        self._connect = partial(connect, url)
        self._queue_limit = queue_limit
        self._batch_limit = batch_limit
        creator = partial(self._connect, statement_timeout=statement_timeout)
        self._writes = _engine(creator, poolclass=NullPool)
        self._pool = _engine(creator, pool_size=pool_size, max_overflow=0, pool_timeout=_PATIENCE, pool_use_lifo=True)
        self._reads = self._pool.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self._jobs: deque[Job] = deque()
        self._under_way = 0
        self._alone = 0
        """How many of the jobs that wait are to be run each for itself."""
        self._unsure: Sequence[Job] = ()
        """Of them nobody knows yet whether they were committed."""
        self._wanted = asyncio.Event()
        self._connection: AsyncConnection | None = None
        self._writer: asyncio.Task[None] | None = None
        self._closing = False
        self._waits = waits()

    async def start(self) -> None:
        """Creates the schema or moves an older one forward; other replicas that start meanwhile wait.

        Raises Unavailable when there is no server, FailedPrecondition when the schema is newer than this program.
        """
        engine = _engine(partial(self._connect, statement_timeout=0.0), poolclass=NullPool)
        try:
            async with engine.connect() as connection:
                await connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _SCHEMA_LOCK})
                await connection.commit()
                await connection.run_sync(schema.prepare)  # the lock ends with the connection
        except Exception as error:
            raise told(error) from error
        finally:
            await engine.dispose()
        self._writer = asyncio.create_task(self._write_batches(), name="postgres-writer")

    async def stop(self) -> None:
        """Finishes the writes that wait, as far as the server is there, then closes every connection."""
        if self._writer is None:
            return
        writer, self._writer = self._writer, None
        self._closing = True
        self._wanted.set()
        try:
            async with asyncio.timeout(2 * _PATIENCE):
                await writer
        except TimeoutError:
            self._refuse(self._jobs, Unavailable(CLOSED))
            self._refuse(self._unsure, RpcError(Code.UNKNOWN, "the server stopped while the database was away during a commit"))
        await self._disconnect()
        await self._pool.dispose()

    async def write(
        self,
        work: Callable[[], Work[T]],
        *,
        then: Callable[[T], None] | None = None,
        changed: Callable[[T], Iterable[ActionKey]] | None = None,
    ) -> T:
        if self._writer is None:
            raise Unavailable(CLOSED)
        if (waiting := len(self._jobs) + self._under_way) >= self._queue_limit:
            raise ResourceExhausted(full(waiting))
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.append(Job(work, then, changed, future, since=loop.time()))
        self._wanted.set()
        return await future

    async def read(self, work: Callable[[], Work[T]]) -> T:
        if self._writer is None:
            raise Unavailable(CLOSED)
        loop = asyncio.get_running_loop()
        until = loop.time() + _PATIENCE
        for wait in waits():
            try:
                async with self._reads.connect() as connection:
                    return await connection.run_sync(drive, work)
            except PoolTimeoutError as error:
                raise ResourceExhausted("every connection of database.pool_size is busy") from error
            except Exception as error:
                if not is_away(error) or loop.time() + wait > until:
                    raise told(refusal(error)) from error
            await asyncio.sleep(wait)
        raise AssertionError  # there is always another wait

    # The writer

    async def _write_batches(self) -> None:
        while True:
            if not self._jobs:
                if self._closing:
                    return
                self._wanted.clear()
                await self._wanted.wait()
                continue
            size = 1 if self._alone else min(len(self._jobs), self._batch_limit)
            batch = [self._jobs.popleft() for _ in range(size)]
            self._under_way = size
            await self._commit(batch)
            self._under_way = 0

    async def _commit(self, batch: list[Job]) -> None:
        """Commits ``batch`` and answers its callers, or lets them wait for another try."""
        alone, self._alone = self._alone, max(0, self._alone - 1)
        try:
            await self._transaction(batch)
        except _HeldUpError as error:
            self._alone = alone
            self._jobs.extendleft(reversed(batch))
            await self._hold_on(error.cause)
            return
        except Exception as error:
            if len(batch) > 1:
                self._alone = len(batch)
                self._jobs.extendleft(reversed(batch))
                return
            job = batch[0]
            job.tries += 1
            if is_transient(error) and job.tries < _TRIES:
                self._alone = alone
                self._jobs.appendleft(job)
                return
            job.error = told(refusal(error))
        else:
            self._waits = waits()
        deliver(batch)

    async def _transaction(self, batch: list[Job]) -> None:
        """Raises _HeldUpError, or what the work itself raised; then nothing was committed."""
        try:
            if self._connection is None:
                self._connection = await self._writes.connect()
            connection = self._connection
        except Exception as error:
            raise _HeldUpError(error) from error
        try:
            await connection.run_sync(perform, batch)
        except Exception as error:
            if is_away(error):
                await self._disconnect()
                raise _HeldUpError(error) from error
            await self._roll_back(connection)
            raise
        try:
            mark = await connection.run_sync(self._add_changes, batch)
        except Exception as error:
            await self._disconnect()
            raise _HeldUpError(error) from error
        try:
            await connection.commit()
        except Exception as error:
            await self._disconnect()
            self._unsure = batch
            if not await self._happened(mark):
                raise _HeldUpError(error) from error

    def _add_changes(self, connection: Connection, batch: list[Job]) -> int:
        """Writes what changed, in this order; the id of the last row. Holds the lock from here to the commit."""
        keys = [key for job in batch if job.error is None and job.changed is not None for key in job.changed(job.result)]
        latest = [*dict.fromkeys(reversed(keys))][::-1]
        connection.execute(_LOCK, {"key": _COMMIT_LOCK})
        columns = zip(*(latest or [_NOBODY]), strict=True)
        values: dict[str, Any] = dict(zip(("projects", "domains", "runs", "names"), map(list, columns), strict=True))
        values |= {"origin": self.replica, "tell": bool(latest), "channel": CHANNEL}
        return int(connection.execute(_ADD_CHANGES, values).scalar_one())

    async def _happened(self, mark: int) -> bool:
        """Whether the commit happened during which the connection broke. Goes on until the server tells."""
        for wait in waits():
            try:
                async with self._writes.connect() as connection:
                    await connection.execute(_LOCK, {"key": _COMMIT_LOCK})
                    origin = (await connection.execute(_ORIGIN_OF, {"id": mark})).scalar_one_or_none()
                    self._unsure = ()
                    return origin == self.replica
            except Exception as error:
                self._refuse_the_old(error)
                await asyncio.sleep(wait)
        raise AssertionError  # there is always another wait

    async def _hold_on(self, cause: Exception) -> None:
        self._refuse_the_old(cause)
        wait = next(self._waits)
        _log.warning("writes wait for the database", waiting=len(self._jobs), seconds=wait, error=words(cause))
        await asyncio.sleep(wait)

    def _refuse_the_old(self, cause: Exception) -> None:
        """Those who waited long enough are told that nothing of theirs was committed."""
        until = asyncio.get_running_loop().time() - _PATIENCE
        old = [job for job in self._jobs if job.since < until]
        if not old:
            return
        error = told(cause)
        self._jobs = deque(job for job in self._jobs if job.since >= until)
        self._alone = min(self._alone, len(self._jobs))
        self._refuse(old, error if isinstance(error, ResourceExhausted) else Unavailable(f"the database is away: {error}"))

    def _refuse(self, jobs: Iterable[Job], error: Exception) -> None:
        for job in jobs:
            if not job.future.done():
                job.future.set_exception(error)

    async def _roll_back(self, connection: AsyncConnection) -> None:
        try:
            await connection.rollback()
        except Exception:
            await self._disconnect()

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.invalidate()
            await connection.close()


def _engine(creator: Callable[[], Any], **options: Any) -> AsyncEngine:
    engine = create_async_engine("postgresql+asyncpg://", async_creator=creator, **options)

    @event.listens_for(engine.sync_engine, "handle_error")
    def judge(context: ExceptionContext) -> None:
        """One connection that broke says that the pool's others did too."""
        if is_away(context.original_exception):
            context.is_disconnect = True

    return engine
