"""What a move does to an action: pure, and the only place where phases, attempts and their records change."""

from __future__ import annotations

from dataclasses import replace

from flyteidl2.core import execution_pb2
from flyteidl2.workflow import run_definition_pb2

from flyte_unified.core.clock import Micros, micros, timestamp
from flyte_unified.core.phases import Phase, legal
from flyte_unified.ledger.model import Action, ActionType, Failure, Move, Retry
from flyte_unified.ledger.records import merge

_KINDS = {
    execution_pb2.ExecutionError.USER: run_definition_pb2.ErrorInfo.KIND_USER,
    execution_pb2.ExecutionError.SYSTEM: run_definition_pb2.ErrorInfo.KIND_SYSTEM,
}
_STOPPED = frozenset({Phase.ABORTED, Phase.TIMED_OUT})
_CARRIED_OUT = frozenset({Phase.INITIALIZING, Phase.RUNNING})


def first_record(phase: Phase, *, at: Micros, attempt: int = 1) -> run_definition_pb2.ActionAttempt:
    """The record of an attempt that begins in ``phase``."""
    record = run_definition_pb2.ActionAttempt(attempt=attempt, start_time=timestamp(at))
    _enter(record, phase, at)
    return record


def record_of(*phases: tuple[Phase, Micros]) -> run_definition_pb2.ActionAttempt:
    """The record of an attempt that went through ``phases`` before we heard of it."""
    (first, at), *rest = phases
    record = first_record(first, at=at)
    for phase, entered in rest:
        _enter(record, phase, entered)
    return record


def recorded_again(known: Action, new: Action) -> Action:
    """A trace is a note of its task; one of a failure may be followed by a note of the next try, when the task is retried."""
    record = new.latest()
    record.attempt = known.attempt + 1
    return replace(
        new,
        depth=known.depth,
        version=known.version + 1,
        attempt=known.attempt + 1,
        created_at=known.created_at,
        record=record.SerializeToString(),
    )


def apply(action: Action, move: Move, *, now: Micros) -> Action | None:
    """``action`` after ``move``; None where the table of phases, or the attempt's number, forbids it.

    A move to the phase that the action is in already adds what it brings, if it is new, to the record of a live attempt.
    """
    if move.attempt is not None and move.attempt != action.attempt:
        return None
    if not (legal(action.phase, move.to) or (move.to == action.phase and not action.terminal)):
        return None
    at = Micros(max(move.at if move.at is not None else now, action.created_at))
    record = action.latest()
    _merge(record, move)
    if move.to != action.phase:
        if action.action_type is ActionType.TASK:
            _stop(record, move.to, move.error.message if move.error is not None else move.reason, at)
        at = _enter(record, move.to, at)
    changes = {
        "phase": move.to,
        "cache_status": action.cache_status if move.cache_status is None else move.cache_status,
        "started_at": at if move.to == Phase.RUNNING and action.started_at is None else action.started_at,
        "ended_at": at if move.to.terminal else None,
        "not_before": None if move.to != Phase.QUEUED else action.not_before,
        "output_uri": move.output_uri or action.output_uri,
        "error": move.error.SerializeToString() if move.error is not None else action.error,
        "reason": move.reason or action.reason,
        "principal": move.principal or action.principal,
        "value": move.value if move.value is not None else action.value,
        "record": record.SerializeToString(),
    }
    if all(getattr(action, name) == value for name, value in changes.items()):
        return None
    return replace(action, **changes, version=action.version + 1, updated_at=now)


def retry(action: Action, move: Retry, *, now: Micros) -> tuple[Action, run_definition_pb2.ActionAttempt] | None:
    """``action`` at the start of its next attempt, and the finished record of this one; None when that is not to be."""
    if move.attempt != action.attempt or not legal(action.phase, Phase.QUEUED, next_attempt=True):
        return None
    at = Micros(max(move.at if move.at is not None else now, action.created_at))
    finished = action.latest()
    if move.details is not None:
        merge(finished, move.details)
    finished.error_info.CopyFrom(error_info(move.error))
    _stop(finished, move.ended, move.error.message, at)
    at = _enter(finished, move.ended, at)
    renewed = replace(
        action,
        phase=Phase.QUEUED,
        version=action.version + 1,
        attempt=action.attempt + 1,
        system_failures=action.system_failures + (move.failure is Failure.SYSTEM),
        interruptions=action.interruptions + (move.failure is Failure.INTERRUPTION),
        updated_at=now,
        not_before=move.not_before,
        record=first_record(Phase.QUEUED, at=at, attempt=action.attempt + 1).SerializeToString(),
    )
    return renewed, finished


def error_info(error: execution_pb2.ExecutionError) -> run_definition_pb2.ErrorInfo:
    """The part of an error that an attempt's record shows."""
    kind = _KINDS.get(error.kind, run_definition_pb2.ErrorInfo.KIND_UNSPECIFIED)
    info = run_definition_pb2.ErrorInfo(message=error.message, kind=kind, code=error.code)
    if error.HasField("gpu_fault"):
        info.gpu_fault.CopyFrom(error.gpu_fault)
    return info


def _merge(record: run_definition_pb2.ActionAttempt, move: Move) -> None:
    if move.details is not None:
        merge(record, move.details)
    if move.error is not None:
        record.error_info.CopyFrom(error_info(move.error))
    if move.output_uri:
        record.outputs.output_uri = move.output_uri
    if move.report_uri:
        record.outputs.report_uri = move.report_uri
    if move.cache_status is not None:
        record.cache_status = move.cache_status
    if move.cache_source is not None:
        record.cache_metadata.CopyFrom(move.cache_source.cache_metadata)


def _stop(record: run_definition_pb2.ActionAttempt, to: Phase, why: str | None, at: Micros) -> None:
    """Notes that what carries out the attempt is ended from outside, as nobody hears of its end any more."""
    if to in _STOPPED and record.phase in _CARRIED_OUT:
        event = run_definition_pb2.ClusterEvent
        message = f"stopped: {why}" if why else "stopped"
        record.cluster_events.add(
            occurred_at=timestamp(at), reason="Killing", message=message, type=event.TYPE_WARNING, count=1
        )


def _enter(record: run_definition_pb2.ActionAttempt, phase: Phase, at: Micros) -> Micros:
    """Ends the phase that the record is in, and begins ``phase``; a terminal one ends the attempt.

    The time that is noted: ``at``, or when the last phase began where clocks disagree.
    """
    if record.phase_transitions:
        last = record.phase_transitions[-1]
        at = Micros(max(at, micros(last.start_time)))
        last.end_time.CopyFrom(timestamp(at))
    record.phase = int(phase)
    entered = record.phase_transitions.add(phase=int(phase), start_time=timestamp(at))
    if phase.terminal:
        entered.end_time.CopyFrom(timestamp(at))
        record.end_time.CopyFrom(timestamp(at))
    return at
