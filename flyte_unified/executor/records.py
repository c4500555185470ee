"""What an attempt's record shows of its process: where its log is, and what happened to it, in words for people."""

from __future__ import annotations

from collections.abc import Iterable

from flyteidl2.core import execution_pb2
from flyteidl2.workflow import run_definition_pb2

from flyte_unified.core.clock import Micros, timestamp
from flyte_unified.launchers.api import Started
from flyte_unified.ledger.api import Action, merge
from flyte_unified.plugins.api import Exit


def begin(event: Started, *, log: str, links: Iterable[execution_pb2.TaskLog]) -> run_definition_pb2.ActionAttempt:
    """What was started. ``log`` is the address of its output, ``links`` are the task's own."""
    record = run_definition_pb2.ActionAttempt(logs_available=True)
    record.log_info.add(uri=log, name="Log", ready=True, ShowWhilePending=True)
    record.log_info.extend(links)
    if event.pid:
        where = f" on {event.where}" if event.where else ""
        _tell(record, "Started", f"process {event.pid} started{where}", at=event.at)
    return joined(record, event.details)


def joined(
    record: run_definition_pb2.ActionAttempt | None, more: run_definition_pb2.ActionAttempt | None
) -> run_definition_pb2.ActionAttempt:
    """Both in one."""
    both = run_definition_pb2.ActionAttempt()
    for part in (record, more):
        if part is not None:
            merge(both, part)
    return both


def news(action: Action, told: run_definition_pb2.ActionAttempt | None) -> run_definition_pb2.ActionAttempt | None:
    """``told``, if the record lacks any of it: a new leader hears again all that the one before has written down."""
    if told is None:
        return None
    before, after = action.latest(), action.latest()
    merge(after, told)
    return told if after != before else None


def end(ending: Exit, *, at: Micros) -> run_definition_pb2.ActionAttempt:
    """A process that is gone."""
    if ending.fault is not None:
        reason, message = "Failed", ending.fault.message
    elif ending.out_of_memory:
        reason, message = "OOMKilled", "killed: it used more memory than its limit"
    elif ending.signal is not None:
        reason, message = "Killed", f"ended by signal {ending.signal}"
    elif ending.code is not None:
        reason, message = "Failed" if ending.code else "Completed", f"exited with code {ending.code}"
    else:
        reason, message = "Lost", "gone, and nobody saw it end"
    record = run_definition_pb2.ActionAttempt()
    _tell(record, reason, message, at=at, quiet=reason == "Completed")
    return record


def _tell(record: run_definition_pb2.ActionAttempt, reason: str, message: str, *, at: Micros, quiet: bool = True) -> None:
    event = run_definition_pb2.ClusterEvent
    kind = event.TYPE_NORMAL if quiet else event.TYPE_WARNING
    record.cluster_events.add(occurred_at=timestamp(at), message=message, reason=reason, type=kind, count=1)
