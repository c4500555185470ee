"""The next step of one action: every branch of the decision, as a table."""

from __future__ import annotations

from dataclasses import replace

import pytest
from flyteidl2.core import execution_pb2

from flyte_unified.core.clock import SECOND, Micros
from flyte_unified.core.phases import Phase
from flyte_unified.executor import outcome
from flyte_unified.executor.policy import Backoff, Limits
from flyte_unified.executor.reconcile import Cached, Do, Observed, Record, Sleep, Slot, Step, View, Wait, failed, next_step
from flyte_unified.ledger.api import Action, ActionType, EncodedSpec, Failure, Move, Retry, first_record, task_action
from flyte_unified.plugins.api import Exit, Process, Refusal, Resources, Timer
from tests.unit.executor.world import ROOT, spec

T0 = Micros(1_700_000_000 * SECOND)
PROCESS = Process(arguments=("a0",), environment={}, system={}, resources=Resources())
TIMER = Timer(lambda _: 0.0)


def at(seconds: float) -> Micros:
    return Micros(T0 + round(seconds * SECOND))


def action(phase: Phase = Phase.QUEUED, *, attempt: int = 1, since: float = 0.0, **changes: object) -> Action:
    made = task_action(ROOT, EncodedSpec.of(spec()), now=T0, parent=None, input_uri="", output_base="/o")
    record = first_record(phase, at=at(since), attempt=attempt).SerializeToString()
    return replace(made, phase=phase, attempt=attempt, record=record, **changes)  # type: ignore[arg-type]  # fields of Action


def view(of: Action | None = None, **changes: object) -> View:
    """A queued action that is ready to start, but for ``changes``."""
    ready = View(action=of or action(), work=PROCESS, cached=Cached.OFF, slot=Slot.HELD)
    return replace(ready, **changes)  # type: ignore[arg-type]  # fields of View


def process(attempt: int = 1, **changes: object) -> Observed:
    return replace(Observed(attempt=attempt, launched_at=at(0)), **changes)  # type: ignore[arg-type]  # fields of Observed


GONE = Exit(code=0)
RUNNING = process(started_at=at(1))

STEPS: dict[str, tuple[View, Step]] = {
    "unprepared": (view(work=None), Do.PREPARE),
    "cache not asked": (view(cached=Cached.UNASKED), Do.ASK_CACHE),
    "another computes it": (view(cached=Cached.RESERVED), Wait()),
    "cache missed": (view(cached=Cached.MISS, slot=Slot.NONE), Do.CLAIM_SLOT),
    "no slot yet": (view(slot=Slot.NONE), Do.CLAIM_SLOT),
    "waits for a slot": (view(slot=Slot.WAITING), Wait()),
    "has its slot": (view(), Do.START),
    "resources awaited": (view(action(Phase.WAITING_FOR_RESOURCES)), Do.START),
    "backs off": (view(action(not_before=at(9))), Wait(at(9))),
    "backed off": (view(action(not_before=at(1))), Do.START),
    "draining": (view(draining=True), Wait()),
    "draining, process begun": (view(observed=process(), draining=True), Wait()),
    "being started": (view(observed=process()), Wait()),
    "runs": (view(action(Phase.RUNNING), observed=RUNNING), Wait()),
    "runs, and nobody knows its process": (view(action(Phase.RUNNING)), Do.JUDGE),
    "ended": (view(action(Phase.RUNNING), observed=process(exit=GONE)), Do.JUDGE),
    "ended before it was seen to start": (view(observed=process(exit=GONE)), Do.JUDGE),
    "ended while draining": (view(action(Phase.RUNNING), observed=process(exit=GONE), draining=True), Do.JUDGE),
    "of the attempt before, runs": (view(action(attempt=2), observed=RUNNING), Do.KILL),
    "of the attempt before, being killed": (view(action(attempt=2), observed=process(killing=True)), Wait()),
    "of the attempt before, ended": (view(action(attempt=2), observed=process(exit=GONE)), Do.FORGET),
    "over, runs": (view(action(Phase.ABORTED), observed=RUNNING), Do.KILL),
    "over, being killed": (view(action(Phase.ABORTED), observed=process(killing=True)), Wait()),
    "over, ended": (view(action(Phase.ABORTED), observed=process(exit=GONE)), Do.FORGET),
    "over": (view(action(Phase.SUCCEEDED)), Do.RETIRE),
    "over, unprepared": (view(action(Phase.FAILED), work=None), Do.RETIRE),
    "stale, unprepared": (view(action(attempt=2), work=None, observed=RUNNING), Do.KILL),
    "a condition": (view(action(Phase.PAUSED, action_type=ActionType.CONDITION), work=None), Wait()),
    "a condition with a bound": (
        view(action(Phase.PAUSED, action_type=ActionType.CONDITION), work=None, condition_timeout=9.0),
        Wait(at(9)),
    ),
    "a timer while draining": (view(work=TIMER, timer_seconds=9.0, draining=True), Wait()),
    "a timer runs": (view(action(Phase.RUNNING), work=TIMER, timer_seconds=9.0), Wait(at(9))),
    "bounded queue": (view(slot=Slot.WAITING, limits=Limits(queued=9.0)), Wait(at(9))),
    "bounded run": (view(action(Phase.RUNNING, since=1), observed=RUNNING, limits=Limits(max_runtime=9.0)), Wait(at(10))),
    "the nearest bound": (
        view(action(Phase.RUNNING, since=1), observed=RUNNING, limits=Limits(max_runtime=9.0, deadline=4.0)),
        Wait(at(4)),
    ),
    "a queue's bound is none of a run": (view(action(Phase.RUNNING), observed=RUNNING, limits=Limits(queued=0.5)), Wait()),
    "a backoff is no time in the queue": (
        view(action(not_before=at(1)), slot=Slot.WAITING, limits=Limits(queued=3.0)),
        Wait(at(4)),
    ),
    "no server, no time in the queue": (view(slot=Slot.WAITING, limits=Limits(queued=3.0), up_since=at(1.5)), Wait(at(4.5))),
    "sleep counts for no bound": (
        view(action(Phase.RUNNING), observed=RUNNING, limits=Limits(max_runtime=1.0), sleeps=(Sleep(at(2), 5 * SECOND),)),
        Wait(at(6)),
    ),
    "sleep before it began counts": (
        view(action(Phase.RUNNING, since=1), observed=RUNNING, limits=Limits(max_runtime=9.0), sleeps=(Sleep(at(1), SECOND),)),
        Wait(at(10)),
    ),
}


@pytest.mark.parametrize("case", STEPS)
def test_the_next_step(case: str) -> None:
    """At two seconds of the action's life."""
    given, step = STEPS[case]
    assert next_step(given, at(2)) == step


def only(step: Step) -> Move | Retry:
    assert isinstance(step, Record)
    assert len(step.steps) == 1
    return step.steps[0]


def test_a_process_that_runs_is_recorded_with_its_own_times() -> None:
    """Its launch, then its start."""
    step = next_step(view(observed=RUNNING), at(2))
    assert isinstance(step, Record)
    assert [(move.to, move.at) for move in step.steps if isinstance(move, Move)] == [
        (Phase.INITIALIZING, at(0)),
        (Phase.RUNNING, at(1)),
    ]


def test_a_refusal_fails_with_its_words() -> None:
    """The user reads what would run it."""
    move = only(next_step(view(work=Refusal("Unsupported", "take a cluster")), at(2)))
    assert isinstance(move, Move)
    assert move.to is Phase.FAILED
    assert move.error is not None
    assert (move.error.code, move.error.message) == ("Unsupported", "take a cluster")


@pytest.mark.parametrize(
    ("of", "limits", "code"),
    [
        (action(), Limits(queued=1.0), "QUEUED_TIMEOUT_EXCEEDED"),
        (action(), Limits(deadline=1.0), "DEADLINE_EXCEEDED"),
        (action(Phase.RUNNING), Limits(deadline=1.0, max_runtime=1.0, retries=3), "DEADLINE_EXCEEDED"),
        (action(Phase.RUNNING), Limits(max_runtime=1.0), "MAX_RUNTIME_EXCEEDED"),
        (action(Phase.RUNNING, attempt=3), Limits(max_runtime=1.0, retries=2), "MAX_RUNTIME_EXCEEDED"),
    ],
)
def test_a_bound_that_has_passed_ends_the_action(of: Action, limits: Limits, code: str) -> None:
    """TIMED_OUT, with the code that the SDK makes an exception of; a deadline is not retried."""
    move = only(next_step(view(of, limits=limits, observed=process(of.attempt)), at(2)))
    assert isinstance(move, Move)
    assert (move.to, move.error.code if move.error else "") == (Phase.TIMED_OUT, code)


def test_a_run_that_took_too_long_is_retried() -> None:
    """At the user's cost, with the user's backoff."""
    limits = Limits(max_runtime=1.0, retries=2, backoff=Backoff(base=4.0, factor=2.0))
    move = only(next_step(view(action(Phase.RUNNING, attempt=2), limits=limits, observed=process(2)), at(2)))
    assert isinstance(move, Retry)
    assert (move.ended, move.failure, move.not_before) == (Phase.TIMED_OUT, Failure.USER, at(2 + 8))


def test_an_end_in_time_is_judged_however_late_it_is_seen() -> None:
    """A process that ended is not timed out."""
    ended = process(exit=GONE, ended_at=at(1))
    assert next_step(view(action(Phase.RUNNING), limits=Limits(max_runtime=1.0), observed=ended), at(99)) is Do.JUDGE


def test_a_timer_begins_and_ends() -> None:
    """Begins at once without a slot; ends when it is due, not when that was noticed."""
    waiting = view(work=TIMER, timer_seconds=9.0, slot=Slot.NONE)
    begin = only(next_step(waiting, at(2)))
    assert isinstance(begin, Move)
    assert (begin.to, begin.at) == (Phase.RUNNING, at(2))
    end = only(next_step(view(action(Phase.RUNNING), work=TIMER, timer_seconds=9.0), at(20)))
    assert isinstance(end, Move)
    assert (end.to, end.at) == (Phase.SUCCEEDED, at(9))
    step = next_step(replace(waiting, timer_seconds=0.0), at(2))
    assert isinstance(step, Record)
    assert [move.to for move in step.steps if isinstance(move, Move)] == [Phase.RUNNING, Phase.SUCCEEDED]


def test_a_condition_that_nobody_signals_times_out() -> None:
    """With a message that says so."""
    paused = action(Phase.PAUSED, action_type=ActionType.CONDITION)
    move = only(next_step(view(paused, work=None, condition_timeout=2.0), at(2)))
    assert isinstance(move, Move)
    assert move.to is Phase.TIMED_OUT


ERROR = execution_pb2.ExecutionError(code="E")


@pytest.mark.parametrize(
    ("failure", "retryable", "before", "retries", "again"),
    [
        (Failure.USER, True, {"attempt": 1}, 1, 4.0),
        (Failure.USER, True, {"attempt": 2}, 2, 8.0),
        (Failure.USER, True, {"attempt": 2}, 1, None),
        (Failure.USER, False, {"attempt": 1}, 1, None),
        (Failure.USER, True, {"attempt": 5, "system_failures": 2, "interruptions": 2}, 1, 4.0),
        (Failure.SYSTEM, True, {"attempt": 1}, 0, 1.0),
        (Failure.SYSTEM, True, {"attempt": 3, "system_failures": 2}, 0, 9.0),
        (Failure.SYSTEM, True, {"attempt": 4, "system_failures": 3}, 9, None),
        (Failure.SYSTEM, False, {"attempt": 1}, 9, None),
        (Failure.SYSTEM, True, {"attempt": 9, "interruptions": 8}, 0, 1.0),
    ],
)
def test_a_failure_is_charged_to_its_budget(
    failure: Failure, retryable: bool, before: dict[str, int], retries: int, again: float | None
) -> None:
    """The user's retries and the system's are counted apart, interruptions never. ``again``: the wait, None for the end."""
    step = failed(
        action(Phase.RUNNING, **before),
        outcome.Failed(error=ERROR, failure=failure, retryable=retryable),
        limits=Limits(retries=retries, backoff=Backoff(base=4.0, factor=2.0)),
        system_retries=3,
        system_backoff=Backoff(base=1.0, factor=3.0),
        at=at(5),
    )
    if again is None:
        assert isinstance(step, Move)
        assert (step.to, step.at) == (Phase.FAILED, at(5))
    else:
        assert isinstance(step, Retry)
        assert (step.failure, step.not_before) == (failure, at(5 + again))
