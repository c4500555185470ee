"""The task that a request is about: one that it holds, or one that is deployed."""

from __future__ import annotations

from typing import Protocol

from flyteidl2.core import identifier_pb2
from flyteidl2.dataproxy import dataproxy_service_pb2
from flyteidl2.task import task_definition_pb2
from flyteidl2.workflow import run_service_pb2, tracked_run_service_pb2

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.ids import printable, scope_part
from flyte_unified.ledger.api import TaskId


class Specs(Protocol):
    """Deployed tasks. Both raise NotFound."""

    async def of_task(self, task: TaskId) -> task_definition_pb2.TaskSpec:
        """The spec of one version of a task."""

    async def of_trigger(self, task: TaskId, trigger: str) -> task_definition_pb2.TaskSpec:
        """The spec that a trigger of ``task`` (whose version is empty) starts."""


async def spec_in(
    message: run_service_pb2.CreateRunRequest
    | tracked_run_service_pb2.CreateTrackedRunRequest
    | dataproxy_service_pb2.UploadInputsRequest,
    specs: Specs,
) -> task_definition_pb2.TaskSpec:
    """What ``message`` asks for but by a trigger. Raises NotFound; InvalidArgument where it names no task."""
    match message.WhichOneof("task"):
        case "task_spec":
            return message.task_spec
        case "task_id":
            return await specs.of_task(task_id(message.task_id))
    *most, last = (field.name for field in message.DESCRIPTOR.oneofs_by_name["task"].fields)
    raise InvalidArgument(f"task: one of {', '.join(most)} and {last} must be set")


def task_id(message: task_definition_pb2.TaskIdentifier) -> TaskId:
    """One version of a task, as named in a request."""
    return TaskId(message.project, message.domain, message.name, message.version)


def check_id(task: identifier_pb2.Identifier) -> None:
    """Whether lists can find a run by this ``id`` of its task's template. Raises InvalidArgument naming the part."""
    field = "task_spec.task_template.id"
    printable(task.name, field=f"{field}.name")
    if task.version:
        printable(task.version, field=f"{field}.version")
    for part in ("project", "domain"):
        if value := getattr(task, part):
            scope_part(value, field=f"{field}.{part}")
