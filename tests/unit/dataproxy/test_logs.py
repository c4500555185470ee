"""Streams of log lines: waiting, following, ending."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import pytest
from flyteidl2.core import execution_pb2
from flyteidl2.dataproxy import dataproxy_service_pb2 as dataproxy
from flyteidl2.logs.dataplane import payload_pb2
from flyteidl2.workflow import run_logs_service_pb2

from flyte_unified.core.clock import Micros
from flyte_unified.core.errors import NotFound
from flyte_unified.core.ids import ActionKey
from flyte_unified.core.phases import Phase
from flyte_unified.dataproxy.handlers import DataProxyHandlers, RunLogsHandlers
from flyte_unified.dataproxy.logs import Line, LogTail
from flyte_unified.ledger.api import Failure, Move, Retry
from tests.unit.dataproxy.conftest import CONTEXT, ROOT, Proxy


class Written:
    """Lines in memory, written by the test."""

    def __init__(self) -> None:
        self.lines: dict[int, list[Line]] = {}
        self.changed = asyncio.Event()
        self.following = 0

    def write(self, attempt: int, text: str, *, system: bool = False) -> None:
        self.lines.setdefault(attempt, []).append(Line(Micros(1_000_000), text, system))
        self.changed.set()

    async def follow(self, key: ActionKey, attempt: int, over: asyncio.Event) -> AsyncGenerator[Sequence[Line]]:
        self.following += 1
        sent = 0
        try:
            while True:
                ended = over.is_set()
                if fresh := self.lines.get(attempt, [])[sent:]:
                    sent += len(fresh)
                    yield fresh
                elif ended:
                    return
                else:
                    self.changed.clear()
                    waits = [asyncio.ensure_future(event.wait()) for event in (self.changed, over)]
                    try:
                        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        for wait in waits:
                            wait.cancel()
        finally:
            self.following -= 1


@pytest.fixture
def written() -> Written:
    return Written()


@pytest.fixture
def tail(proxy: Proxy, written: Written) -> LogTail:
    return LogTail(ledger=proxy.ledger, lines=written)


async def _all(tail: LogTail, attempt: int = 0) -> list[str]:
    return [line.text async for batch in tail.follow(ROOT, attempt) for line in batch]


async def test_a_finished_attempt(proxy: Proxy, written: Written, tail: LogTail) -> None:
    """Everything is sent, and the stream ends."""
    await proxy.run()
    written.write(1, "one\n")
    written.write(1, "two\n")
    await proxy.ledger.move(ROOT, Move(to=Phase.SUCCEEDED))
    assert await _all(tail) == ["one\n", "two\n"] == await _all(tail, 1)


async def test_a_queued_attempt_is_waited_for_and_followed(proxy: Proxy, written: Written, tail: LogTail) -> None:
    """A stream opened before the task starts tells every line as it comes, and the last ones before it ends."""
    await proxy.run()
    async with aclosing(tail.follow(ROOT, 1)) as batches:
        first = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0)
        assert not first.done()
        await proxy.ledger.move(ROOT, Move(to=Phase.RUNNING))
        written.write(1, "started\n")
        assert [line.text for line in await first] == ["started\n"]
        written.write(1, "last\n")
        await proxy.ledger.move(ROOT, Move(to=Phase.FAILED))
        assert [line.text async for batch in batches for line in batch] == ["last\n"]


async def test_each_attempt_has_its_log(proxy: Proxy, written: Written, tail: LogTail) -> None:
    """The log of an attempt that was retried is over, the latest one's goes on; 0 is the latest."""
    await proxy.run()
    written.write(1, "first\n")
    await proxy.ledger.move(ROOT, Move(to=Phase.RUNNING))
    await proxy.ledger.move(
        ROOT, Retry(attempt=1, error=execution_pb2.ExecutionError(code="X", message="x"), failure=Failure.USER)
    )
    assert await _all(tail, 1) == ["first\n", "x\n"]
    written.write(2, "second\n")
    await proxy.ledger.move(ROOT, Move(to=Phase.SUCCEEDED))
    assert await _all(tail, 0) == ["second\n"]


async def test_a_retry_ends_the_stream_of_the_attempt_before(proxy: Proxy, written: Written, tail: LogTail) -> None:
    """A stream that follows attempt 1 ends when attempt 2 begins, with what went wrong."""
    await proxy.run()
    await proxy.ledger.move(ROOT, Move(to=Phase.RUNNING))
    written.write(1, "first\n")
    async with aclosing(tail.follow(ROOT, 1)) as batches:
        assert len(await anext(batches)) == 1
        await proxy.ledger.move(
            ROOT, Retry(attempt=1, error=execution_pb2.ExecutionError(code="X", message="x"), failure=Failure.USER)
        )
        assert [line.text async for batch in batches for line in batch] == ["x\n"]


async def test_the_reason_of_a_failure_is_the_last_word(proxy: Proxy, written: Written, tail: LogTail) -> None:
    """What the attempt's error says stands at the end, as a line of the system, unless the task wrote it itself."""
    await proxy.run()
    written.write(1, "ValueError: no such file\n")
    error = execution_pb2.ExecutionError(code="ValueError", message="no such file\n\nIt ran in /python.")
    await proxy.ledger.move(ROOT, Move(to=Phase.FAILED, error=error))
    last = [line async for batch in tail.follow(ROOT, 1) for line in batch][1:]
    assert [(line.text, line.system) for line in last] == [("It ran in /python.\n", True)]


async def test_the_reason_of_an_abort_is_told(proxy: Proxy, tail: LogTail) -> None:
    """The log of an attempt that never began says who or what ended it."""
    await proxy.run()
    await proxy.ledger.move(ROOT, Move(to=Phase.ABORTED, reason="no longer wanted"))
    assert await _all(tail) == ["aborted: no longer wanted\n"]


async def test_what_has_no_log(proxy: Proxy, tail: LogTail) -> None:
    """An unknown action and an attempt that has not begun are NotFound."""
    await proxy.run()
    with pytest.raises(NotFound, match="no attempt 2"):
        await _all(tail, 2)
    with pytest.raises(NotFound):
        async for _ in tail.follow(ROOT.sibling("other"), 1):
            pass


async def test_a_reader_that_leaves_is_forgotten(proxy: Proxy, written: Written, tail: LogTail) -> None:
    """Closing the stream in the middle stops reading the log and watching the ledger."""
    await proxy.run()
    written.write(1, "one\n")
    async with aclosing(tail.follow(ROOT, 1)) as batches:
        await anext(batches)
        assert written.following == 1
    assert written.following == 0
    assert [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("log of")] == []


@pytest.mark.virtual_time
async def test_a_quiet_task(proxy: Proxy, written: Written, tail: LogTail) -> None:
    """Who follows hears every ten seconds that there is nothing, and loses no line by it: some clients wait for 30."""
    await proxy.run()
    handlers = DataProxyHandlers(uploads=proxy.uploads, downloads=proxy.downloads, logs=tail)
    request = dataproxy.TailLogsRequest(action_id=ROOT.idl(), attempt=1)
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with aclosing(handlers.tail_logs(request, CONTEXT)) as replies:
        for quiet in range(1, 5):
            assert await anext(replies) == dataproxy.TailLogsResponse()
            assert loop.time() - began == pytest.approx(10 * quiet)
        written.write(1, "at last\n")
        await proxy.ledger.move(ROOT, Move(to=Phase.SUCCEEDED))
        assert [line.message async for reply in replies for logs in reply.logs for line in logs.lines] == ["at last\n"]


async def test_a_stopping_server_ends_the_stream(proxy: Proxy, written: Written, tail: LogTail) -> None:
    """When the ledger tells no more, the stream ends instead of waiting for good."""
    await proxy.run()
    written.write(1, "one\n")
    async with aclosing(tail.follow(ROOT, 1)) as batches:
        await anext(batches)
        proxy.ledger.changes.close()
        async with asyncio.timeout(5):
            assert [batch async for batch in batches] == []


async def test_both_services_tell_the_same(proxy: Proxy, written: Written, tail: LogTail) -> None:
    """DataProxyService and RunLogsService send the same lines: time, text with its end, and who wrote it."""
    await proxy.run()
    written.write(1, "out\n")
    written.write(1, "lost some lines\n", system=True)
    await proxy.ledger.move(ROOT, Move(to=Phase.SUCCEEDED))
    handlers = DataProxyHandlers(uploads=proxy.uploads, downloads=proxy.downloads, logs=tail)
    request = dataproxy.TailLogsRequest(action_id=ROOT.idl("org"), attempt=1)
    new = [line async for reply in handlers.tail_logs(request, CONTEXT) for logs in reply.logs for line in logs.lines]
    older = run_logs_service_pb2.TailLogsRequest(action_id=ROOT.idl(), attempt=1)
    old = [
        line
        async for reply in RunLogsHandlers(logs=tail).tail_logs(older, CONTEXT)
        for logs in reply.logs
        for line in logs.lines
    ]
    assert new == old
    assert [(line.message, line.originator, line.timestamp.seconds) for line in new] == [
        ("out\n", payload_pb2.USER, 1),
        ("lost some lines\n", payload_pb2.SYSTEM, 1),
    ]
