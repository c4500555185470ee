"""The life of an action: which phase may follow which. The one table that every writer obeys.

Terminal is final. A retry is no step back of the attempt that failed but the start of the next one, so an action's
phase may return to QUEUED together with a higher attempt number, and only so.
"""

from __future__ import annotations

import enum

from flyte_unified.core.errors import InvalidArgument


class Phase(enum.IntEnum):
    """Numbers as in flyteidl2.common.ActionPhase."""

    UNSPECIFIED = 0
    QUEUED = 1
    WAITING_FOR_RESOURCES = 2
    INITIALIZING = 3
    RUNNING = 4
    SUCCEEDED = 5
    FAILED = 6
    ABORTED = 7
    TIMED_OUT = 8
    PAUSED = 9
    RECOVERED = 10

    @property
    def terminal(self) -> bool:
        return self in TERMINAL


def phase_of(number: int, *, field: str) -> Phase:
    """The phase that a request names. Raises InvalidArgument naming ``field``."""
    try:
        return Phase(number)
    except ValueError:
        raise InvalidArgument(f"{field}: there is no phase {number}") from None


TERMINAL = frozenset({Phase.SUCCEEDED, Phase.FAILED, Phase.ABORTED, Phase.TIMED_OUT, Phase.RECOVERED})
"""Phases that end an action for good."""

LIVE = frozenset(Phase) - TERMINAL - {Phase.UNSPECIFIED}
"""Phases of an action that still has a future."""

SUCCESS = frozenset({Phase.SUCCEEDED, Phase.RECOVERED})
"""Terminal phases whose outputs may be read."""

MOVES: dict[Phase, frozenset[Phase]] = {
    Phase.UNSPECIFIED: frozenset(Phase) - {Phase.UNSPECIFIED},
    Phase.QUEUED: frozenset({Phase.WAITING_FOR_RESOURCES, Phase.INITIALIZING, Phase.RUNNING, Phase.PAUSED}) | TERMINAL,
    Phase.WAITING_FOR_RESOURCES: frozenset({Phase.INITIALIZING, Phase.RUNNING}) | TERMINAL,
    Phase.INITIALIZING: frozenset({Phase.WAITING_FOR_RESOURCES, Phase.RUNNING}) | TERMINAL,
    Phase.RUNNING: frozenset({Phase.PAUSED}) | TERMINAL,
    Phase.PAUSED: frozenset({Phase.RUNNING}) | TERMINAL,
} | dict.fromkeys(TERMINAL, frozenset[Phase]())
"""Legal moves within one attempt."""


def legal(current: Phase, new: Phase, *, next_attempt: bool = False) -> bool:
    """Whether an action in ``current`` may enter ``new``; ``next_attempt`` when the move begins another attempt."""
    if next_attempt:
        return current in LIVE and new in LIVE
    return new in MOVES[current]
