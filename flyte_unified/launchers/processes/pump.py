"""The file that a task's output is kept in, written by the keeper. Standard library only.

One record a line: ``<microseconds, 16 digits> <stream> <text>``. The stream is ``o`` (stdout), ``e`` (stderr) or ``s``
(a notice of ours); in upper case it says that the line goes on in the stream's next record: it was longer than a read,
or was waiting for its end for too long.

A log is bounded, and both of its ends are worth keeping: how it began, and what was said last. So it is a row of
segments, each named by the offset of its first byte. The first, ``<log>``, holds the first half of the bound and stays;
of the later ones, ``<log>.<offset, 16 digits>``, only the newest two are kept. Offsets count every byte ever logged,
and so never change their meaning.
"""

from __future__ import annotations

import os
import time

QUIET = 0.5
"""Seconds that an unfinished line waits for its end."""

_LONGEST = 16 * 1024
_MINIMUM = 4096


class LogWriter:
    """Appends to one log, and goes on where an earlier writer stopped."""

    def __init__(self, path: str, *, limit: int) -> None:
        self._path = path
        self._limit = max(limit, _MINIMUM)
        self._segments = segments(path)
        self.lost = 0
        """Bytes that could not be written: the disk is full, say."""
        start = self._segments[-1] if self._segments else 0
        self._open(start)
        self.offset = start + os.fstat(self._fd).st_size

    def write(self, data: bytes) -> None:
        """Append whole records."""
        start = self._segments[-1]
        if self.offset > start and self.offset + len(data) > start + self._limit // (4 if start else 2):
            os.close(self._fd)
            self._open(self.offset)
            for old in self._segments[1:-2]:
                os.unlink(segment(self._path, old))
                self._segments.remove(old)
        try:
            written = os.write(self._fd, data)
        except OSError:
            written = 0
        self.lost += len(data) - written
        self.offset += written

    def close(self) -> None:
        os.close(self._fd)

    def _open(self, start: int) -> None:
        self._fd = os.open(segment(self._path, start), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        if start not in self._segments:
            self._segments.append(start)


class Stream:
    """One output stream of a task on its way to the log: cuts it into records."""

    def __init__(self, name: bytes, log: LogWriter) -> None:
        self._name = name
        self._log = log
        self._rest = b""

    @property
    def unfinished(self) -> bool:
        """Whether a line waits for its end."""
        return bool(self._rest)

    def feed(self, data: bytes) -> None:
        """Log what is whole in ``data``; the stamp is the time of reading."""
        whole, newline, rest = data.rpartition(b"\n")
        if newline:
            self._emit(self._rest + whole)
            self._rest = rest
        else:
            self._rest += data
        if len(self._rest) > _LONGEST:
            end = _characters(self._rest)
            self._rest, rest = self._rest[:end], self._rest[end:]
            self.flush(goes_on=True)
            self._rest = rest

    def flush(self, *, goes_on: bool) -> None:
        """Log the unfinished line as it is."""
        if self._rest:
            rest, self._rest = self._rest, b""
            self._emit(rest, self._name.upper() if goes_on else self._name)

    def _emit(self, lines: bytes, name: bytes | None = None) -> None:
        prefix = b"%016d %b " % (time.time_ns() // 1000, name or self._name)
        self._log.write(prefix + lines.replace(b"\n", b"\n" + prefix) + b"\n")


def _characters(data: bytes) -> int:
    """Where the last whole character ends, as far as it is UTF-8."""
    for back in range(1, 4):
        if data[-back] >= 0xC0:
            size = 2 + (data[-back] >= 0xE0) + (data[-back] >= 0xF0)
            return len(data) - back if back < size else len(data)
        if data[-back] < 0x80:
            break
    return len(data)


def segment(path: str, start: int) -> str:
    """The file of the segment that begins at offset ``start``."""
    return f"{path}.{start:016d}" if start else path


def segments(path: str) -> list[int]:
    """Where the segments of a log begin, in order."""
    directory, base = os.path.split(path)
    try:
        names = os.listdir(directory or ".")
    except FileNotFoundError:
        return []
    starts = [int(name[len(base) + 1 :]) for name in names if name.startswith(base + ".") and name[-16:].isdigit()]
    return sorted([0, *starts] if base in names else starts)
