"""What a reader of a pod's output was told already: kubelets, asked to go on from a time, know whole seconds only."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator

from flyte_unified.core.clock import SECOND, Micros
from flyte_unified.dataproxy.logs import Line
from flyte_unified.launchers.kept_logs import NOTICE
from flyte_unified.launchers.objects.times import parsed, rfc3339

_NOTICE = NOTICE.encode()
_LONG = 1 << 18
"""Bytes above which the client cuts a line in two."""


class LogCursor:
    """What a reader was told: of the last two seconds, how many lines. Two, as output and errors overtake each other."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._from = 0
        self._to_pass: dict[int, int] = {}
        self._at = Micros(0)
        self._open = False
        self._passing = False
        self._text = codecs.getincrementaldecoder("utf-8")("replace")

    def again(self) -> str:
        """The lines come again from this time on (empty: all)."""
        self._from = min(self._counts, default=0)
        self._to_pass = dict(self._counts)
        self._passing = False
        return rfc3339(Micros(self._from * SECOND)) if self._counts else ""

    def news(self, lines: Iterable[bytes]) -> Iterator[Line]:
        """Of ``lines`` those that were not told before."""
        for line in lines:
            stamp, _, text = line.partition(b" ")
            at = parsed(stamp.decode(errors="replace")) if stamp[:1].isdigit() else None
            if at is None:  # the rest of a line that was too long
                if not self._passing:
                    yield self._line(line, len(line))
                continue
            if text.startswith(_NOTICE):
                yield Line(at, f"{text.decode()}\n", system=True)
                continue
            second = at // SECOND
            known = self._to_pass.get(second, 0)
            self._passing = second < self._from or known > 0
            if self._passing:
                self._to_pass[second] = known - 1
                continue
            if self._open:
                yield Line(self._at, self._text.decode(b"\n", final=True))
            self._at = at
            self._count(second)
            yield self._line(text, len(line))

    def _line(self, text: bytes, size: int) -> Line:
        self._open = size > _LONG
        shown = self._text.decode(text, final=not self._open).removesuffix("\r")
        return Line(self._at, shown if self._open else f"{shown}\n")

    def _count(self, second: int) -> None:
        latest = max(self._counts, default=second)
        if second < latest - 1:
            return
        self._counts[second] = self._counts.get(second, 0) + 1
        if second > latest:
            self._counts = {known: count for known, count in self._counts.items() if known >= second - 1}
