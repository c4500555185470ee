"""What is to be done about one app, as a pure function of what is known of it. Times are seconds of the loop's clock."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple


class Do(enum.Enum):
    """The next step."""

    REST = "nothing, until somebody says something"
    WAIT = "nothing, until then"
    START = "start a process"
    END = "end the process"


class Why(enum.Enum):
    """What a process is ended for, or why there is none."""

    UNWANTED = "it is stopped"
    REPLACED = "a later deployment takes its place"
    IDLE = "nobody has asked for it"
    LATE = "it does not listen"


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """The one that there is."""

    current: bool
    """It is of the deployment that is wanted."""
    since: float
    """Its start."""
    ready: bool
    ending: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """All that matters."""

    wanted: bool
    lasting: bool
    """It is never without a process."""
    idle: float
    """Seconds without a visitor after which one that is not ``lasting`` is put to sleep."""
    patience: float
    """Seconds that a process may take until it listens."""
    asleep: bool
    visitors: int
    """Under way, or waiting."""
    inside: int
    """Of these, those that a process is answering."""
    quiet_since: float
    retry_at: float
    drain_until: float
    """Until then a process that is to be replaced may answer those who are inside."""
    process: Process | None


class Step(NamedTuple):
    do: Do
    until: float | None = None
    why: Why | None = None


def decide(view: View, now: float) -> Step:
    if view.process is None:
        return _without(view, now)
    return _with(view, view.process, now)


def _without(view: View, now: float) -> Step:
    if not view.wanted:
        return Step(Do.REST, why=Why.UNWANTED)
    if view.asleep and not view.visitors and not view.lasting:
        return Step(Do.REST, why=Why.IDLE)
    if now < view.retry_at:
        return Step(Do.WAIT, view.retry_at)
    return Step(Do.START)


def _with(view: View, process: Process, now: float) -> Step:
    if process.ending:
        return Step(Do.REST)
    if not view.wanted or not process.current:
        if view.inside and now < view.drain_until:
            return Step(Do.WAIT, view.drain_until)
        return Step(Do.END, why=Why.REPLACED if view.wanted else Why.UNWANTED)
    if not process.ready:
        due = process.since + view.patience
        return Step(Do.WAIT, due) if now < due else Step(Do.END, why=Why.LATE)
    if view.lasting or view.visitors:
        return Step(Do.REST)
    due = view.quiet_since + view.idle
    return Step(Do.WAIT, due) if now < due else Step(Do.END, why=Why.IDLE)
