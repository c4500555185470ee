"""From a report (an event, a status) to the ledger's moves. Pure.

An event speaks of one attempt, and whether another follows is not for it to say. So an event of failure ends the action only
when the task asks for no more retries; until then the attempt's error is noted, and a later attempt, or a status, decides.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from flyteidl2.core import execution_pb2
from flyteidl2.workflow import internal_run_service_pb2, run_definition_pb2

from flyte_unified.core.clock import Micros, micros
from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.phases import Phase, legal, phase_of
from flyte_unified.ledger.api import Action, Failure, Move, Retry, first_record, merge

_KINDS = {
    run_definition_pb2.ErrorInfo.KIND_USER: execution_pb2.ExecutionError.USER,
    run_definition_pb2.ErrorInfo.KIND_SYSTEM: execution_pb2.ExecutionError.SYSTEM,
}
_MAX_SKIPPED = 100
"""Attempts that a report may be ahead of what we know."""

Step = Move | Retry


@dataclass(slots=True)
class _Place:
    """Where an action will be after the steps so far."""

    phase: Phase
    attempt: int
    record: run_definition_pb2.ActionAttempt


def of_events(action: Action, events: Iterable[run_definition_pb2.ActionEvent], *, retries: int) -> list[Step]:
    """The steps that ``events`` of one action mean, in their order; none for what is known already.

    ``retries`` is how many the task asks for. Raises InvalidArgument.
    """
    place = _Place(action.phase, action.attempt, action.latest())
    steps: list[Step] = []
    for event in events:
        if event.attempt >= place.attempt and not place.phase.terminal:
            steps += _advance(place, event.attempt, at=time_of(event))
            steps += _event(place, event, retries=retries)
    return steps


def of_status(action: Action, message: internal_run_service_pb2.UpdateActionStatusRequest) -> list[Step]:
    """The steps that a status means. Raises InvalidArgument."""
    status = message.status
    phase = phase_of(status.phase, field="status.phase")
    if phase is Phase.UNSPECIFIED:
        raise InvalidArgument("status.phase is empty")
    place = _Place(action.phase, action.attempt, action.latest())
    steps = _advance(place, status.attempts, at=None)
    failed = phase in (Phase.FAILED, Phase.TIMED_OUT) and place.record.HasField("error_info")
    move = Move(
        to=phase,
        attempt=status.attempts or None,
        at=micros(status.end_time, field="status.end_time") if phase.terminal and status.HasField("end_time") else None,
        error=error_of(place.record.error_info) if failed else None,
        cache_status=status.cache_status or None,
        reason=message.abort_reason,
        principal=message.principal.user.id.subject or message.principal.application.id.subject,
        value=message.output.SerializeToString(deterministic=True) if message.HasField("output") else None,
    )
    return [*steps, move]


def _advance(place: _Place, attempt: int, *, at: Micros | None) -> list[Step]:
    """Ends attempts that were not reported to have ended, up to the one that is reported of."""
    if attempt - place.attempt > _MAX_SKIPPED:
        raise InvalidArgument(f"attempt: {attempt} is far beyond attempt {place.attempt}, which is under way")
    steps: list[Step] = []
    while place.attempt < attempt:
        error = error_of(place.record.error_info)
        failure = Failure.SYSTEM if error.kind == execution_pb2.ExecutionError.SYSTEM else Failure.USER
        steps.append(Retry(attempt=place.attempt, error=error, failure=failure, at=at))
        place.attempt += 1
        place.phase = Phase.QUEUED
        place.record = first_record(Phase.QUEUED, at=Micros(0), attempt=place.attempt)
    return steps


def _event(place: _Place, event: run_definition_pb2.ActionEvent, *, retries: int) -> list[Step]:
    phase = phase_of(event.phase, field="event.phase")
    details = details_of(event)
    error = None
    if phase is Phase.FAILED and event.attempt <= retries:
        details.error_info.CopyFrom(event.error_info)
        phase = place.phase
    elif not legal(place.phase, phase):
        phase = place.phase  # told late: what it brings counts, the phase is past
    elif event.HasField("error_info"):
        error = error_of(event.error_info)
    before = place.record.SerializeToString(deterministic=True)
    merge(place.record, details)
    if phase == place.phase and place.record.SerializeToString(deterministic=True) == before:
        return []
    place.phase = phase
    move = Move(
        to=phase,
        attempt=event.attempt,
        at=time_of(event),
        error=error,
        output_uri=event.outputs.output_uri,
        report_uri=event.outputs.report_uri,
        cache_status=event.cache_status or None,
        details=details,
    )
    return [move]


def details_of(event: run_definition_pb2.ActionEvent) -> run_definition_pb2.ActionAttempt:
    """What an event brings to its attempt's record."""
    for seen in event.cluster_events:
        micros(seen.occurred_at, field="event.cluster_events.occurred_at")
    details = run_definition_pb2.ActionAttempt(
        log_info=event.log_info, cluster=event.cluster, cluster_events=event.cluster_events, cache_status=event.cache_status
    )
    for field in ("log_context", "outputs", "cache_metadata"):
        if event.HasField(field):
            getattr(details, field).CopyFrom(getattr(event, field))
    return details


def error_of(info: run_definition_pb2.ErrorInfo) -> execution_pb2.ExecutionError:
    error = execution_pb2.ExecutionError(
        code=info.code or "Unknown",
        message=info.message or "the attempt ended, and nothing was reported of why",
        kind=_KINDS.get(info.kind, execution_pb2.ExecutionError.UNKNOWN),
    )
    if info.HasField("gpu_fault"):
        error.gpu_fault.CopyFrom(info.gpu_fault)
    return error


def time_of(event: run_definition_pb2.ActionEvent) -> Micros | None:
    """When it happened; when it was seen where that is not known."""
    for field in ("updated_time", "reported_time"):
        if event.HasField(field):
            return micros(getattr(event, field), field=f"event.{field}")
    return None
