"""What a TaskAction's status says, to and fro: an action as a status, and another's status as moves of its action. Pure.

Conditions and reasons are Flyte's (executor/api/v1). An object without any status is one that is queued in its first attempt.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from flyteidl2.core import execution_pb2, literals_pb2
from flyteidl2.workflow import run_definition_pb2
from google.protobuf.message import DecodeError

from flyte_unified.core.clock import SECOND, micros
from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.phases import Phase, legal
from flyte_unified.kube.kinds import Object
from flyte_unified.ledger.api import Action, ActionType, Failure, Move, Retry, check_signal

_MESSAGE = 4096
"""Characters of a message for people; the database has all of it."""
_MAX_SKIPPED = 100
"""Attempts that a status may be ahead of what we know."""

_REASONS = {
    Phase.QUEUED: ("Queued", "queued"),
    Phase.WAITING_FOR_RESOURCES: ("Queued", "waiting for resources"),
    Phase.INITIALIZING: ("Initializing", "being started"),
    Phase.RUNNING: ("Executing", "running"),
    Phase.PAUSED: ("Paused", "waiting for a signal"),
    Phase.SUCCEEDED: ("Completed", "completed"),
    Phase.RECOVERED: ("Completed", "recovered from another run"),
    Phase.FAILED: ("PermanentFailure", "failed"),
    Phase.TIMED_OUT: ("TimedOut", "timed out"),
    Phase.ABORTED: ("Aborted", "aborted"),
}
_PROGRESSING = {
    "Queued": Phase.QUEUED,
    "Initializing": Phase.INITIALIZING,
    "Executing": Phase.RUNNING,
    "Paused": Phase.PAUSED,
}
_FAILED = {"TimedOut": Phase.TIMED_OUT, "Aborted": Phase.ABORTED}
_KINDS = {"USER": execution_pb2.ExecutionError.USER, "SYSTEM": execution_pb2.ExecutionError.SYSTEM}
_KIND_NAMES = {number: name for name, number in _KINDS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """``kind`` is USER, SYSTEM or empty."""

    code: str = ""
    kind: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a status says, whoever wrote it."""

    phase: Phase = Phase.UNSPECIFIED
    attempt: int = 0
    """0 where it says nothing, which means the first."""
    system_failures: int = 0
    cache_status: int = 0
    error: Error | None = None
    signal: str = ""
    """A literal in base64"""
    signalled_by: str = ""

    @property
    def digest(self) -> str:
        return hashlib.sha256(orjson.dumps(astuple(self))).hexdigest()[:12]


UNTOLD = Told(phase=Phase.QUEUED, attempt=1)
"""What no status at all means"""


# From an action to its status


def status_of(action: Action) -> Object:
    """The whole status that tells ``action``."""
    record = action.latest()
    told = told_of(action)
    since = micros(record.phase_transitions[-1].start_time) if record.phase_transitions else action.updated_at
    conditions = _conditions(action, told, _time(since))
    history = _history(record.phase_transitions)
    if history:
        history[-1]["phase"] = conditions[0]["reason"]
    status = fields(told) | {
        "conditions": conditions,
        "phaseHistory": history,
        "recorded": f"{action.version}/{told.digest}",
    }
    return status | ({"signalledAt": _time(since)} if told.signal else {})


def told_of(action: Action) -> Told:
    error = None
    if action.phase in (Phase.FAILED, Phase.TIMED_OUT) and (known := action.execution_error()) is not None:
        error = Error(code=known.code, kind=_KIND_NAMES.get(known.kind, ""), message=known.message[:_MESSAGE])
    signalled = action.action_type is ActionType.CONDITION and action.value is not None
    return Told(
        phase=_visible(action.phase),
        attempt=action.attempt,
        system_failures=action.system_failures,
        cache_status=action.cache_status,
        error=error,
        signal=base64.b64encode(action.value).decode() if signalled and action.value is not None else "",
        signalled_by=action.principal if signalled else "",
    )


def _visible(phase: Phase) -> Phase:
    """As much of a phase as conditions can tell."""
    return {Phase.WAITING_FOR_RESOURCES: Phase.QUEUED, Phase.RECOVERED: Phase.SUCCEEDED}.get(phase, phase)


def fields(told: Told) -> Object:
    """What a status says beside its conditions and their history."""
    values: Object = {
        "attempts": told.attempt,
        "systemFailures": told.system_failures,
        "cacheStatus": told.cache_status,
        "signalValue": told.signal,
        "signalledBy": told.signalled_by,
    }
    if told.error is not None:
        values["errorState"] = {"code": told.error.code, "kind": told.error.kind, "message": told.error.message}
    return {name: value for name, value in values.items() if value}


def _conditions(action: Action, told: Told, since: str) -> list[Object]:
    reason, message = _REASONS[action.phase]
    if told.signal:
        reason, message = "Signaled", f"signalled by {told.signalled_by or 'somebody'}"
    elif told.error is not None:
        message = told.error.message
    elif action.phase is Phase.ABORTED:
        message = action.reason[:_MESSAGE] or message
    progressing = "False" if action.terminal else "True"
    common = {"reason": reason, "message": message, "lastTransitionTime": since}
    conditions: list[Object] = [{"type": "Progressing", "status": progressing, **common}]
    if action.terminal:
        end = "Succeeded" if told.phase is Phase.SUCCEEDED else "Failed"
        conditions.append({"type": end, "status": "True", **common})
    return conditions


def _history(transitions: Iterable[run_definition_pb2.PhaseTransition]) -> list[Object]:
    history: list[Object] = []
    for transition in transitions:
        reason = _REASONS[Phase(transition.phase)][0]
        if not history or history[-1]["phase"] != reason:
            history.append({"phase": reason, "occurredAt": _time(micros(transition.start_time))})
    return history


# From a status to its action


def read_status(status: Mapping[str, Any]) -> Told:
    error = status.get("errorState")
    return Told(
        phase=_phase(status.get("conditions") or []),
        attempt=status.get("attempts") or 0,
        system_failures=status.get("systemFailures") or 0,
        cache_status=status.get("cacheStatus") or 0,
        error=Error(**{name: error.get(name) or "" for name in ("code", "kind", "message")}) if error else None,
        signal=status.get("signalValue") or "",
        signalled_by=status.get("signalledBy") or "",
    )


def _phase(conditions: Iterable[Mapping[str, Any]]) -> Phase:
    reasons = {condition["type"]: condition.get("reason", "") for condition in conditions if condition["status"] == "True"}
    if "Succeeded" in reasons:
        return Phase.SUCCEEDED
    if "Failed" in reasons:
        return _FAILED.get(reasons["Failed"], Phase.FAILED)
    if "Progressing" in reasons:
        return _PROGRESSING.get(reasons["Progressing"], Phase.UNSPECIFIED)
    return Phase.UNSPECIFIED


def moves(told: Told, action: Action) -> tuple[Move | Retry, ...]:
    """What another's status means for a live action: nothing, where it is behind the ledger or no move is legal."""
    if action.action_type is ActionType.CONDITION and (told.signal or told.phase is Phase.SUCCEEDED):
        return _signal(told, action)
    attempt = told.attempt or 1
    if not 0 <= attempt - action.attempt <= _MAX_SKIPPED:
        return ()
    error = _error(told)
    failure = Failure.SYSTEM if error.kind == execution_pb2.ExecutionError.SYSTEM else Failure.USER
    retries = tuple(Retry(attempt=number, error=error, failure=failure) for number in range(action.attempt, attempt))
    current = Phase.QUEUED if retries else action.phase
    phase = current if told.phase is Phase.UNSPECIFIED else told.phase
    cache_status = told.cache_status if told.cache_status != action.cache_status else None
    if phase is _visible(current):
        phase = current
    elif not legal(current, phase):
        return retries
    if phase is current and not cache_status:
        return retries
    move = Move(
        to=phase,
        attempt=attempt,
        cache_status=cache_status or None,
        error=error if phase in (Phase.FAILED, Phase.TIMED_OUT) else None,
        reason="aborted by another executor" if phase is Phase.ABORTED else "",
        output_uri=f"{action.output_base.rstrip('/')}/{action.key.name}/{attempt}" if phase is Phase.SUCCEEDED else "",
    )
    return (*retries, move)


def _signal(told: Told, action: Action) -> tuple[Move, ...]:
    """A condition succeeds by a signal of its type, and only so."""
    condition = run_definition_pb2.ConditionAction.FromString(action.spec or b"")
    try:
        value = check_signal(condition, literals_pb2.Literal.FromString(base64.b64decode(told.signal, validate=True)))
    except (InvalidArgument, DecodeError, binascii.Error):
        return ()
    raw = value.SerializeToString(deterministic=True)
    return (Move(to=Phase.SUCCEEDED, value=raw, principal=told.signalled_by),)


def _error(told: Told) -> execution_pb2.ExecutionError:
    error = told.error or Error()
    return execution_pb2.ExecutionError(
        code=error.code or "Unknown",
        message=error.message or "another executor ended the attempt, and did not say why",
        kind=_KINDS.get(error.kind, execution_pb2.ExecutionError.UNKNOWN),
    )


def _time(at: int) -> str:
    """RFC 3339 in whole seconds, as Kubernetes writes it."""
    return datetime.fromtimestamp(at // SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
