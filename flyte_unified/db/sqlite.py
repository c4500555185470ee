"""SQLite, for one process: a file in WAL mode, one writer thread, a few readers.

The writer takes all work that waits, runs it in one transaction and commits once (``synchronous=FULL``: a commit survives a
power cut). A batch that fails is rolled back and replayed caller by caller, so one bad statement hurts its own caller only.
Work that raises before it has written anything leaves the batch untouched.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError, DBAPIError
from sqlalchemy.pool import NullPool

from flyte_unified.core.errors import FailedPrecondition, Internal, ResourceExhausted, Unavailable
from flyte_unified.core.ids import ActionKey
from flyte_unified.db import schema
from flyte_unified.db.api import Notice, Work
from flyte_unified.db.batches import CLOSED, Job, deliver, drive, full, perform, refusal
from flyte_unified.db.direct import driver_of, execute
from flyte_unified.db.dumps import unusable

T = TypeVar("T")

_BATCH = 512
_READERS = 3


class SQLiteDatabase:
    """``path`` is the database file; ``queue_limit`` bounds the writes that wait."""

    def __init__(self, path: Path, *, queue_limit: int = 10_000) -> None:
        self._path = path
        self._queue_limit = queue_limit
        self._waiting = 0
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._engine: Engine = _engine(path)
        self._local = threading.local()
        self._readers: ThreadPoolExecutor | None = None
        self._reading: list[Connection] = []
        self._writer: threading.Thread | None = None

    async def start(self) -> None:
        """Opens the file, creating its schema or moving an older one forward.

        Raises FailedPrecondition for what a newer version of this program wrote, and for what is no database of ours.
        """
        try:
            await asyncio.to_thread(_prepare, self._engine)
        except DatabaseError as error:
            raise FailedPrecondition(unusable(self._path, error.orig)) from error
        loop = asyncio.get_running_loop()
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="sqlite-reader")
        self._writer = threading.Thread(target=self._write_batches, args=(loop,), name="sqlite-writer", daemon=True)
        self._writer.start()

    async def stop(self) -> None:
        """Finishes the writes that wait, then closes the file."""
        if self._writer is None or self._readers is None:
            return
        writer, self._writer = self._writer, None
        readers, self._readers = self._readers, None
        self._jobs.put(None)
        await asyncio.to_thread(writer.join)
        await asyncio.to_thread(readers.shutdown)
        for connection in self._reading:
            connection.close()
        self._engine.dispose()

    @property
    def waiting(self) -> int:
        return self._waiting

    async def write(
        self,
        work: Callable[[], Work[T]],
        *,
        then: Callable[[T], None] | None = None,
        changed: Callable[[T], Iterable[ActionKey | Notice]] | None = None,
        single: bool = False,
    ) -> T:
        if self._writer is None:
            raise Unavailable(CLOSED)
        if self._waiting >= self._queue_limit:
            raise ResourceExhausted(full(self._waiting))
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting += 1
        self._jobs.put(Job(work, then, changed, future))
        return await future

    async def read(self, work: Callable[[], Work[T]]) -> T:
        if self._readers is None:
            raise Unavailable(CLOSED)
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, work)

    def _read(self, work: Callable[[], Work[T]]) -> T:
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._engine.connect()
            connection.exec_driver_sql("PRAGMA query_only = ON")
            self._reading.append(connection)
        connection.exec_driver_sql("BEGIN")
        try:
            return drive(connection, work, execute=execute)
        finally:
            connection.exec_driver_sql("ROLLBACK")

    def _write_batches(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._engine.connect() as connection:
            while (job := self._jobs.get()) is not None:
                batch = [job]
                closing = self._drain(batch)
                self._commit(connection, batch)
                loop.call_soon_threadsafe(self._deliver, batch)
                if closing:
                    return

    def _drain(self, batch: list[Job]) -> bool:
        while len(batch) < _BATCH:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return False
            if job is None:
                return True
            batch.append(job)
        return False

    def _commit(self, connection: Connection, batch: list[Job]) -> None:
        try:
            _transaction(connection, batch)
        except Exception as error:
            if len(batch) == 1:
                batch[0].error = _plain(error)
                return
            for job in batch:
                self._commit(connection, [job])

    def _deliver(self, batch: list[Job]) -> None:
        self._waiting -= len(batch)
        deliver(batch)


def _transaction(connection: Connection, batch: list[Job]) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    try:
        perform(connection, batch, execute=execute)
        connection.exec_driver_sql("COMMIT")
    except BaseException:
        if driver_of(connection).in_transaction:  # SQLite has rolled back by itself when the disk is full
            connection.exec_driver_sql("ROLLBACK")
        raise


def _plain(error: Exception) -> Exception:
    """What the caller of a single failed piece of work is told."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if not isinstance(cause, sqlite3.Error):
        return refusal(error)
    disk_full = getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    wrapped = (ResourceExhausted if disk_full else Internal)(f"the database refused a statement: {cause}")
    wrapped.__cause__ = error
    return wrapped


def _prepare(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # one start at a time
        schema.prepare(connection)


def _engine(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool, connect_args={"check_same_thread": False, "timeout": 30})

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # transactions are begun and ended by us, in words
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute("PRAGMA cache_size = -8192")

    return engine
