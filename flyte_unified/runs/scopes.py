"""Which runs a list or a watch is about."""

from __future__ import annotations

from dataclasses import dataclass, field

from flyteidl2.common import identifier_pb2
from flyteidl2.task import task_definition_pb2
from flyteidl2.workflow import run_service_pb2

from flyte_unified.core.ids import scope_part
from flyte_unified.ledger.api import NO_TASK, Action, Roots, TaskId


@dataclass(frozen=True, slots=True)
class RunScope:
    """Runs of a project and domain, of a task, or, where these are empty, all; tracked ones, or all others.

    ``trigger`` is the name of its task, which may be empty, and its own; lists alone have it. ``org`` is what the caller calls
    the organisation: to be echoed, no part of the scope.
    """

    project: str = ""
    domain: str = ""
    task: TaskId = NO_TASK
    trigger: tuple[str, str] = ("", "")
    tracked: bool = False
    org: str = field(default="", repr=False, compare=False)

    def includes(self, root: Action) -> bool:
        """Whether the run with this root is meant."""
        asked = (self.project, self.domain, *self.task)
        has = (root.key.project, root.key.domain, *root.task)
        return root.tracked == self.tracked and all(part in ("", there) for part, there in zip(asked, has, strict=True))

    @property
    def changes(self) -> Roots:
        """Changes that may be of such runs."""
        if self.project and self.domain:
            return Roots(self.project, self.domain, self.tracked)
        return Roots(tracked=self.tracked)


def of_list(message: run_service_pb2.ListRunsRequest) -> RunScope:
    """Raises InvalidArgument naming the part of the scope that is wrong."""
    match message.WhichOneof("scope_by"):
        case "project_id":
            return of_project(message.project_id)
        case "task_name":
            name = message.task_name
            return RunScope(task=TaskId(name.project, name.domain, name.name), org=name.org)
        case "task_id":
            return _of_task(message.task_id)
        case "trigger_name":
            name = message.trigger_name
            return RunScope(name.project, name.domain, trigger=(name.task_name, name.name), org=name.org)
    return RunScope(org=message.org)


def of_watch(message: run_service_pb2.WatchRunsRequest) -> RunScope:
    """An org or a cluster is the one that there is. Raises InvalidArgument naming the part that is wrong."""
    match message.WhichOneof("target"):
        case "project_id":
            return of_project(message.project_id)
        case "task_id":
            return _of_task(message.task_id)
    return RunScope(org=message.org)


def of_project(project: identifier_pb2.ProjectIdentifier) -> RunScope:
    """A project without a domain is all its domains."""
    name = scope_part(project.name, field="project_id.name")
    domain = scope_part(project.domain, field="project_id.domain") if project.domain else ""
    return RunScope(name, domain, org=project.organization)


def _of_task(task: task_definition_pb2.TaskIdentifier) -> RunScope:
    return RunScope(task=TaskId(task.project, task.domain, task.name, task.version), org=task.org)
