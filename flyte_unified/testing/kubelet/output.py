"""What containers wrote, as a kubelet gives it out."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from flyte_unified.core.clock import SECOND
from flyte_unified.launchers.processes import logs
from flyte_unified.launchers.processes.pump import segment, segments
from flyte_unified.testing.kubelet.environment import Object
from flyte_unified.testing.kubelet.runtime import Runtime, Sandbox

_MESSAGE = 4096
_TAIL_BYTES, _TAIL_LINES = 2048, 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The options of PodLogOptions. ``since`` is in microseconds since the epoch."""

    follow: bool = False
    timestamps: bool = False
    tail: int | None = None
    since: int = 0
    limit: int | None = None
    """Bytes."""


async def read(runtime: Runtime, run_id: str, path: Path, wanted: Wanted) -> AsyncIterator[bytes]:
    """The log at ``path``, in pieces."""
    formed = _Form(timestamps=wanted.timestamps)
    kept: deque[logs.LogLine] = deque(maxlen=wanted.tail)
    offset, room = 0, wanted.limit
    async for batch in runtime.follow(run_id, path, offset=0, wait=False):
        kept.extend(line for line in batch.lines if line.at >= wanted.since)
        offset = batch.offset
        if wanted.tail is None:
            piece = formed.bytes(kept)[:room]
            kept.clear()
            room = None if room is None else room - len(piece)
            yield piece
    yield formed.bytes(kept)[:room]
    if wanted.follow:
        async for batch in runtime.follow(run_id, path, offset=offset, wait=True):
            yield formed.bytes([line for line in batch.lines if line.at >= wanted.since])


class _Form:
    def __init__(self, *, timestamps: bool) -> None:
        self._timestamps = timestamps
        self._unfinished: set[str] = set()

    def bytes(self, lines: deque[logs.LogLine] | list[logs.LogLine]) -> bytes:
        parts: list[str] = []
        for line in lines:
            if line.stream == "system":  # ours, not the container's
                continue
            if self._timestamps and line.stream not in self._unfinished:
                parts.append(f"{_stamp(line.at)} ")
            parts.append(line.text if line.goes_on else f"{line.text}\n")
            (self._unfinished.add if line.goes_on else self._unfinished.discard)(line.stream)
        return "".join(parts).encode(errors="replace")


def termination_message(container: Object, sandbox: Sandbox, run: int, *, failed: bool) -> str:
    """What the container said of its end: the file for that, or with FallbackToLogsOnError the end of its log."""
    path = sandbox.message(run)
    if path.exists() and (data := path.read_bytes()[:_MESSAGE]):
        return data.decode(errors="replace")
    if not failed or container.get("terminationMessagePolicy") != "FallbackToLogsOnError":
        return ""
    log = str(sandbox.log(run))
    if not (starts := segments(log)):
        return ""
    data = Path(segment(log, starts[-1])).read_bytes()[-4 * _TAIL_BYTES :]
    texts = [line.split(b" ", 2)[2] for line in data.split(b"\n") if line[17:18] in b"oeOE" and line.count(b" ") >= 2]
    return b"".join(text + b"\n" for text in texts[-_TAIL_LINES:])[-_TAIL_BYTES:].decode(errors="replace")


def _stamp(at: int) -> str:
    """RFC 3339 with nine digits of a second, as container runtimes write it."""
    return datetime.fromtimestamp(at // SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{at % SECOND:06d}000Z"
