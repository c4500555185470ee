"""Postgres, for the replicas of a cluster: one connection that writes, a pool of those that read.

Replicas write at the same time, so work must be right under READ COMMITTED; ``db.postgres_writer`` says how a batch commits
and ``db.feed`` how the other replicas hear of it. A read has a snapshot of its own (REPEATABLE READ) and is repeated when its
connection breaks.

While the server is away, writes wait for a few seconds and are then refused as Unavailable, which is said only of what was
certainly not committed. Nothing is given up: as soon as the server answers, so do we.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import ExceptionContext, NullPool, event, text
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from flyte_unified.core.errors import ResourceExhausted, Unavailable
from flyte_unified.core.ids import ActionKey
from flyte_unified.db import schema
from flyte_unified.db.api import Notice, Work
from flyte_unified.db.batches import CLOSED, Job, drive, full, refusal
from flyte_unified.db.postgres_client import connect, is_away, is_read_only, told, waits
from flyte_unified.db.postgres_writer import PATIENCE, Queue, Writer

T = TypeVar("T")

_SCHEMA_LOCK = 0x666C7974_00000001


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
        creator = partial(self._connect, statement_timeout=statement_timeout)
        self._writes = _engine(partial(creator, by_key=True), poolclass=NullPool)
        self._pool = _engine(creator, pool_size=pool_size, max_overflow=0, pool_timeout=PATIENCE, pool_use_lifo=True)
        self._reads = self._pool.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self._queue = Queue(batch_limit=batch_limit)
        self._writer: asyncio.Task[None] | None = None
        self._open = False

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
        writer = Writer(self._queue, connect=self._connected, replica=self.replica)
        self._writer = asyncio.create_task(writer.run(), name="postgres-writer")
        self._open = True

    async def stop(self) -> None:
        """Finishes the writes that wait, as far as the server is there, then closes every connection."""
        self._open = False
        self._queue.close()
        writer, self._writer = self._writer, None
        if writer is not None:
            await asyncio.wait([writer], timeout=2 * PATIENCE)
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
        self._queue.refuse_all()
        await self._pool.dispose()

    @property
    def waiting(self) -> int:
        return len(self._queue)

    async def write(
        self,
        work: Callable[[], Work[T]],
        *,
        then: Callable[[T], None] | None = None,
        changed: Callable[[T], Iterable[ActionKey | Notice]] | None = None,
        single: bool = False,
    ) -> T:
        if not self._open:
            raise Unavailable(CLOSED)
        if (waiting := len(self._queue)) >= self._queue_limit:
            raise ResourceExhausted(full(waiting))
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._queue.add(Job(work, then, changed, future, since=loop.time(), single=single))
        return await future

    async def read(self, work: Callable[[], Work[T]]) -> T:
        if not self._open:
            raise Unavailable(CLOSED)
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE
        for wait in waits():
            try:
                async with self._reads.connect() as connection:
                    return await connection.run_sync(drive, work)
            except PoolTimeoutError as error:
                raise ResourceExhausted("every connection of database.pool_size is busy") from error
            except Exception as error:
                if not is_away(error) or is_read_only(error) or loop.time() + wait > until:
                    raise told(refusal(error)) from error
            await asyncio.sleep(wait)
        raise AssertionError  # there is always another wait

    async def _connected(self) -> AsyncConnection:
        return await self._writes.connect()


def _engine(creator: Callable[[], Any], **options: Any) -> AsyncEngine:
    engine = create_async_engine("postgresql+asyncpg://", async_creator=creator, **options)

    @event.listens_for(engine.sync_engine, "handle_error")
    def judge(context: ExceptionContext) -> None:
        """One connection that broke says that the pool's others did too."""
        if is_away(context.original_exception):
            context.is_disconnect = True

    return engine
