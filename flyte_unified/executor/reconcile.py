"""What to do next for one action: ``(what is known, now) -> one step``. Pure; the controller does the steps.

Level-triggered: a step follows from the state alone, so it does not matter which event brought us here, how often, or
whether the server was restarted in between.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

from flyteidl2.core import execution_pb2
from flyteidl2.workflow import run_definition_pb2

from flyte_unified.core.clock import SECOND, Micros
from flyte_unified.core.phases import Phase, legal
from flyte_unified.executor.outcome import Failed
from flyte_unified.executor.policy import Backoff, Limits
from flyte_unified.ledger.api import Action, ActionType, Failure, Move, Retry
from flyte_unified.plugins.api import Exit, Refusal, Timer, Work

QUEUED_TIMEOUT = "QUEUED_TIMEOUT_EXCEEDED"
MAX_RUNTIME = "MAX_RUNTIME_EXCEEDED"
DEADLINE = "DEADLINE_EXCEEDED"
"""Error codes that the SDK turns into exceptions of their own."""


class Cached(enum.Enum):
    """What the cache said of this action."""

    UNASKED = enum.auto()
    MISS = enum.auto()
    RESERVED = enum.auto()
    """Another action computes the same; it wakes us."""
    OFF = enum.auto()


class Slot(enum.Enum):
    NONE = enum.auto()
    WAITING = enum.auto()
    HELD = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """The process, or the object in a cluster, of an attempt."""

    attempt: int
    launched_at: Micros
    phase: Phase = Phase.QUEUED
    """How far it has come on its way to running"""
    phase_at: Micros | None = None
    started_at: Micros | None = None
    ended_at: Micros | None = None
    exit: Exit | None = None
    killing: bool = False
    details: run_definition_pb2.ActionAttempt | None = None
    """What is still to be added to the attempt's record."""


class Sleep(NamedTuple):
    """The machine woke at ``woke`` after ``length`` microseconds of sleep."""

    woke: Micros
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """All that a decision may rest on."""

    action: Action
    work: Work | None = None
    limits: Limits = Limits()  # noqa: RUF009  # frozen
    timer_seconds: float | None = None
    condition_timeout: float = 0.0
    cached: Cached = Cached.UNASKED
    slot: Slot = Slot.NONE
    observed: Observed | None = None
    up_since: int = 0
    """When this server came up; without one nothing counts as queued."""
    sleeps: tuple[Sleep, ...] = ()
    """When the machine slept: time that no bound counts."""
    draining: bool = False
    """The server is stopping: nothing new starts."""
    held: bool = False
    """An operator lets nothing begin, this run included."""

    @property
    def running(self) -> bool:
        """Whether there is a process, or will be."""
        return self.observed is not None and self.observed.exit is None


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before ``until`` (None: before something happens)."""

    until: Micros | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """Tell the ledger."""

    steps: tuple[Move | Retry, ...]


class Do(enum.Enum):
    """Steps without parameters."""

    PREPARE = enum.auto()
    """Read the task's spec, and what it means here."""
    ASK_CACHE = enum.auto()
    CLAIM_SLOT = enum.auto()
    START = enum.auto()
    JUDGE = enum.auto()
    """Read the attempt's files, decide how it ended, tell the ledger."""
    KILL = enum.auto()
    FORGET = enum.auto()
    """Free what the attempt's process held."""
    RETIRE = enum.auto()
    """The action has ended and nothing is left of it here."""


Step = Wait | Record | Do


def next_step(view: View, now: Micros) -> Step:
    """The one step that brings ``view`` on."""
    action, observed = view.action, view.observed
    if observed is not None and (action.terminal or observed.attempt != action.attempt):
        if observed.exit is not None:
            return Do.FORGET
        return Wait() if observed.killing else Do.KILL
    if action.terminal:
        return Do.RETIRE
    if action.action_type is ActionType.CONDITION:
        return _condition(view, now)
    if view.work is None:
        return Do.PREPARE
    if isinstance(view.work, Refusal):
        return Record((Move(to=Phase.FAILED, attempt=action.attempt, error=user_error(view.work.code, view.work.message)),))
    if observed is not None and observed.exit is not None:
        return Do.JUDGE
    if (late := _late(view, now)) is not None:
        return late
    if action.phase is Phase.RUNNING:
        return _running(view, now)
    return _queued(view, now)


def _queued(view: View, now: Micros) -> Step:
    action, observed = view.action, view.observed
    if observed is not None:
        return _on_its_way(view, observed)
    if view.draining or view.held:
        return Wait()
    if action.not_before is not None and action.not_before > now:
        return Wait(action.not_before)
    if view.cached is Cached.UNASKED:
        return Do.ASK_CACHE
    if view.cached is Cached.RESERVED:
        return Wait(_next_bound(view))
    if isinstance(view.work, Timer):
        return _timer(view, now)
    if view.slot is not Slot.HELD:
        return Do.CLAIM_SLOT if view.slot is Slot.NONE else Wait(_next_bound(view))
    return Do.START


def _on_its_way(view: View, observed: Observed) -> Step:
    action = view.action
    if observed.started_at is not None:
        return Record(started(action, observed))
    if legal(action.phase, observed.phase):
        return Record((_seen(action, observed, to=observed.phase),))
    return Record((_seen(action, observed, to=action.phase),)) if observed.details is not None else Wait(_next_bound(view))


def _running(view: View, now: Micros) -> Step:
    action, observed = view.action, view.observed
    if isinstance(view.work, Timer):
        return _timer(view, now)
    if observed is None:
        return Do.JUDGE
    return Record((_seen(action, observed, to=action.phase),)) if observed.details is not None else Wait(_next_bound(view))


def _seen(action: Action, observed: Observed, *, to: Phase) -> Move:
    return Move(to=to, attempt=action.attempt, at=observed.phase_at, details=observed.details)


def _timer(view: View, now: Micros) -> Step:
    action = view.action
    seconds = view.timer_seconds or 0.0
    begun = action.phase is Phase.RUNNING
    since = _phase_start(action) if begun else now
    due = Micros(since + int(seconds * SECOND))
    steps = () if begun else (Move(to=Phase.RUNNING, attempt=action.attempt, at=now),)
    if due <= now:
        return Record((*steps, Move(to=Phase.SUCCEEDED, attempt=action.attempt, at=due)))
    return Record(steps) if steps else Wait(min(due, _next_bound(view) or due))


def _condition(view: View, now: Micros) -> Step:
    if not view.condition_timeout:
        return Wait()
    due = Micros(view.action.created_at + int(view.condition_timeout * SECOND))
    if due > now:
        return Wait(due)
    message = f"nobody signalled within {view.condition_timeout:g} s"
    return Record((Move(to=Phase.TIMED_OUT, error=user_error("ConditionTimedOut", message)),))


def _late(view: View, now: Micros) -> Step | None:
    """The step to take when a bound has passed."""
    for due, code, message in _bounds(view):
        if due > now:
            continue
        error = user_error(code, message)
        action = view.action
        if code == MAX_RUNTIME and action.user_failures < view.limits.retries:
            delay = view.limits.backoff.delay(action.user_failures)
            return Record((_retry(action, error, Failure.USER, delay, now, ended=Phase.TIMED_OUT),))
        return Record((Move(to=Phase.TIMED_OUT, attempt=action.attempt, error=error),))
    return None


def _bounds(view: View) -> list[tuple[Micros, str, str]]:
    action, limits = view.action, view.limits
    bounds = []
    if limits.deadline:
        due = _due(view, action.created_at, limits.deadline)
        bounds.append((due, DEADLINE, f"the deadline of {limits.deadline:g} s passed"))
    if action.phase is Phase.RUNNING and limits.max_runtime:
        due = _due(view, _phase_start(action), limits.max_runtime)
        bounds.append((due, MAX_RUNTIME, f"the attempt ran for more than {limits.max_runtime:g} s"))
    if action.phase is not Phase.RUNNING and limits.queued and not view.held:
        since = Micros(max(_attempt_start(action), action.not_before or 0, view.up_since))
        due = _due(view, since, limits.queued)
        bounds.append((due, QUEUED_TIMEOUT, f"the attempt was queued for more than {limits.queued:g} s"))
    return bounds


def _due(view: View, since: Micros, bound: float) -> Micros:
    slept = sum(sleep.length for sleep in view.sleeps if sleep.woke > since)
    return Micros(since + int(bound * SECOND) + slept)


def _next_bound(view: View) -> Micros | None:
    return min((due for due, _, _ in _bounds(view)), default=None)


def _phase_start(action: Action) -> Micros:
    transitions = action.latest().phase_transitions
    return Micros(transitions[-1].start_time.ToMicroseconds()) if transitions else action.created_at


def _attempt_start(action: Action) -> Micros:
    return Micros(action.latest().start_time.ToMicroseconds())


def started(action: Action, observed: Observed) -> tuple[Move, ...]:
    """The moves of a process that runs: its launch, then its start."""
    return (
        Move(to=Phase.INITIALIZING, attempt=action.attempt, at=observed.launched_at, details=observed.details),
        Move(to=Phase.RUNNING, attempt=action.attempt, at=observed.started_at),
    )


def failed(
    action: Action, outcome: Failed, *, limits: Limits, system_retries: int, system_backoff: Backoff, at: Micros
) -> Move | Retry:
    """The end of a failed attempt: another one if its budget allows, else the end of the action."""
    if outcome.failure is Failure.SYSTEM:
        if outcome.retryable and action.system_failures < system_retries:
            return _retry(action, outcome.error, Failure.SYSTEM, system_backoff.delay(action.system_failures), at)
    elif outcome.retryable and action.user_failures < limits.retries:
        return _retry(action, outcome.error, Failure.USER, limits.backoff.delay(action.user_failures), at)
    return Move(to=Phase.FAILED, attempt=action.attempt, at=at, error=_last(action, outcome))


def _last(action: Action, outcome: Failed) -> execution_pb2.ExecutionError:
    """The error that ends the action; it names the setting that forbids another attempt."""
    error = execution_pb2.ExecutionError()
    error.CopyFrom(outcome.error)
    if outcome.failure is Failure.SYSTEM and outcome.retryable:
        error.message += f"; tried {action.system_failures + 1} times, and execution.system_retries allows no more"
    return error


def _retry(
    action: Action,
    error: execution_pb2.ExecutionError,
    failure: Failure,
    delay: float,
    at: Micros,
    *,
    ended: Phase = Phase.FAILED,
) -> Retry:
    not_before = Micros(at + int(delay * SECOND)) if delay else None
    return Retry(attempt=action.attempt, error=error, ended=ended, failure=failure, not_before=not_before, at=at)


def user_error(code: str, message: str) -> execution_pb2.ExecutionError:
    return execution_pb2.ExecutionError(code=code, message=message, kind=execution_pb2.ExecutionError.USER)
