"""What a report of a tracked run's action means. Pure.

A report speaks of one attempt, and counts its versions up within it. What was told already is acknowledged and changes nothing,
so a batch may be sent again. A failure ends the action, as nobody knows better; a later attempt opens it again, since clients
report the failure of an attempt and that of the action in the same words. Only what the server has aborted stays so.
"""

from __future__ import annotations

from dataclasses import replace

from flyteidl2.workflow import run_definition_pb2
from flyteidl2.workflow import tracked_run_service_pb2 as idl

from flyte_unified.core.clock import Micros, micros
from flyte_unified.core.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound
from flyte_unified.core.ids import ActionKey
from flyte_unified.core.phases import SUCCESS, Phase, phase_of
from flyte_unified.dataproxy.api import INPUTS
from flyte_unified.events.api import details_of, error_of, time_of
from flyte_unified.ledger.api import (
    Action,
    ActionType,
    EncodedSpec,
    Move,
    Reported,
    TaskId,
    apply,
    first_record,
    task_action,
)
from flyte_unified.storage.api import join

_MAX_ATTEMPTS = 10_000


def check(event: run_definition_pb2.ActionEvent, *, field: str) -> None:
    """Raises InvalidArgument naming the part of ``field`` that no action could follow."""
    if not 0 < event.attempt <= _MAX_ATTEMPTS:
        raise InvalidArgument(f"{field}.attempt is {event.attempt}: attempts are counted from 1 to {_MAX_ATTEMPTS}")
    if phase_of(event.phase, field=f"{field}.phase") is Phase.UNSPECIFIED:
        raise InvalidArgument(f"{field}.phase is empty")
    for name in ("updated_time", "reported_time"):
        micros(getattr(event, name), field=f"{field}.{name}")


def first(
    key: ActionKey,
    update: idl.TrackedActionUpdate,
    spec: EncodedSpec | None,
    parent: Action | None,
    *,
    base: str,
    now: Micros,
) -> Action:
    """The action before its first report, below ``parent``. Its data is in ``base``, by the action's name.

    Raises NotFound without the parent, Aborted below an aborted one, InvalidArgument where the report does not say what it is.
    """
    if not update.parent_name:
        raise InvalidArgument("parent_name is empty: a first report says what started the action; the root has its run's")
    if parent is None:
        raise NotFound(f"parent_name: run {key.run_key} has no action {update.parent_name!r}; report it first")
    if parent.phase is Phase.ABORTED:
        raise Aborted(f"parent_name: action {parent.key} was aborted: {parent.reason}")
    began = time_of(update.event) or now
    if update.status.HasField("start_time"):
        began = micros(update.status.start_time, field="status.start_time")
    at = min(began, now)
    inputs = join(base, key.name, INPUTS)
    if spec is not None:
        action = task_action(key, spec, now=at, parent=parent.key.name, input_uri=inputs, output_base=base, group=update.group)
    elif update.WhichOneof("spec") == "trace":
        action = Action(
            key=key,
            parent=parent.key.name,
            depth=0,
            action_type=ActionType.TRACE,
            group_name=update.group,
            phase=Phase.QUEUED,
            created_at=at,
            updated_at=now,
            task=TaskId(name=update.trace.name),
            short_name=update.trace.name,
            spec=update.trace.spec.SerializeToString(),
            input_uri=inputs,
            output_base=base,
            record=first_record(Phase.QUEUED, at=at).SerializeToString(),
        )
    else:
        raise InvalidArgument("spec: a first report says what the action is: set task or trace")
    return replace(action, depth=parent.depth + 1, attempt=update.event.attempt, reported=update.event.version)


def follow(known: Action, event: run_definition_pb2.ActionEvent, *, now: Micros, principal: str) -> Reported:
    """The action after ``event``: itself where that was told before.

    Raises Aborted for an action that was aborted, FailedPrecondition where the phase can't follow.
    """
    phase = Phase(event.phase)
    version = known.reported or 0
    if event.attempt < known.attempt or (event.attempt == known.attempt and event.version < version):
        return Reported(known)
    at = Micros(min(time_of(event) or now, now))
    action, finished = known, None
    if event.attempt > known.attempt:
        action, finished = _next_attempt(known, event.attempt, at=at, now=now)
    again = event.version == version and finished is None
    after = apply(action, _move(event, phase, at=at, principal=principal), now=now)
    if after is None:
        if phase is not action.phase and not (again and _went_through(action, phase)):
            raise _refusal(action, phase)
        if again or action.terminal:
            return Reported(known)
        after = action
    return Reported(replace(after, reported=event.version, version=known.version + 1, updated_at=now), finished)


def _next_attempt(known: Action, attempt: int, *, at: Micros, now: Micros) -> tuple[Action, run_definition_pb2.ActionAttempt]:
    """The action at the start of a later attempt, and the record of the one before, which failed, said or unsaid."""
    if known.phase is Phase.ABORTED or known.phase in SUCCESS:
        raise _refusal(known, Phase.QUEUED)
    if not known.terminal:
        lost = Move(to=Phase.FAILED, at=at, error=error_of(known.latest().error_info))
        known = apply(known, lost, now=now) or known
    renewed = replace(
        known,
        phase=Phase.QUEUED,
        attempt=attempt,
        ended_at=None,
        error=None,
        output_uri="",
        record=first_record(Phase.QUEUED, at=at, attempt=attempt).SerializeToString(),
    )
    return renewed, known.latest()


def _move(event: run_definition_pb2.ActionEvent, phase: Phase, *, at: Micros, principal: str) -> Move:
    told = event.error_info if event.HasField("error_info") else run_definition_pb2.ErrorInfo()
    error = error_of(told) if phase in (Phase.FAILED, Phase.TIMED_OUT) else None
    aborted = phase is Phase.ABORTED
    return Move(
        to=phase,
        at=at,
        error=error,
        output_uri=event.outputs.output_uri,
        report_uri=event.outputs.report_uri,
        cache_status=event.cache_status or None,
        reason=(told.message or "aborted by its client") if aborted else "",
        principal=principal if aborted else "",
        details=details_of(event),
    )


def _went_through(action: Action, phase: Phase) -> bool:
    return any(transition.phase == phase for transition in action.latest().phase_transitions)


def _refusal(known: Action, phase: Phase) -> Exception:
    if known.phase is Phase.ABORTED:
        return Aborted(f"action {known.key} was aborted: {known.reason}")
    return FailedPrecondition(
        f"event.phase: action {known.key} is {known.phase.name} in attempt {known.attempt}; {phase.name} can't follow"
    )
