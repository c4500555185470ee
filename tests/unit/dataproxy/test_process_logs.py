"""Lines of local processes, read from the files that the keeper writes."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from flyte_unified.dataproxy.process_logs import ProcessLines
from flyte_unified.launchers.api import WorkId
from flyte_unified.launchers.processes.pump import LogWriter, Stream
from tests.unit.dataproxy.conftest import ROOT


class _Attempts:
    """One attempt whose process and keeper are the test."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "1.log"
        self.started = asyncio.Event()
        self.alive = False
        self.woken = asyncio.Event()
        self._log: LogWriter | None = None

    @property
    def processes(self) -> _Attempts:
        return self

    def log_path(self, work: WorkId) -> Path:
        assert work == WorkId(ROOT, 1)
        return self._path

    async def begun(self, work: WorkId) -> None:
        await self.started.wait()

    def running(self, work: str) -> bool:
        return self.alive

    async def grown(self, work: str, offset: int) -> None:
        if self.alive:
            self.woken.clear()
            await self.woken.wait()

    def start(self, *, limit: int = 1 << 30) -> None:
        self._log = LogWriter(str(self._path), limit=limit)
        self.alive = True
        self.started.set()

    def write(self, data: bytes, *, stream: bytes = b"o") -> None:
        assert self._log is not None
        out = Stream(stream, self._log)
        out.feed(data)
        out.flush(goes_on=False)
        self.woken.set()

    def end(self) -> None:
        assert self._log is not None
        self._log.close()
        self.alive = False
        self.woken.set()


@pytest.fixture
def attempts(tmp_path: Path) -> _Attempts:
    return _Attempts(tmp_path)


async def test_from_before_the_start_to_the_end(attempts: _Attempts) -> None:
    """The stream waits for the process, tells each line with its end and its time, and ends when the attempt is over."""
    over = asyncio.Event()
    async with aclosing(ProcessLines(attempts).follow(ROOT, 1, over)) as batches:
        first = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0)
        attempts.start()
        attempts.write(b"one\ntwo\n")
        lines = await first
        assert [line.text for line in lines] == ["one\n", "two\n"]
        assert all(line.at > 1_600_000_000_000_000 and not line.system for line in lines)
        attempts.write(b"notice\n", stream=b"s")
        assert [(line.text, line.system) for line in await anext(batches)] == [("notice\n", True)]
        attempts.write(b"without end")
        attempts.end()
        assert [line.text for line in await anext(batches)] == ["without end\n"]
        rest = asyncio.ensure_future(anext(batches, None))
        await asyncio.sleep(0)
        assert not rest.done()
        over.set()
        assert await rest is None


async def test_what_was_written_out_of_sight(attempts: _Attempts) -> None:
    """Lines that came while nobody knew of the process are told before the stream ends."""
    over = asyncio.Event()
    attempts.start()
    attempts.write(b"one\n")
    attempts.alive = False
    async with aclosing(ProcessLines(attempts).follow(ROOT, 1, over)) as batches:
        assert [line.text for line in await anext(batches)] == ["one\n"]
        attempts.write(b"two\n")
        over.set()
        assert [line.text async for batch in batches for line in batch] == ["two\n"]
    attempts.end()


async def test_an_attempt_that_never_began(attempts: _Attempts) -> None:
    """Aborted while it was queued: no lines, and an end."""
    over = asyncio.Event()
    over.set()
    assert [batch async for batch in ProcessLines(attempts).follow(ROOT, 1, over)] == []


async def test_a_long_log_comes_in_pieces(attempts: _Attempts) -> None:
    """However long the log, a batch is bounded; nothing is lost, doubled or reordered between batches."""
    over = asyncio.Event()
    over.set()
    attempts.start()
    for start in range(0, 100_000, 10_000):
        attempts.write(b"".join(b"line %d\n" % number for number in range(start, start + 10_000)))
    attempts.end()
    number = 0
    async for batch in ProcessLines(attempts).follow(ROOT, 1, over):
        assert sum(len(line.text) for line in batch) <= 256 * 1024
        for line in batch:
            assert line.text == f"line {number}\n"
            number += 1
    assert number == 100_000


async def test_dropped_lines_are_told(attempts: _Attempts) -> None:
    """Where the bound of the log cut lines out, a notice says so, at a time that is not 1970."""
    over = asyncio.Event()
    over.set()
    attempts.start(limit=16_384)
    for number in range(1_000):
        attempts.write(b"line %d with some text\n" % number)
    attempts.end()
    lines = [line async for batch in ProcessLines(attempts).follow(ROOT, 1, over) for line in batch]
    notices = [line for line in lines if line.system]
    assert len(notices) == 1
    assert "dropped" in notices[0].text
    assert notices[0].at in {line.at for line in lines if not line.system}
    assert lines[-1].text == "line 999 with some text\n"
