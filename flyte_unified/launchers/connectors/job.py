"""A job, and what its connector tells of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flyteidl2.connector import connector_pb2
from flyteidl2.core import execution_pb2
from flyteidl2.workflow import run_definition_pb2

from flyte_unified.core.clock import Micros, timestamp
from flyte_unified.core.phases import Phase
from flyte_unified.launchers.api import WorkId
from flyte_unified.ledger.api import Failure
from flyte_unified.plugins.api import Exit, Fault

FAILED = "TaskFailedWithError"
"""Flyte's code for a job that failed."""

_Phases = execution_pb2.TaskExecution
_ON_ITS_WAY = {
    _Phases.QUEUED: Phase.QUEUED,
    _Phases.WAITING_FOR_RESOURCES: Phase.WAITING_FOR_RESOURCES,
    _Phases.INITIALIZING: Phase.INITIALIZING,
    _Phases.RUNNING: Phase.RUNNING,
}
_FAILURES = frozenset({_Phases.FAILED, _Phases.RETRYABLE_FAILED, _Phases.ABORTED})
"""Phases whose message is told as the end's."""
_MESSAGES = 100
"""Messages that are told of one attempt: a connector may have another with every answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What must be known of a job to ask for it."""

    id: WorkId
    connector: str
    """Its address"""
    request: connector_pb2.GetTaskRequest
    """With secrets by their names."""
    outputs: Sequence[str]
    """Names of what the task promises."""

    def deletion(self) -> connector_pb2.DeleteTaskRequest:
        request = self.request
        return connector_pb2.DeleteTaskRequest(
            resource_meta=request.resource_meta, task_category=request.task_category, connection=request.connection
        )


def phase(resource: connector_pb2.Resource) -> Phase | None:
    """How far it has come; None for one that has ended, or whose phase says nothing."""
    return _ON_ITS_WAY.get(resource.phase)


def ending(resource: connector_pb2.Resource, job: Kept, *, stored: bool) -> Exit | None:
    """How it ended; None for one that has not. ``stored``: whether its outputs are in the store already."""
    name, where = job.request.task_category.name, f"connector {job.connector}"
    silent = f"the {name} job failed, and {where} gave no reason"
    match resource.phase:
        case _Phases.SUCCEEDED:
            given = {literal.name for literal in resource.outputs.literals}
            lacking = [name for name in job.outputs if name not in given]
            if not lacking or (stored and not given):
                return Exit(code=0)
            return failure(
                FAILED, f"the {name} job succeeded, but {where} gave no output {', '.join(lacking)}", retryable=False
            )
        case _Phases.FAILED:
            return failure(FAILED, resource.message or silent, retryable=False)
        case _Phases.RETRYABLE_FAILED:
            return failure(FAILED, resource.message or silent)
        case _Phases.ABORTED:
            why = f": {resource.message}" if resource.message else ""
            return failure("JobAborted", f"the {name} job was aborted from outside, says {where}{why}", retryable=False)
    return None


def failure(code: str, message: str, *, whose: Failure = Failure.USER, retryable: bool = True) -> Exit:
    return Exit(fault=Fault(code=code, message=message, failure=whose, retryable=retryable))


class Told:
    """What of a job has been told, so that only news is: every word of it is a write to the ledger."""

    def __init__(self) -> None:
        self.phase: Phase | None = None
        self._message = ""
        self._messages = 0
        self._links: set[bytes] = set()

    def news(self, resource: connector_pb2.Resource, *, at: Micros) -> run_definition_pb2.ActionAttempt | None:
        """Of the message and the links of ``resource``."""
        record = run_definition_pb2.ActionAttempt()
        fresh = resource.message != self._message and resource.phase not in _FAILURES
        if resource.message and fresh and self._messages < _MESSAGES:
            self._messages += 1
            happened(record, _Phases.Phase.Name(resource.phase), resource.message, at=at)
        self._message = resource.message
        for link in resource.log_links:
            if (content := link.SerializeToString(deterministic=True)) not in self._links:
                self._links.add(content)
                shown = record.log_info.add(ready=True)
                shown.MergeFrom(link)
        return record if record.ByteSize() else None


def happened(record: run_definition_pb2.ActionAttempt, reason: str, message: str, *, at: Micros, warning: bool = False) -> None:
    """Adds a cluster event."""
    event = run_definition_pb2.ClusterEvent
    kind = event.TYPE_WARNING if warning else event.TYPE_NORMAL
    record.cluster_events.add(occurred_at=timestamp(at), message=message, reason=reason, type=kind, count=1)
