"""What the ledger keeps, as values."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from flyteidl2.core import execution_pb2
from flyteidl2.workflow import run_definition_pb2

from flyte_unified.core.clock import Micros
from flyte_unified.core.ids import ActionKey, RunKey
from flyte_unified.core.phases import Phase
from flyte_unified.db.api import Work


class ActionType(enum.IntEnum):
    """Numbers as in flyteidl2.workflow.ActionType."""

    TASK = 1
    TRACE = 2
    CONDITION = 3


class TaskId(NamedTuple):
    """One version of a task."""

    project: str = ""
    domain: str = ""
    name: str = ""
    version: str = ""


NO_TASK = TaskId()
"""What a trace or a condition has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What CreateRun stored. A run's phase is its root action's."""

    key: RunKey
    run_spec: bytes
    """flyteidl2.task.RunSpec"""
    labels: Mapping[str, str]
    source: int
    request_id: str | None
    content: str
    output_base: str
    start_time: Micros
    created_by: str
    created_at: Micros
    """As the root's, so that an index of either table has a list's order."""
    trigger_task: str | None = None
    trigger_name: str | None = None
    """What started it: a trigger of its own project and domain; None where none did."""
    trigger_revision: int | None = None
    trigger_type: int | None = None
    """flyteidl2.task.TriggerAutomationSpecType"""

    @property
    def tracked(self) -> bool:
        """Whether its client carries it out, and tells us."""
        return self.source == int(run_definition_pb2.RUN_SOURCE_TRACKED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One row of ``actions``; see ``db.tables`` for its columns."""

    key: ActionKey
    parent: str | None
    depth: int
    action_type: ActionType
    group_name: str = ""
    phase: Phase
    version: int = 1
    attempt: int = 1
    system_failures: int = 0
    interruptions: int = 0
    cache_status: int = 0
    created_at: Micros
    updated_at: Micros
    started_at: Micros | None = None
    ended_at: Micros | None = None
    not_before: Micros | None = None
    task: TaskId = NO_TASK
    task_type: str = ""
    short_name: str = ""
    environment_name: str = ""
    spec_digest: str | None = None
    spec: bytes | None = None
    input_uri: str = ""
    output_base: str = ""
    output_uri: str = ""
    cache_key: str = ""
    queue: str = ""
    error: bytes | None = None
    reason: str = ""
    principal: str = ""
    value: bytes | None = None
    state: str = ""
    record: bytes = b""
    reported: int | None = None
    """Of a tracked run, whose client carries it out: the version of the latest report."""

    @property
    def tracked(self) -> bool:
        return self.reported is not None

    @property
    def terminal(self) -> bool:
        return self.phase.terminal

    @property
    def outcome(self) -> int:
        """The phase in which it ended; 0 while it lives."""
        return int(self.phase) if self.phase.terminal else 0

    @property
    def user_failures(self) -> int:
        """How many attempts before this one count against the retries that the task asks for."""
        return self.attempt - 1 - self.system_failures - self.interruptions

    def latest(self) -> run_definition_pb2.ActionAttempt:
        """The record of the latest attempt."""
        return run_definition_pb2.ActionAttempt.FromString(self.record)

    def execution_error(self) -> execution_pb2.ExecutionError | None:
        return execution_pb2.ExecutionError.FromString(self.error) if self.error is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """What became of an action. ``at`` is when it happened; the ledger's clock where it is None."""

    to: Phase
    attempt: int | None = None
    """The attempt that this is said of; a word about an earlier one changes nothing. None: whichever is under way."""
    at: Micros | None = None
    error: execution_pb2.ExecutionError | None = None
    output_uri: str = ""
    report_uri: str = ""
    cache_status: int | None = None
    cache_source: run_definition_pb2.ActionAttempt | None = None
    """Where a cache hit's outputs come from: its ``cache_metadata`` is taken."""
    reason: str = ""
    principal: str = ""
    value: bytes | None = None
    details: run_definition_pb2.ActionAttempt | None = None
    """Merged into the attempt's record: logs, log context, cluster events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """The attempt under way ended with ``error``, in ``ended``; another begins, not before ``not_before``."""

    attempt: int
    error: execution_pb2.ExecutionError
    ended: Phase = Phase.FAILED
    not_before: Micros | None = None
    failure: Failure
    at: Micros | None = None
    details: run_definition_pb2.ActionAttempt | None = None


class Failure(enum.Enum):
    """Whose budget a failed attempt is charged to."""

    USER = "user"
    SYSTEM = "system"
    INTERRUPTION = "interruption"


@dataclass(frozen=True, slots=True)
class Details:
    """An action with all its attempts, the finished ones first."""

    action: Action
    attempts: tuple[run_definition_pb2.ActionAttempt, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """A run and its root action, to be stored together."""

    run: Run
    root: Action
    spec: bytes
    """flyteidl2.task.TaskSpec of the root action"""
    chosen: bool = field(default=True)
    """Whether the caller chose the name; else a repeated request id gives the run that it made."""
    beside: Callable[[], Work[None]] | None = None
    """What another room writes in the same transaction."""


class Reported(NamedTuple):
    """An action as a report leaves it, and the record of the attempt before, where the report began another."""

    action: Action
    finished: run_definition_pb2.ActionAttempt | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a client says of an action that it carries out itself.

    ``judge`` is given the action and, where there is none yet, its parent, if that exists. Pure; may be asked again. It answers
    with the action itself where nothing is new, and raises what is wrong with the report.
    """

    key: ActionKey
    parent: str
    spec: tuple[str, bytes] | None
    """Of a task: the digest of its spec, and the spec."""
    judge: Callable[[Action | None, Action | None], Reported]
