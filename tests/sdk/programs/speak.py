"""How the programs in this directory tell the tests what they saw: one JSON object a line."""

from __future__ import annotations

import json
from typing import Any

import flyte
from flyte.remote import Action, ActionDetails, Run


def say(case: str, **facts: Any) -> None:
    print(json.dumps({"case": case, **facts}, default=str), flush=True)


def tell(case: str, run: Run, **facts: Any) -> None:
    """Waits for the run, and says how it ended."""
    run.wait(quiet=True)
    root = described(ActionDetails.get_details(run.pb2.action.id).pb2)
    outputs = list(run.outputs()) if root["phase"] == "SUCCEEDED" else None
    say(case, run=run.name, outputs=outputs, **root, **facts)


def children(run: Run) -> list[dict[str, Any]]:
    """What the server tells of every action below the root."""
    names = [action.name for action in Action.listall(for_run_name=run.name)]
    return [described(ActionDetails.get(run_name=run.name, name=name).pb2) for name in names if name != "a0"]


def raised(run: Run) -> str:
    """The exception that the SDK makes of how a run ended."""
    run.wait(quiet=True)
    run.sync()
    try:
        run.raise_for_status()
    except flyte.errors.BaseRuntimeError as error:
        return type(error).__name__
    return ""


def described(details: Any) -> dict[str, Any]:
    """An action's details (flyteidl2.workflow.ActionDetails) in plain words; times in seconds."""
    metadata = details.metadata
    return {
        "name": details.id.name,
        "task": metadata.task.short_name or metadata.trace.name or metadata.condition.name,
        "group": metadata.group,
        "parent": metadata.parent,
        "phase": _phase(details.status.phase),
        "cache": details.status.cache_status,
        "code": details.error_info.code,
        "message": details.error_info.message,
        "kind": details.error_info.kind,
        "reason": details.abort_info.reason,
        "attempts": [_attempt(attempt) for attempt in details.attempts],
    }


def _attempt(attempt: Any) -> dict[str, Any]:
    return {
        "number": attempt.attempt,
        "phase": _phase(attempt.phase),
        "code": attempt.error_info.code,
        "message": attempt.error_info.message,
        "phases": {_phase(step.phase): _seconds(step.start_time) for step in attempt.phase_transitions},
        "end": _seconds(attempt.end_time),
        "cache": attempt.cache_status,
        "links": {link.name: link.uri for link in attempt.log_info},
        "events": [event.message for event in attempt.cluster_events],
    }


def _phase(number: int) -> str:
    from flyteidl2.common import phase_pb2

    return phase_pb2.ActionPhase.Name(number).removeprefix("ACTION_PHASE_")


def _seconds(time: Any) -> float:
    return time.seconds + time.nanos / 1e9
