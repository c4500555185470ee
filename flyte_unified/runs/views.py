"""The ledger's values as flyteidl2 messages. Pure; ``org`` is whatever the caller said."""

from __future__ import annotations

from flyteidl2.common import identifier_pb2, identity_pb2
from flyteidl2.core import literals_pb2
from flyteidl2.task import run_pb2, task_definition_pb2
from flyteidl2.workflow import run_definition_pb2

from flyte_unified.core.clock import timestamp
from flyte_unified.core.phases import Phase
from flyte_unified.ledger.api import Action, ActionType, Details, Run, TaskId, error_info


def run(action: Action, of: Run, spec: run_pb2.RunSpec, *, org: str) -> run_definition_pb2.Run:
    """A run as lists show it: its root action and its labels."""
    return run_definition_pb2.Run(action=light(action, of, spec, org=org), labels=of.labels)


def light(action: Action, of: Run, spec: run_pb2.RunSpec, *, org: str) -> run_definition_pb2.Action:
    """An action as lists show it."""
    return run_definition_pb2.Action(
        id=action.key.idl(org), metadata=metadata(action, of, spec, org=org), status=status(action)
    )


def metadata(action: Action, of: Run, spec: run_pb2.RunSpec, *, org: str) -> run_definition_pb2.ActionMetadata:
    message = run_definition_pb2.ActionMetadata(
        parent=action.parent or "",
        group=action.group_name,
        action_type=int(action.action_type),
        environment_name=action.environment_name,
        funtion_name=action.task.name,
        source=of.source,
    )
    if of.created_by:
        message.executed_by.CopyFrom(identity(of.created_by))
    if action.parent is None:
        _origin(message, of, spec, org=org)
    if action.action_type is ActionType.TASK:
        message.task.id.CopyFrom(task_identifier(action.task, org=org))
        message.task.task_type = action.task_type
        message.task.short_name = short_name(action)
    elif action.action_type is ActionType.TRACE:
        message.trace.name = action.task.name
    else:
        message.condition.name = action.task.name
        message.condition.type.CopyFrom(condition(action).type)
    return message


def _origin(message: run_definition_pb2.ActionMetadata, of: Run, spec: run_pb2.RunSpec, *, org: str) -> None:
    """Where the run of a root action comes from."""
    if spec.HasField("relation"):
        message.relation.CopyFrom(spec.relation)
    if of.trigger_name is not None:
        message.trigger_name = of.trigger_name
        message.trigger_id.revision = of.trigger_revision or 0
        message.trigger_id.name.CopyFrom(
            identifier_pb2.TriggerName(
                org=org,
                project=of.key.project,
                domain=of.key.domain,
                task_name=of.trigger_task or "",
                name=of.trigger_name,
            )
        )
        message.trigger_type.type = of.trigger_type or 0


def status(action: Action) -> run_definition_pb2.ActionStatus:
    """``start_time`` is when the action came into being, as Flyte's own clients expect: never unset."""
    message = run_definition_pb2.ActionStatus(
        phase=int(action.phase),
        start_time=timestamp(action.created_at),
        attempts=action.attempt,
        cache_status=action.cache_status,
    )
    if action.ended_at is not None:
        message.end_time.CopyFrom(timestamp(action.ended_at))
        message.duration_ms = max(0, action.ended_at - action.created_at) // 1000
    return message


def details(
    of: Details, run: Run, run_spec: run_pb2.RunSpec, task: task_definition_pb2.TaskSpec | None, *, org: str
) -> run_definition_pb2.ActionDetails:
    """Everything about an action. ``task`` is its spec, where it is a task."""
    action = of.action
    message = run_definition_pb2.ActionDetails(
        id=action.key.idl(org),
        metadata=metadata(action, run, run_spec, org=org),
        status=status(action),
        attempts=[_attempt(record) for record in of.attempts],
    )
    _result(action, message)
    if task is not None:
        message.task.CopyFrom(task)
    elif action.action_type is ActionType.TRACE:
        message.trace.ParseFromString(action.spec or b"")
    elif action.action_type is ActionType.CONDITION:
        message.condition.CopyFrom(condition(action))
    return message


def short_name(action: Action) -> str:
    """What people call the task."""
    return action.short_name or action.task.name


def condition(action: Action) -> run_definition_pb2.ConditionAction:
    return run_definition_pb2.ConditionAction.FromString(action.spec or b"")


def identity(subject: str) -> identity_pb2.EnrichedIdentity:
    user = identity_pb2.User(id=identifier_pb2.UserIdentifier(subject=subject))
    return identity_pb2.EnrichedIdentity(user=user)


def task_identifier(task: TaskId, *, org: str) -> task_definition_pb2.TaskIdentifier:
    return task_definition_pb2.TaskIdentifier(org=org, **task._asdict())


def _result(action: Action, message: run_definition_pb2.ActionDetails) -> None:
    error = action.execution_error()
    if action.phase in (Phase.FAILED, Phase.TIMED_OUT):
        message.error_info.SetInParent()
        if error is not None:
            message.error_info.CopyFrom(error_info(error))
    elif action.phase is Phase.ABORTED:
        message.abort_info.reason = action.reason
        if action.principal:
            message.abort_info.aborted_by.CopyFrom(identity(action.principal))
    elif action.value is not None:
        message.signal_info.output.CopyFrom(literals_pb2.Literal.FromString(action.value))
        if action.principal:
            message.signal_info.signalled_by.CopyFrom(identity(action.principal))


def _attempt(record: run_definition_pb2.ActionAttempt) -> run_definition_pb2.ActionAttempt:
    record.logs_available = record.logs_available or record.HasField("log_context")
    return record
