"""flyteidl2.task.TaskService (flyteidl2/task/task_service.proto)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from flyteidl2.common import list_pb2
from flyteidl2.task import task_definition_pb2, task_service_pb2

from flyte_unified.core.clock import timestamp
from flyte_unified.core.context import CallContext
from flyte_unified.core.ids import scope_part
from flyte_unified.identity.api import Identities
from flyte_unified.tasks.service import Tasks
from flyte_unified.tasks.store import LatestRun, Task
from flyte_unified.triggers.api import Trigger, Triggers

_Attached = Mapping[tuple[str, str, str], Sequence[Trigger]]
"""The triggers of tasks, by project, domain and name."""


class TasksHandlers:
    """The org of a request is echoed and nothing more."""

    def __init__(self, *, tasks: Tasks, triggers: Triggers, identities: Identities) -> None:
        self._tasks = tasks
        self._triggers = triggers
        self._identities = identities

    async def deploy_task(
        self, message: task_service_pb2.DeployTaskRequest, ctx: CallContext
    ) -> task_service_pb2.DeployTaskResponse:
        await self._tasks.deploy(
            message.task_id, message.spec, deployed_by=self._identities.of(ctx).subject, triggers=message.triggers
        )
        return task_service_pb2.DeployTaskResponse()

    async def get_task_details(
        self, message: task_service_pb2.GetTaskDetailsRequest, ctx: CallContext
    ) -> task_service_pb2.GetTaskDetailsResponse:
        task, spec = await self._tasks.details(message.task_id)
        details = task_definition_pb2.TaskDetails(
            task_id=_identifier(task, message.task_id.org),
            metadata=self._metadata(task, await self._triggers.attached([task.id])),
            spec=spec,
        )
        return task_service_pb2.GetTaskDetailsResponse(details=details)

    async def list_tasks(
        self, message: task_service_pb2.ListTasksRequest, ctx: CallContext
    ) -> task_service_pb2.ListTasksResponse:
        project = domain = ""
        if message.HasField("project_id"):
            project = scope_part(message.project_id.name, field="project_id.name")
            domain = scope_part(message.project_id.domain, field="project_id.domain")
        page = await self._tasks.page(message.request, project=project, domain=domain, known=_known(message.known_filters))
        org = message.project_id.organization or message.org
        attached = await self._triggers.attached([task.id for task, _ in page.tasks])
        return task_service_pb2.ListTasksResponse(
            tasks=[
                task_definition_pb2.Task(
                    task_id=_identifier(task, org),
                    metadata=self._metadata(task, attached),
                    task_summary=task_definition_pb2.TaskSummary(latest_run=_latest(run, org)),
                )
                for task, run in page.tasks
            ],
            token=page.token,
            metadata=task_service_pb2.ListTasksResponse.ListTasksMetadata(total=page.total, filtered_total=page.matching),
        )

    async def list_versions(
        self, message: task_service_pb2.ListVersionsRequest, ctx: CallContext
    ) -> task_service_pb2.ListVersionsResponse:
        page = await self._tasks.versions(message.task_name, message.request)
        return task_service_pb2.ListVersionsResponse(
            versions=[
                task_service_pb2.ListVersionsResponse.VersionResponse(
                    version=task.id.version,
                    deployed_at=timestamp(task.created_at),
                    deployed_by=self._identities.enriched(task.deployed_by),
                    latest_run=_latest(run, message.task_name.org),
                )
                for task, run in page.tasks
            ],
            token=page.token,
        )

    def _metadata(self, task: Task, attached: _Attached) -> task_definition_pb2.TaskMetadata:
        return task_definition_pb2.TaskMetadata(
            deployed_by=self._identities.enriched(task.deployed_by),
            short_name=task.short_name,
            deployed_at=timestamp(task.created_at),
            environment_name=task.environment_name,
            short_description=task.short_description,
            triggers_summary=_summary(attached.get(task.id[:3], ())),
        )


def _summary(triggers: Sequence[Trigger]) -> task_definition_pb2.TaskTriggersSummary | None:
    """One trigger is told whole, of more their number."""
    if not triggers:
        return None
    summary = task_definition_pb2.TaskTriggersSummary()
    if len(triggers) == 1:
        summary.details.name, summary.details.active = triggers[0].key.name, triggers[0].active
        summary.details.automation_spec.CopyFrom(triggers[0].automation_message())
    else:
        summary.stats.total, summary.stats.active = len(triggers), sum(each.active for each in triggers)
    return summary


def _known(filters: Iterable[task_service_pb2.ListTasksRequest.KnownFilter]) -> list[list_pb2.Filter]:
    """The filters that have a field of their own, as the others are."""
    found = []
    for each in filters:
        match each.WhichOneof("filter_by"):
            case "deployed_by":
                found.append(list_pb2.Filter(field="deployed_by", values=[each.deployed_by]))
            case "is_entrypoint":
                found.append(list_pb2.Filter(field="entrypoint", values=[str(int(each.is_entrypoint))]))
    return found


def _identifier(task: Task, org: str) -> task_definition_pb2.TaskIdentifier:
    return task_definition_pb2.TaskIdentifier(org=org, **task.id._asdict())


def _latest(run: LatestRun | None, org: str) -> task_definition_pb2.LatestRunSummary | None:
    if run is None:
        return None
    return task_definition_pb2.LatestRunSummary(
        run_id=run.key.idl(org), run_time=timestamp(run.created_at), phase=int(run.phase), root_task_name=run.task_name
    )
