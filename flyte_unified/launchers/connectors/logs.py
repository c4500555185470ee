"""The log of a job: asked of its connector page by page, kept in the store when the job has ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import NamedTuple

import structlog
from flyteidl2.connector import connector_pb2
from flyteidl2.logs.dataplane import payload_pb2

from flyte_unified.core.clock import Clock, Micros, micros
from flyte_unified.core.errors import Code, FlyteUnifiedError, InvalidArgument, Unimplemented
from flyte_unified.launchers.connectors.job import Kept
from flyte_unified.launchers.kept_logs import Bounded, address, notice
from flyte_unified.launchers.objects.times import rfc3339
from flyte_unified.net.connectors import ConnectorClient
from flyte_unified.storage.api import DataStore

_log = structlog.get_logger(__name__)

_LINES = 1000
"""Lines of a page, where the connector lets us choose."""
_EMPTY = 10
"""Pages without a line, one after the other, that may come before one with lines."""


class JobLine(NamedTuple):
    at: Micros
    text: str
    system: bool = False


class Pages:
    """A job's log, read on from where it was.

    A page that is the last for now is asked for again, and what was read of it is passed over: the protocol has no other way.
    """

    def __init__(self, client: ConnectorClient, job: Kept, *, clock: Clock) -> None:
        self._client = client
        self._job = job
        self._clock = clock
        self._token = ""
        self._read = 0
        """Lines of the page at ``_token``."""

    async def news(self) -> AsyncGenerator[list[JobLine]]:
        """Lines that were not read before, until there are no more for now. Raises what the client does."""
        empty = 0
        while empty < _EMPTY:
            before, asked, count = self._read, self._token, 0
            async with aclosing(self._client.logs(self._job.connector, self._request())) as parts:
                async for part in parts:
                    if part.WhichOneof("part") == "header":
                        if part.header.token and part.header.token != self._token:
                            self._token, self._read, before = part.header.token, 0, 0
                        continue
                    lines = self._lines(part.body)
                    fresh, before = lines[before:], max(0, before - len(lines))
                    self._read += len(fresh)
                    count += len(fresh)
                    if fresh:
                        yield fresh
            if self._token == asked or self._read:  # the page that is asked for next was read already
                return
            empty = 0 if count else empty + 1

    def _request(self) -> connector_pb2.GetTaskLogsRequest:
        request = self._job.request
        return connector_pb2.GetTaskLogsRequest(
            resource_meta=request.resource_meta, lines=_LINES, token=self._token, task_category=request.task_category
        )

    def _lines(self, body: connector_pb2.GetTaskLogsResponseBody) -> list[JobLine]:
        now = self._clock.now()
        told = [self._line(line, now) for line in body.lines] or [JobLine(now, text) for text in body.results]
        return [line._replace(text=text) for line in told for text in line.text.removesuffix("\n").split("\n")]

    def _line(self, line: payload_pb2.LogLine, now: Micros) -> JobLine:
        try:
            at = micros(line.timestamp) if line.HasField("timestamp") else now
        except InvalidArgument:
            at = now
        return JobLine(at, line.message, line.originator == payload_pb2.SYSTEM)


def unsaid(error: FlyteUnifiedError, job: Kept) -> str:
    """What to tell of a log that can't be had."""
    if isinstance(error, Unimplemented) or (error.code is Code.UNKNOWN and "NotImplementedError" in error.message):
        return f"connector {job.connector} tells no logs of {job.request.task_category.name} jobs; its links may lead to them"
    return f"the log can't be had: {error.message}"


class JobLogs:
    """Keeps logs of at most ``limit`` bytes under ``base``."""

    def __init__(self, *, client: ConnectorClient, store: DataStore, clock: Clock, base: str, limit: int) -> None:
        self._client = client
        self._store = store
        self._clock = clock
        self._base = base
        self._limit = limit

    async def keep(self, job: Kept, *, patience: float) -> None:
        """Returns when the log is in the store, or what could be had of it in ``patience`` seconds."""
        log, lost = Bounded(self._limit), ""
        try:
            async with asyncio.timeout(patience), aclosing(Pages(self._client, job, clock=self._clock).news()) as pages:
                async for page in pages:
                    for line in page:
                        log.add(f"{rfc3339(line.at)} {line.text}".encode())
        except TimeoutError:
            lost = f"the rest of the log is lost: connector {job.connector} told no end of it within {patience:g} s"
        except FlyteUnifiedError as error:
            lost = unsaid(error, job)
        content = log.content() + (notice(rfc3339(self._clock.now()), lost) + b"\n" if lost else b"")
        try:
            await self._store.put(address(self._base, job.id), content)
        except FlyteUnifiedError as error:
            _log.warning("a log is not kept", work=str(job.id), error=error.message)
