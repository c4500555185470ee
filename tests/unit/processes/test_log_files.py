"""The log's file: what is written is read, from any offset, within its bound."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyte_unified.launchers.processes import logs, pump
from flyte_unified.launchers.processes.pump import LogWriter, Stream


async def test_a_bounded_log_keeps_its_beginning_and_its_end(tmp_path: Path) -> None:
    """Past its bound a log loses its middle, says how much, and stays within the bound."""
    path, limit = tmp_path / "log", 20_000
    writer = LogWriter(str(path), limit=limit)
    stream = Stream(b"o", writer)
    for n in range(10_000):
        stream.feed(b"line %d\n" % n)
    writer.close()
    lines = await _all(path)
    kept = [line for line in lines if line.stream == "stdout"]
    (gap,) = [line.text for line in lines if line.stream == "system"]
    numbers = [int(line.text.split()[1]) for line in kept]
    assert numbers[0] == 0
    assert numbers[-1] == 9_999
    assert sum(later - earlier != 1 for earlier, later in pairwise(numbers)) == 1
    found = re.fullmatch(r"\[flyte-unified\] (\d+) bytes of output were dropped here", gap)
    assert found is not None
    size = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert limit // 2 < size <= limit
    assert size + int(found[1]) == writer.offset


async def test_a_reader_that_keeps_up_misses_nothing(tmp_path: Path) -> None:
    """Offsets stay good while segments come and go."""
    path = tmp_path / "log"
    writer = LogWriter(str(path), limit=8192)
    stream = Stream(b"e", writer)
    offset, seen = 0, []
    for n in range(2_000):
        stream.feed(b"%d\n" % n)
        batch = await logs.read(path, offset=offset)
        offset = batch.offset
        seen += [int(line.text) for line in batch.lines]
    writer.close()
    assert seen == list(range(2_000))


async def test_a_writer_goes_on_where_another_stopped(tmp_path: Path) -> None:
    """A new keeper appends to the old one's log, in the right segment."""
    path = tmp_path / "log"
    for part in range(50):
        writer = LogWriter(str(path), limit=8192)
        for n in range(20):
            Stream(b"o", writer).feed(b"%d\n" % (part * 20 + n))
        writer.close()
    assert (await _all(path))[-1].text == "999"
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 8192


async def test_there_is_no_log_before_the_first_line(tmp_path: Path) -> None:
    """A log that does not exist is empty; an offset beyond its end stays where it is."""
    assert await logs.read(tmp_path / "none") == logs.Batch((), 0)
    (tmp_path / "log").touch()
    assert await logs.read(tmp_path / "log", offset=100) == logs.Batch((), 100)


async def test_a_very_long_line_is_cut_into_parts_and_joined(tmp_path: Path) -> None:
    """A line longer than the writer holds back is written in parts, and read as one."""
    path = tmp_path / "log"
    writer = LogWriter(str(path), limit=1 << 20)
    stream = Stream(b"o", writer)
    for _ in range(10):
        stream.feed(b"x" * 9_000)
    stream.feed(b"end\nnext\n")
    writer.close()
    first, second = (await logs.read(path)).lines
    assert first.text == "x" * 90_000 + "end"
    assert second.text == "next"
    assert path.read_bytes().count(b" O ") > 1


@pytest.mark.parametrize("character", ["ä", "語", "🙂"])
async def test_a_part_ends_between_characters(tmp_path: Path, character: str) -> None:
    """Of ten megabytes on one line none is lost, though a pipe is read in pieces of any length; and none is held for long."""
    path = tmp_path / "log"
    writer = LogWriter(str(path), limit=64 << 20)
    stream = Stream(b"o", writer)
    line = (character * (10_000_000 // len(character.encode()))).encode()
    for start in range(0, len(line), 65_533):
        stream.feed(line[start : start + 65_533])
        assert len(stream._rest) < 4
    stream.feed(b"\n")
    writer.close()
    assert "".join(part.text for part in await _all(path)) == line.decode()


async def test_a_record_in_the_making_is_left_for_later(tmp_path: Path) -> None:
    """A reader takes whole records only."""
    path = tmp_path / "log"
    path.write_bytes(b"0000000000000001 o whole\n0000000000000002 o ha")
    batch = await logs.read(path)
    assert [line.text for line in batch.lines] == ["whole"]
    with path.open("ab") as file:
        file.write(b"lf\n")
    assert [line.text for line in (await logs.read(path, offset=batch.offset)).lines] == ["half"]


async def test_a_full_disk_loses_lines_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be written is counted; what was written is still read, a torn record left out."""
    path = tmp_path / "log"
    writer = LogWriter(str(path), limit=1 << 20)
    stream = Stream(b"o", writer)
    stream.feed(b"before\n")

    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(pump.os, "write", full)
        stream.feed(b"lost\n")
    stream.feed(b"after\n")
    writer.close()
    assert [line.text for line in await _all(path)] == ["before", "after"]
    assert writer.lost == len(b"0000000000000001 o lost\n")


@settings(deadline=None, max_examples=50)
@given(st.lists(st.binary(max_size=200), max_size=20), st.integers(200, 5000))
def test_any_bytes_in_any_pieces_come_back_by_line(chunks: list[bytes], limit: int) -> None:
    """However output arrives and is read, its lines are those of the whole."""
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/log"
        writer = LogWriter(path, limit=1 << 20)
        stream = Stream(b"o", writer)
        for chunk in chunks:
            stream.feed(chunk)
        stream.flush(goes_on=False)
        writer.close()
        texts, offset = [], 0
        while (batch := logs._read(path, offset, limit)).offset > offset:
            texts += [line.text for line in batch.lines]
            offset = batch.offset
    whole = b"".join(chunks)
    expected = whole.removesuffix(b"\n").split(b"\n") if whole else []
    assert texts == [line.decode(errors="replace").removesuffix("\r") for line in expected]


async def _all(path: Path) -> list[logs.LogLine]:
    lines: list[logs.LogLine] = []
    offset = 0
    while (batch := await logs.read(path, offset=offset)).offset > offset:
        lines += batch.lines
        offset = batch.offset
    return lines
