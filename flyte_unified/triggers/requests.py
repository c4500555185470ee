"""What a deployment asks for, checked against the task that it is about. Pure."""

from __future__ import annotations

from flyteidl2.task import common_pb2, task_definition_pb2
from flyteidl2.trigger import trigger_definition_pb2

from flyte_unified.core.clock import Micros
from flyte_unified.core.errors import InvalidArgument
from flyte_unified.dataproxy.api import KICKOFF_TIME, check_inputs
from flyte_unified.triggers import catchup
from flyte_unified.triggers.model import Automation, Trigger, TriggerKey
from flyte_unified.triggers.schedule import schedule_of

_MAX_DESCRIPTION = 2048
_MAX_BYTES = 1200
"""Of the names of a trigger and its task: with an artifact's, they are the key of an offer, and Postgres's keys are short."""


def of_task(each: task_definition_pb2.TaskTrigger, *, version: str) -> trigger_definition_pb2.TriggerSpec:
    """The spec of a trigger that is deployed with its task."""
    spec = trigger_definition_pb2.TriggerSpec(active=each.spec.active, task_version=version, description=each.spec.description)
    if each.spec.HasField("run_spec"):
        spec.run_spec.CopyFrom(each.spec.run_spec)
    if (given := each.spec.WhichOneof("input_wrapper")) is not None:
        getattr(spec, given).CopyFrom(getattr(each.spec, given))
    return spec


def wanted(
    key: TriggerKey,
    spec: trigger_definition_pb2.TriggerSpec,
    automation: common_pb2.TriggerAutomationSpec,
    task: task_definition_pb2.TaskSpec,
    *,
    by: str,
    now: Micros,
) -> Trigger:
    """The trigger as it is to be. Raises InvalidArgument naming the field that is wrong."""
    if (length := len((key.task + key.name).encode())) > _MAX_BYTES:
        raise InvalidArgument(
            f"name: those of a trigger and its task have {length} bytes in UTF-8; at most {_MAX_BYTES} are allowed"
        )
    if len(spec.description) > _MAX_DESCRIPTION:
        raise InvalidArgument(f"spec.description has more than {_MAX_DESCRIPTION} characters")
    catchup.chosen(spec.run_spec)
    kind = _automation_type(automation)
    schedule_of(automation)
    _check_arguments(automation, task)
    if spec.WhichOneof("input_wrapper") == "offloaded_input_data":
        if not spec.offloaded_input_data.uri:
            raise InvalidArgument("spec.offloaded_input_data.uri is empty")
    else:
        _check_inputs(spec, automation, task, complete=spec.active and kind is not Automation.TYPE_NONE)
    return Trigger(
        key=key,
        spec=spec.SerializeToString(deterministic=True),
        automation=automation.SerializeToString(deterministic=True),
        automation_type=kind,
        task_version=spec.task_version,
        active=spec.active,
        description=spec.description,
        deployed_by=by,
        updated_by=by,
        deployed_at=now,
        updated_at=now,
    )


def _automation_type(automation: common_pb2.TriggerAutomationSpec) -> Automation:
    """Nothing said is none."""
    if automation.type == common_pb2.TYPE_UNSPECIFIED and automation.WhichOneof("automation") is not None:
        raise InvalidArgument("automation_spec.type is not set")
    try:
        kind = Automation(automation.type or common_pb2.TYPE_NONE)
    except ValueError:
        raise InvalidArgument(f"automation_spec.type: there is no type {automation.type}") from None
    if kind is Automation.TYPE_ARTIFACT and not automation.artifact.artifact_name:
        raise InvalidArgument("automation_spec.artifact.artifact_name is empty")
    return kind


def _check_arguments(automation: common_pb2.TriggerAutomationSpec, task: task_definition_pb2.TaskSpec) -> None:
    """What the trigger itself will fill must be inputs of the task."""
    known = {entry.key for entry in task.task_template.interface.inputs.variables}
    asked = [("schedule.kickoff_time_input_arg", automation.schedule.kickoff_time_input_arg)]
    asked += [("artifact.input_arg", automation.artifact.input_arg)]
    asked += [("artifact.partition_input_args", name) for name in automation.artifact.partition_input_args]
    for field, name in asked:
        if name and name not in known:
            raise InvalidArgument(f"automation_spec.{field}: task {task.task_template.id.name!r} has no input {name[:128]!r}")


def _check_inputs(
    spec: trigger_definition_pb2.TriggerSpec,
    automation: common_pb2.TriggerAutomationSpec,
    task: task_definition_pb2.TaskSpec,
    *,
    complete: bool,
) -> None:
    """``complete``: nobody will be there to add what is missing."""
    inputs = common_pb2.Inputs()
    inputs.CopyFrom(spec.inputs)
    if automation.schedule.kickoff_time_input_arg:
        inputs.context.add(key=KICKOFF_TIME, value=automation.schedule.kickoff_time_input_arg)
    given = {literal.name for literal in inputs.literals}
    of_artifact = {automation.artifact.input_arg, *automation.artifact.partition_input_args}
    inputs.literals.extend(common_pb2.NamedLiteral(name=name) for name in of_artifact - given if name)
    check_inputs(inputs, task, complete=complete)
