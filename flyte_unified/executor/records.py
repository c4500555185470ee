"""What an attempt's record shows of its process: where its log is, and what happened to it, in words for people."""

from __future__ import annotations

from collections.abc import Iterable

from flyteidl2.core import execution_pb2
from flyteidl2.workflow import run_definition_pb2

from flyte_unified.core.clock import Micros, timestamp
from flyte_unified.launchers.api import Exit, Started


def begin(event: Started, *, log: str, links: Iterable[execution_pb2.TaskLog]) -> run_definition_pb2.ActionAttempt:
    """A process that was started. ``log`` is the address of its output, ``links`` are the task's own."""
    record = run_definition_pb2.ActionAttempt(logs_available=True)
    record.log_info.add(uri=log, name="Log", ready=True, ShowWhilePending=True)
    record.log_info.extend(links)
    where = f" on {event.where}" if event.where else ""
    _tell(record, "Started", f"process {event.pid} started{where}", at=event.at)
    return record


def end(ending: Exit, *, at: Micros) -> run_definition_pb2.ActionAttempt:
    """A process that is gone."""
    if ending.out_of_memory:
        message = "killed: it used more memory than its limit"
    elif ending.signal is not None:
        message = f"ended by signal {ending.signal}"
    elif ending.code is not None:
        message = f"exited with code {ending.code}"
    else:
        message = "gone, and nobody saw it end"
    record = run_definition_pb2.ActionAttempt()
    _tell(record, "Ended", message, at=at, quiet=ending.code == 0)
    return record


def _tell(record: run_definition_pb2.ActionAttempt, reason: str, message: str, *, at: Micros, quiet: bool = True) -> None:
    event = run_definition_pb2.ClusterEvent
    kind = event.TYPE_NORMAL if quiet else event.TYPE_WARNING
    record.cluster_events.add(occurred_at=timestamp(at), message=message, reason=reason, type=kind, count=1)
