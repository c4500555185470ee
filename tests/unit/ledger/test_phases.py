"""The table of phases."""

from __future__ import annotations

from itertools import product

import pytest

from flyte_unified.core.phases import LIVE, MOVES, TERMINAL, Phase, legal


def test_terminal_is_final() -> None:
    """Nothing follows a terminal phase, neither in the attempt nor as another one."""
    for current, new, next_attempt in product(TERMINAL, Phase, (False, True)):
        assert not legal(current, new, next_attempt=next_attempt)


def test_every_live_phase_has_every_end() -> None:
    """Whatever an action is doing, it may succeed, fail, be aborted, time out or be recovered."""
    for current, new in product(LIVE, TERMINAL):
        assert legal(current, new)


def test_only_another_attempt_goes_back_to_the_queue() -> None:
    """Within an attempt nothing leads to QUEUED but its beginning; between attempts every live phase does."""
    assert {current for current in Phase if Phase.QUEUED in MOVES[current]} == {Phase.UNSPECIFIED}
    assert {current for current in Phase if legal(current, Phase.QUEUED, next_attempt=True)} == LIVE


def test_an_attempt_begins_alive() -> None:
    """Another attempt is no way to end an action."""
    assert not any(legal(current, new, next_attempt=True) for current, new in product(Phase, TERMINAL))


@pytest.mark.parametrize(
    ("current", "new", "may"),
    [
        (Phase.QUEUED, Phase.WAITING_FOR_RESOURCES, True),
        (Phase.QUEUED, Phase.RUNNING, True),
        (Phase.WAITING_FOR_RESOURCES, Phase.INITIALIZING, True),
        (Phase.INITIALIZING, Phase.WAITING_FOR_RESOURCES, True),  # a pod that is scheduled anew
        (Phase.RUNNING, Phase.INITIALIZING, False),
        (Phase.RUNNING, Phase.WAITING_FOR_RESOURCES, False),
        (Phase.RUNNING, Phase.PAUSED, True),
        (Phase.PAUSED, Phase.RUNNING, True),
        (Phase.PAUSED, Phase.INITIALIZING, False),
        (Phase.RUNNING, Phase.UNSPECIFIED, False),
    ],
)
def test_an_attempt_goes_forward(current: Phase, new: Phase, *, may: bool) -> None:
    """A late word of an earlier step changes nothing."""
    assert legal(current, new) is may
