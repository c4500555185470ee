"""Lines of attempts that are jobs of connectors: from the connector while they run, from the store when they have ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing

from flyteidl2.workflow import run_definition_pb2

from flyte_unified.core.clock import Clock, Micros
from flyte_unified.core.errors import FlyteUnifiedError
from flyte_unified.core.ids import ActionKey
from flyte_unified.core.phases import Phase
from flyte_unified.dataproxy.logs import Line, Lines, first
from flyte_unified.db.api import Database
from flyte_unified.launchers.api import WorkId
from flyte_unified.launchers.connectors import store as sql
from flyte_unified.launchers.connectors.job import Kept
from flyte_unified.launchers.connectors.logs import Pages
from flyte_unified.launchers.kept_logs import NOTICE, address
from flyte_unified.launchers.objects.times import parsed
from flyte_unified.ledger.api import Ledger
from flyte_unified.net.connectors import ConnectorClient
from flyte_unified.storage.api import DataStore

_BATCH = 1000
_FIRST = 0.5
"""Seconds until a log that had nothing new is asked for again; then twice as long, up to ``poll``."""


class JobLines:
    """The ``Lines`` of jobs; their logs are kept under ``base``. ``poll`` in seconds: connectors tell nothing unasked."""

    def __init__(
        self, *, client: ConnectorClient, database: Database, store: DataStore, clock: Clock, base: str, poll: float
    ) -> None:
        self._client = client
        self._database = database
        self._store = store
        self._clock = clock
        self._base = base
        self._poll = poll

    async def follow(self, key: ActionKey, attempt: int, over: asyncio.Event) -> AsyncGenerator[Sequence[Line]]:
        """As ``Lines`` has it, of a job that was created. What was read of it is passed over, by its count, in the store."""
        work = WorkId(key, attempt)
        uri = address(self._base, work)
        pages: Pages | None = None
        told, wait = 0, _FIRST
        while True:
            ended = over.is_set()
            if await self._store.head(uri) is not None:
                async for batch in self._stored(uri, told):
                    yield batch
                await over.wait()
                return
            if pages is None and (job := await self._job(work)) is not None:
                pages = Pages(self._client, job, clock=self._clock)
            if pages is None or ended:
                await over.wait()
                return
            async for batch in _news(pages):
                told, wait = told + len(batch), _FIRST
                yield batch
            await first(asyncio.sleep(min(wait, self._poll)), over)
            wait *= 2

    async def _job(self, work: WorkId) -> Kept | None:
        return await self._database.read(lambda: sql.get(work))

    async def _stored(self, uri: str, told: int) -> AsyncGenerator[list[Line]]:
        """All lines but the first ``told``."""
        rest, batch = b"", list[Line]()
        async for piece in self._store.read(uri):
            *lines, rest = (rest + piece).split(b"\n")
            fresh = lines[told:]
            told = max(0, told - len(lines))
            batch += _parsed(fresh)
            while len(batch) >= _BATCH:
                yield batch[:_BATCH]
                batch = batch[_BATCH:]
        if batch:
            yield batch


class EitherLines:
    """``jobs`` for attempts that are a connector's, ``others`` for all else: an attempt's record tells, once it has begun."""

    def __init__(self, *, ledger: Ledger, jobs: Lines, others: Lines) -> None:
        self._ledger = ledger
        self._jobs = jobs
        self._others = others

    async def follow(self, key: ActionKey, attempt: int, over: asyncio.Event) -> AsyncGenerator[Sequence[Line]]:
        record = await self._record(key, attempt)
        if not _begun(record):
            await first(self._begins(key, attempt, over), over)
            record = await self._record(key, attempt)
        lines = self._jobs if record.log_context.HasField("connector") else self._others
        async with aclosing(lines.follow(key, attempt, over)) as batches:
            async for batch in batches:
                yield batch

    async def _record(self, key: ActionKey, attempt: int) -> run_definition_pb2.ActionAttempt:
        details = await self._ledger.details(key)
        return next((record for record in details.attempts if record.attempt == attempt), details.action.latest())

    async def _begins(self, key: ActionKey, attempt: int, over: asyncio.Event) -> None:
        async with aclosing(self._ledger.watch_action(key)) as states:
            async for action in states:
                if action.attempt > attempt or _begun(action.latest()):
                    return
        await over.wait()


def _begun(record: run_definition_pb2.ActionAttempt) -> bool:
    context = record.log_context
    return context.HasField("connector") or bool(context.pods) or Phase(record.phase) >= Phase.RUNNING


async def _news(pages: Pages) -> AsyncGenerator[list[Line]]:
    """What a connector has of it by now. Why it can't tell, if it can't, is told when the log is kept."""
    try:
        async with aclosing(pages.news()) as told:
            async for lines in told:
                yield [Line(line.at, f"{line.text}\n", system=line.system) for line in lines]
    except FlyteUnifiedError:
        return


def _parsed(lines: Iterable[bytes]) -> Iterator[Line]:
    for line in lines:
        stamp, _, text = line.decode(errors="replace").partition(" ")
        yield Line(parsed(stamp) or Micros(0), f"{text}\n", system=text.startswith(NOTICE))
