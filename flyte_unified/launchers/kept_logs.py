"""Logs that outlive what wrote them: where in the store they are, and what is in them.

A line is a time (RFC 3339) and a text, as Kubernetes tells it. What is longer than its bound loses its middle.
"""

from __future__ import annotations

from collections import deque

from flyte_unified.launchers.api import WorkId

NOTICE = "[flyte-unified] "
"""How a line of ours begins, after its time."""


def address(base: str, work: WorkId) -> str:
    """Where an attempt's log is kept."""
    return "/".join((base.rstrip("/"), *work.action, f"{work.attempt}.log"))


class Bounded:
    """Lines, of which at most about ``limit`` bytes stay: the first and the last."""

    def __init__(self, limit: int) -> None:
        self._half = limit // 2
        self._head: list[bytes] = []
        self._tail: deque[bytes] = deque()
        self._head_size = self._tail_size = 0
        self.lost = 0
        """Bytes that had no room"""

    def __bool__(self) -> bool:
        return bool(self._head or self._tail)

    def add(self, line: bytes) -> None:
        size = len(line) + 1
        if not self._tail and self._head_size + size <= self._half:
            self._head.append(line)
            self._head_size += size
            return
        self._tail.append(line)
        self._tail_size += size
        while self._tail_size > self._half and len(self._tail) > 1:
            dropped = len(self._tail.popleft()) + 1
            self._tail_size -= dropped
            self.lost += dropped

    def content(self) -> bytes:
        """What is kept, each line with its end."""
        lines = [*self._head]
        if self.lost:
            at = self._tail[0].partition(b" ")[0].decode(errors="replace")
            lines.append(notice(at, f"{self.lost} bytes of output were dropped here"))
        lines += self._tail
        return b"".join(line + b"\n" for line in lines)


def notice(at: str, text: str) -> bytes:
    """A line of ours."""
    return f"{at} {NOTICE}{text}".encode()
