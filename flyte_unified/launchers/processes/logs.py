"""Reads what ``pump`` wrote: lines of a task's output, from any offset, and as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from flyte_unified.launchers.processes import pump

_BATCH = 256 * 1024


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of output."""

    at: int
    """When it was read from the task, microseconds since the epoch."""
    stream: str
    """``stdout``, ``stderr`` or ``system`` (a notice of ours)."""
    text: str
    """Without the line's end; what is not UTF-8 is replaced."""
    goes_on: bool = False
    """The stream's next line is the rest of this one."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Lines in order, and the offset to go on from."""

    lines: tuple[LogLine, ...]
    offset: int


_STREAMS = {"o": "stdout", "e": "stderr", "s": "system"}


async def read(path: Path, *, offset: int = 0, limit: int = _BATCH) -> Batch:
    """The next lines of the log from ``offset``, about ``limit`` bytes of it; none at its present end.

    Offsets are those of earlier batches, or 0. Where the bound of the log cut lines out, one line says so.
    """
    return await asyncio.to_thread(_read, str(path), offset, limit)


async def follow(
    path: Path,
    *,
    running: Callable[[], bool],
    grown: Callable[[int], Awaitable[None]],
    offset: int = 0,
) -> AsyncGenerator[Batch]:
    """Batches from ``offset`` until the task has ended and all is read.

    ``running`` says whether the task may still write, ``grown`` returns when the log is longer than an offset or the
    task ended (``ProcessLauncher.running`` and ``grown``).
    """
    while True:
        live = running()
        batch = await read(path, offset=offset)
        if batch.offset > offset:
            yield batch
            offset = batch.offset
        elif live:
            await grown(offset)
        else:
            return


def _read(path: str, offset: int, limit: int) -> Batch:
    starts = pump.segments(path)
    if not starts:
        return Batch((), offset)
    start = max((s for s in starts if s <= offset), default=starts[0])
    lines: list[LogLine] = []
    try:
        with open(pump.segment(path, start), "rb") as file:  # noqa: PTH123
            file.seek(max(0, offset - start))
            data = file.read(limit)
            size = file.seek(0, 2)
    except FileNotFoundError:  # dropped between the listing and now
        return _read(path, offset, limit)
    whole = data[: data.rfind(b"\n") + 1]
    end = max(offset, start) + len(whole)
    lines += _parse(whole)
    following = next((s for s in starts if s > start), None)
    if not whole and following is not None and offset >= start + size:
        if following > offset:
            lines.append(LogLine(0, "system", f"[flyte-unified] {following - offset} bytes of output were dropped here"))
        rest = _read(path, following, limit)
        return Batch((*lines, *rest.lines), rest.offset)
    return Batch(tuple(lines), end)


def _parse(data: bytes) -> list[LogLine]:
    lines: list[LogLine] = []
    for record in data.decode(errors="replace").split("\n")[:-1]:
        stamp, _, rest = record.partition(" ")
        stream, _, text = rest.partition(" ")
        if not stamp.isdigit() or stream.lower() not in _STREAMS:
            continue  # the torn end of a write for which the disk had no room
        line = LogLine(int(stamp), _STREAMS[stream.lower()], text.removesuffix("\r"), stream.isupper())
        if lines and lines[-1].goes_on and lines[-1].stream == line.stream:
            line = LogLine(lines[-1].at, line.stream, lines.pop().text + line.text, line.goes_on)
        lines.append(line)
    return lines
