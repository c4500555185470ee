"""What writes to Postgres: one connection, which commits everything that waits in one transaction.

A batch that fails is rolled back and replayed caller by caller. It ends with its rows in ``changes`` and one NOTIFY. From
there to the commit it holds an advisory lock, so that ids are drawn in the order of commits: who sees one has missed none
before it. (NOTIFY makes committers wait for each other anyway; to wait for the oldest open transaction instead, which the
snapshot's xmin tells, would let anybody's forgotten transaction in the same server stop all watches.) The same rows tell,
when the connection breaks during a commit, whether it happened: when the server has ended that session they are there or not.

Where all that waits is of one or two kinds of statements, each kind is sent as one that commits by itself (``db.single``).

More connections were tried: three or six take no more calls a second than one, as the process's own work is the bound.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any

import structlog
from sqlalchemy import Connection, Executable, Row, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from flyte_unified.core.errors import Code, ResourceExhausted, RpcError, Unavailable
from flyte_unified.core.ids import ActionKey
from flyte_unified.db.api import Notice
from flyte_unified.db.batches import CLOSED, Job, deliver, refusal
from flyte_unified.db.postgres_client import CHANNEL, is_away, is_transient, is_undone, state, told, waits, words
from flyte_unified.db.single import LIVE_BELOW, Single, kinds, send, settle, written_since
from flyte_unified.db.together import perform

_log = structlog.get_logger(__name__)

PATIENCE = 4.0
"""Seconds that a call waits for a server that is away: less than clients wait for an answer."""
COMMIT_LOCK = 0x666C7974_00000002
_TRIES = 5
_NOTHING = Notice("", "")

_LOCK = text("SELECT pg_advisory_xact_lock(:key)")
_ADD_CHANGES = text(
    """
    WITH locked AS MATERIALIZED (
        SELECT pg_advisory_xact_lock(:lock)
    ), added AS (
        INSERT INTO changes (origin, project, domain, run, name, topic, key, at)
        SELECT CAST(:origin AS bigint), new.project, new.domain, new.run, new.name, new.topic, new.key,
               CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)
        FROM locked, unnest(
            CAST(:projects AS text[]), CAST(:domains AS text[]), CAST(:runs AS text[]), CAST(:names AS text[]),
            CAST(:topics AS text[]), CAST(:keys AS text[])
        ) WITH ORDINALITY AS new (project, domain, run, name, topic, key, place)
        ORDER BY new.place
        RETURNING id
    )
    SELECT max(id), CASE WHEN CAST(:tell AS boolean) THEN pg_notify(:channel, CAST(:origin AS text)) END FROM added
    """
)
_CHANGED = ("projects", "domains", "runs", "names", "topics", "keys")
_CHANGE = text("SELECT id FROM changes WHERE id = :id AND origin = :origin")
_SESSION = text("SELECT pid, backend_start AS since FROM pg_stat_activity WHERE pid = pg_backend_pid()")
_END_SESSION = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = :pid AND backend_start = :since")
_NO_PRIVILEGE = "42501"


class _HeldUpError(Exception):
    """A batch was not committed, through no fault of the work in it."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Queue:
    """Jobs that wait, in the order in which they are to be done."""

    def __init__(self, *, batch_limit: int) -> None:
        self._batch_limit = batch_limit
        self._jobs: deque[Job] = deque()
        self._changed = asyncio.Event()
        self._closed = False
        self._taken = 0

    def __len__(self) -> int:
        return len(self._jobs) + self._taken

    def add(self, job: Job) -> None:
        self._jobs.append(job)
        self._changed.set()

    def add_again(self, jobs: Sequence[Job]) -> None:
        self._jobs.extendleft(reversed(jobs))
        self._changed.set()

    def close(self) -> None:
        """``take`` gives what is there, and then nothing."""
        self._closed = True
        self._changed.set()

    async def take(self) -> list[Job]:
        """The next batch, when the one before is done with; empty when the queue is closed."""
        self._taken = 0
        while not self._jobs:
            if self._closed:
                return []
            self._changed.clear()
            await self._changed.wait()
        batch = [self._jobs.popleft()]
        while self._jobs and len(batch) < self._batch_limit and not (batch[0].alone or self._jobs[0].alone):
            batch.append(self._jobs.popleft())
        self._taken = len(batch)
        return batch

    def refuse_the_old(self, cause: Exception) -> None:
        """Those who waited long enough are told that nothing of theirs was committed."""
        until = asyncio.get_running_loop().time() - PATIENCE
        old = [job for job in self._jobs if job.since < until]
        if old:
            self._jobs = deque(job for job in self._jobs if job.since >= until)
            error = told(cause)
            away = (
                error if isinstance(error, Unavailable | ResourceExhausted) else Unavailable(f"the database is away: {error}")
            )
            refuse(old, away)

    def refuse_all(self) -> None:
        refuse(self._jobs, Unavailable(CLOSED))
        self._jobs.clear()


def refuse(jobs: Iterable[Job], error: Exception) -> None:
    for job in jobs:
        if not job.future.done():
            job.future.set_exception(error)


def _row(changed: ActionKey | Notice) -> tuple[str, ...]:
    return (*changed, "", "") if isinstance(changed, ActionKey) else ("", "", "", "", *changed)


class Writer:
    """One connection, opened by ``connect`` when there is something to write. ``replica`` signs what changed."""

    def __init__(self, queue: Queue, *, connect: Callable[[], Awaitable[AsyncConnection]], replica: int) -> None:
        self._queue = queue
        self._connect = connect
        self._replica = replica
        self._connection: AsyncConnection | None = None
        self._unsure: Sequence[Job] = ()
        """Of them nobody knows yet whether they were committed."""
        self._waits = waits()
        self._mark = 0
        """The last of our changes that we know of."""
        self._singly = False
        """Whether statements may be sent alone."""
        self._session: Row[Any] | None = None
        """As the server knows it; after the connection broke, the one before."""

    async def run(self) -> None:
        """Until the queue is closed and empty, or cancelled."""
        try:
            while batch := await self._queue.take():
                if groups := self._singly and kinds(batch):
                    for group in groups:
                        await self._finish([single.job for single in group], group)
                else:
                    await self._finish(batch)
        finally:
            refuse(self._unsure, RpcError(Code.UNKNOWN, "the server stopped while the database was away during a commit"))
            await self._disconnect()

    async def _finish(self, batch: list[Job], group: Sequence[Single] = ()) -> None:
        """Commits ``batch``, which may be a group sent as one statement, and answers its callers, or has them wait."""
        try:
            await (self._statement(batch, group) if group else self._transaction(batch))
        except _HeldUpError as error:
            self._queue.add_again(batch)
            self._queue.refuse_the_old(error.cause)
            wait = next(self._waits)
            _log.warning("writes wait for the database", waiting=len(batch), seconds=wait, error=words(error.cause))
            await asyncio.sleep(wait)
        except Exception as error:
            if len(batch) > 1:
                for job in batch:
                    job.alone = True
                self._queue.add_again(batch)
                return
            job = batch[0]
            job.tries += 1
            if is_transient(error) and job.tries < _TRIES:
                self._queue.add_again(batch)
                return
            job.error = told(refusal(error))
            deliver(batch)

    async def _transaction(self, batch: list[Job]) -> None:
        """Answers when it is committed. Raises _HeldUpError, or what the work itself raised; then nothing was committed."""
        connection = await self._connected(singly=False)
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
            if not await self._after_all(_CHANGE.bindparams(id=mark, origin=self._replica)):
                raise _HeldUpError(error) from error
        self._mark = mark
        self._waits = waits()
        deliver(batch)

    async def _statement(self, batch: list[Job], group: Sequence[Single]) -> None:
        """The same for what is one statement. Those that it does nothing for are done by themselves."""
        connection = await self._connected(singly=True)
        write = partial(send, group=group, lock=COMMIT_LOCK, origin=self._replica, channel=CHANNEL)
        try:
            rows, mark = await connection.run_sync(write)
            await connection.commit()  # says nothing to the server
        except Exception as error:
            if not is_away(error):
                await self._roll_back(connection)
                raise
            await self._disconnect()
            if is_undone(error):
                raise _HeldUpError(error) from error
            self._unsure = batch
            rows = await self._after_all(written_since(group[0].each, self._mark, self._replica))
            if not rows:
                raise _HeldUpError(error) from error
        else:
            self._mark = mark or self._mark
        self._waits = waits()
        left = settle(group, rows)
        for job in left:
            job.alone = True
        self._queue.add_again(left)
        deliver([job for job in batch if not job.alone])

    async def _connected(self, *, singly: bool) -> AsyncConnection:
        """``singly``: each statement commits by itself. Raises _HeldUpError."""
        try:
            if self._connection is None:
                self._connection = await self._connect()
                self._singly = await self._can_send_alone(self._connection)
                if not self._unsure:
                    await self._note_session(self._connection)
            level = "AUTOCOMMIT" if singly else "READ COMMITTED"
            return await self._connection.execution_options(isolation_level=level)
        except Exception as error:
            await self._disconnect()
            raise _HeldUpError(error) from error

    async def _can_send_alone(self, connection: AsyncConnection) -> bool:
        """Not where this database's owner lets us make nothing of our own for the time of a session."""
        try:
            await connection.execute(text(LIVE_BELOW))
            await connection.commit()
        except DBAPIError as error:
            if state(error) != _NO_PRIVILEGE:
                raise
            await connection.rollback()
            return False
        return True

    async def _note_session(self, connection: AsyncConnection) -> None:
        self._session = (await connection.execute(_SESSION)).one()
        await connection.rollback()

    def _add_changes(self, connection: Connection, batch: list[Job]) -> int:
        """Writes what changed, in this order; the id of the last row. Holds the lock from here to the commit."""
        keys = [key for job in batch if job.error is None and job.changed is not None for key in job.changed(job.result)]
        latest = [*dict.fromkeys(reversed(keys))][::-1]
        columns = zip(*map(_row, latest or [_NOTHING]), strict=True)
        values: dict[str, Any] = dict(zip(_CHANGED, map(list, columns), strict=True))
        values |= {"lock": COMMIT_LOCK, "origin": self._replica, "tell": bool(latest), "channel": CHANNEL}
        return int(connection.execute(_ADD_CHANGES, values).scalar_one())

    async def _after_all(self, asked: Executable) -> Sequence[Row[Any]]:
        """What there is when the session is over whose connection broke: until then it may still commit something."""
        assert self._session is not None
        session = {"pid": self._session.pid, "since": self._session.since}
        while True:
            try:
                connection = await self._connected(singly=False)
                while (await connection.execute(_END_SESSION, session)).all():
                    await connection.rollback()
                    await asyncio.sleep(next(self._waits))
                await connection.execute(_LOCK, {"key": COMMIT_LOCK})
                rows = (await connection.execute(asked)).all()
                await connection.rollback()
                await self._note_session(connection)
            except Exception as error:
                await self._disconnect()
                self._queue.refuse_the_old(error)
                await asyncio.sleep(next(self._waits))
            else:
                self._unsure = ()
                return rows

    async def _roll_back(self, connection: AsyncConnection) -> None:
        try:
            await connection.rollback()
        except Exception as error:
            _log.warning("the connection broke while it rolled back", error=words(error))
            await self._disconnect()

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.invalidate()
            await connection.close()
