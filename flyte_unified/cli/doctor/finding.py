"""What a look at one thing found, and what mends it."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from flyte_unified.core.errors import FlyteUnifiedError
from flyte_unified.settings import Settings


class Level(enum.Enum):
    OK = "ok"
    WARNING = "warning"
    """Something that one may want will not work."""
    ERROR = "error"
    """A server, its tasks or its clients will not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """``mend`` is what to do about it, for one that is not ok."""

    level: Level
    subject: str
    text: str
    mend: str = ""

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"{self.level.value:<8} {self.subject:<18} {self.text}"
        if self.mend:
            yield f"{'':<8} {'':<18} -> {self.mend}"

    def as_json(self) -> dict[str, str]:
        return {"level": self.level.value, "subject": self.subject, "finding": self.text, "mend": self.mend}


class Check(NamedTuple):
    """What is looked at, and how. An error of ours is a finding, too; ``mend`` is for those that name no way out."""

    subject: str
    look: Callable[[Settings], AsyncIterator[Finding]]
    mend: str


def ok(subject: str, text: str) -> Finding:
    return Finding(Level.OK, subject, text)


def warning(subject: str, text: str, mend: str) -> Finding:
    return Finding(Level.WARNING, subject, text, mend)


def error(subject: str, text: str, mend: str) -> Finding:
    return Finding(Level.ERROR, subject, text, mend)


async def examined(checks: Sequence[Check], settings: Settings) -> list[Finding]:
    """What all ``checks`` found, in order."""
    findings: list[Finding] = []
    for check in checks:
        try:
            findings += [finding async for finding in check.look(settings)]
        except FlyteUnifiedError as raised:
            text, _, way_out = raised.message.partition("; ")
            findings.append(error(check.subject, text, way_out or check.mend))
    return findings
