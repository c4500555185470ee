"""flyteidl2.project.ProjectService (flyteidl2/project/project_service.proto)."""

from __future__ import annotations

from flyteidl2.project import project_service_pb2 as idl
from flyteidl2.task import run_pb2

from flyte_unified.core.context import CallContext
from flyte_unified.core.ids import scope_part
from flyte_unified.projects.service import Projects
from flyte_unified.projects.store import Project


class ProjectsHandlers:
    """Domains in a request are not read: all projects have the same."""

    def __init__(self, *, projects: Projects) -> None:
        self._projects = projects

    async def create_project(self, message: idl.CreateProjectRequest, ctx: CallContext) -> idl.CreateProjectResponse:
        await self._projects.create(message.project)
        return idl.CreateProjectResponse()

    async def update_project(self, message: idl.UpdateProjectRequest, ctx: CallContext) -> idl.UpdateProjectResponse:
        await self._projects.update(message.project)
        return idl.UpdateProjectResponse()

    async def get_project(self, message: idl.GetProjectRequest, ctx: CallContext) -> idl.GetProjectResponse:
        found = await self._projects.get(scope_part(message.id, field="id"))
        return idl.GetProjectResponse(project=await self._message(found, message.org))

    async def list_projects(self, message: idl.ListProjectsRequest, ctx: CallContext) -> idl.ListProjectsResponse:
        found, token = await self._projects.page(
            limit=message.limit, token=message.token, wanted=message.filters, sort=message.sort_by
        )
        page = idl.Projects(projects=[await self._message(each, message.org) for each in found], token=token)
        return idl.ListProjectsResponse(projects=page)

    async def _message(self, project: Project, org: str) -> idl.Project:
        return idl.Project(
            id=project.id,
            name=project.name,
            domains=[idl.Domain(id=domain.id, name=domain.name) for domain in await self._projects.domains.all()],
            description=project.description,
            labels=run_pb2.Labels(values=project.labels),
            state=int(project.state),
            org=org,
        )
