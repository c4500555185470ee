"""Lists as the SDK and its command line ask for them: each filter, each order, page after page to the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from flyteidl2.auth import identity_pb2
from flyteidl2.common import list_pb2, phase_pb2
from flyteidl2.project import project_service_pb2 as project_pb2
from flyteidl2.task import task_definition_pb2, task_service_pb2
from flyteidl2.workflow import run_definition_pb2, run_service_pb2

from flyte_unified.testing import Backend
from tests.edge.wire import world as facts
from tests.edge.wire.raw import Raw
from tests.edge.wire.world import DOMAIN, World, project_id, run_id, where

EQUAL, VALUE_IN, EXISTS = list_pb2.Filter.EQUAL, list_pb2.Filter.VALUE_IN, list_pb2.Filter.EXISTS
FROM, BEFORE = list_pb2.Filter.GREATER_THAN_OR_EQUAL, list_pb2.Filter.LESS_THAN
SUCCEEDED, ABORTED = phase_pb2.ACTION_PHASE_SUCCEEDED, phase_pb2.ACTION_PHASE_ABORTED
_MANY = 2000
_TASKS = "/flyteidl2.task.TaskService/"
_PROJECTS = "/flyteidl2.project.ProjectService/"


@dataclass(frozen=True)
class Lists:
    """A task that no other test has, with three runs: ``names``, the first labelled ``team=red``, the last aborted."""

    world: World
    task: str
    names: list[str]
    between: str
    """A time after the first run and before the second, as the SDK writes it."""

    async def runs(self, *filters: list_pb2.Filter, **fields: object) -> list[str]:
        """Names of the runs of the task that meet ``filters``, in the order of the answer."""
        mine = [where("task_name", self.task), *filters]
        request = run_service_pb2.ListRunsRequest(
            request=list_pb2.ListRequest(limit=100, filters=mine, **fields), org="acme", project_id=project_id()
        )
        return [run.action.id.run.name for run in (await self.world.list_runs(request)).runs]


@pytest.fixture(scope="module")
def made(server: Backend, directory: object) -> Lists:
    async def make() -> tuple[str, list[str], str]:
        async with Raw(server.address) as raw:
            world = World(raw, str(directory))
            task = facts.new_name("listed.")
            names = [facts.new_name("l") for _ in range(3)]
            first = facts.create_run(names[0], timedelta(0), spec=facts.nap_spec(task, version="old"))
            first.run_spec.labels.values["team"] = "red"
            await world.send(facts.RUNS + "CreateRun", first, run_service_pb2.CreateRunResponse)
            await world.ended(names[0])
            between = datetime.now(UTC).isoformat()
            for name in names[1:]:
                await world.create(name, spec=facts.nap_spec(task, version="new"))
            await world.condition(names[1], "c0")
            await world.abort(names[2])
            await world.ended(names[2])
            return task, names, between

    task, names, between = asyncio.run(make())
    return Lists(None, task, names, between)  # type: ignore[arg-type]  # the world is a test's own


@pytest.fixture
def lists(made: Lists, world: World) -> Lists:
    return Lists(world, made.task, made.names, made.between)


async def test_filters_of_runs(lists: Lists, world: World) -> None:
    """Every field and function that `flyte get run` and `Run.listall` send."""
    first, second, third = lists.names
    person = await world.send(
        "/flyteidl2.auth.IdentityService/UserInfo", identity_pb2.UserInfoRequest(), identity_pb2.UserInfoResponse
    )
    expected: Sequence[tuple[list_pb2.Filter, list[str]]] = [
        (where("phase", str(SUCCEEDED)), [first]),
        (where("phase", str(SUCCEEDED), str(ABORTED), function=VALUE_IN), [third, first]),
        (where("task_version", "new"), [third, second]),
        (where("task_version", "none"), []),
        (where("created_at", lists.between, function=FROM), [third, second]),
        (where("created_at", lists.between, function=BEFORE), [first]),
        (where("updated_at", lists.between, function=FROM), [third, second]),
        (where("updated_at", lists.between, function=BEFORE), [first]),
        (where("created_by", person.subject), [third, second, first]),
        (where("created_by", "nobody"), []),
        (where("labels.team", "red"), [first]),
        (where("labels.team", "blue"), []),
        (where("labels.team", function=EXISTS), [first]),
        (where("labels.other", function=EXISTS), []),
    ]
    for wanted, names in expected:
        assert await lists.runs(wanted) == names, wanted


async def test_paused_runs(lists: Lists, world: World) -> None:
    """``paused_actions_only``: runs with an action that waits for a word."""
    request = run_service_pb2.ListRunsRequest(
        request=list_pb2.ListRequest(limit=100, filters=[where("task_name", lists.task)]),
        project_id=project_id(),
        paused_actions_only=True,
    )
    assert [run.action.id.run.name for run in (await world.list_runs(request)).runs] == [lists.names[1]]


@pytest.mark.parametrize("key", ["created_at", "updated_at", "run_name", "phase", "task_name", "ended_at", "duration_ms"])
async def test_orders_of_runs(lists: Lists, key: str) -> None:
    """Any field, either way round, in the old field of the request and in the new one: the one is the other's mirror."""
    orders = []
    for direction in (list_pb2.Sort.ASCENDING, list_pb2.Sort.DESCENDING):
        sort = list_pb2.Sort(key=key, direction=direction)
        orders.append(await lists.runs(sort_by=sort))
        assert orders[-1] == await lists.runs(sort_by_fields=[sort])
    assert orders[0] == orders[1][::-1]
    assert sorted(orders[0]) == sorted(lists.names)


async def test_scopes_of_runs(lists: Lists, world: World) -> None:
    """By task name, by task and version, by a project without runs, by a trigger: exactly those runs."""
    task = {"project": "flytesnacks", "domain": DOMAIN, "name": lists.task}
    scopes = [
        (run_service_pb2.ListRunsRequest(task_name=task), 3),
        (run_service_pb2.ListRunsRequest(task_id={**task, "version": "new"}), 2),
        (run_service_pb2.ListRunsRequest(project_id={"name": "system", "domain": DOMAIN}), 0),
        (run_service_pb2.ListRunsRequest(trigger_name={"name": "daily", "task_name": lists.task}), 0),
    ]
    for request, count in scopes:
        assert len((await world.list_runs(request)).runs) == count, request


async def test_filters_of_actions(lists: Lists, world: World) -> None:
    """By phase, parent and type, as `flyte get action` and `flyte get condition` ask."""

    async def names(*filters: list_pb2.Filter) -> list[str]:
        request = run_service_pb2.ListActionsRequest(
            run_id=run_id(lists.names[1]), request=list_pb2.ListRequest(limit=100, filters=filters)
        )
        answer = await world.send(facts.RUNS + "ListActions", request, run_service_pb2.ListActionsResponse)
        return [action.id.name for action in answer.actions]

    assert await names() == ["a0", "c0"]
    assert await names(where("parent_name", "a0")) == ["c0"]
    condition = run_definition_pb2.ACTION_TYPE_CONDITION
    for value in (str(condition), "ACTION_TYPE_CONDITION"):
        assert await names(where("action_type", value)) == ["c0"]
    assert await names(where("phase", str(phase_pb2.ACTION_PHASE_PAUSED))) == ["c0"]
    assert await names(where("phase", str(SUCCEEDED), str(ABORTED), function=VALUE_IN)) == []


async def test_filters_of_tasks(world: World) -> None:
    """By name, whole or in part, by whether it is an entry point: the newest version that is; all versions, page by page."""
    name = facts.new_name("catalogue.")
    for version in "123":
        spec = facts.nap_spec(name, version=version)
        spec.task_template.metadata.is_entrypoint = version == "3"
        task_id = task_definition_pb2.TaskIdentifier(project="flytesnacks", domain=DOMAIN, name=name, version=version)
        await world.send(
            _TASKS + "DeployTask",
            task_service_pb2.DeployTaskRequest(task_id=task_id, spec=spec),
            task_service_pb2.DeployTaskResponse,
        )
    newest = list_pb2.Sort(key="created_at", direction=list_pb2.Sort.DESCENDING)

    async def found(*filters: list_pb2.Filter, **fields: object) -> list[str]:
        listed = list_pb2.ListRequest(limit=100, filters=filters, sort_by=newest)
        request = task_service_pb2.ListTasksRequest(request=listed, project_id=project_id(), **fields)
        answer = await world.send(_TASKS + "ListTasks", request, task_service_pb2.ListTasksResponse)
        return [task.task_id.version for task in answer.tasks if task.task_id.name == name]

    assert await found(where("name", name)) == ["3"]
    assert await found(where("name", name[2:], function=list_pb2.Filter.CONTAINS)) == ["3"]
    assert await found(known_filters=[{"is_entrypoint": True}]) == ["3"]
    assert await found(known_filters=[{"is_entrypoint": False}]) == ["2"]
    versions, token = [], ""
    while True:
        request = task_service_pb2.ListVersionsRequest(
            request=list_pb2.ListRequest(limit=2, token=token),
            task_name={"project": "flytesnacks", "domain": DOMAIN, "name": name},
        )
        page = await world.send(_TASKS + "ListVersions", request, task_service_pb2.ListVersionsResponse)
        versions += [version.version for version in page.versions]
        if not (token := page.token):
            break
    assert versions == ["3", "2", "1"]


async def test_filters_of_projects(world: World) -> None:
    """``eq(state, 0)`` as `flyte get project` sends it; archived ones by their own state; pages to the end."""
    names = [facts.new_name("pages-") for _ in range(3)]
    for name in names:
        request = project_pb2.CreateProjectRequest(project={"id": name, "name": name})
        await world.send(_PROJECTS + "CreateProject", request, project_pb2.CreateProjectResponse)
    archive = project_pb2.UpdateProjectRequest(project={"id": names[2], "state": project_pb2.PROJECT_STATE_ARCHIVED})
    await world.send(_PROJECTS + "UpdateProject", archive, project_pb2.UpdateProjectResponse)

    async def pages(filters: str) -> list[str]:
        found, token = [], ""
        while True:
            request = project_pb2.ListProjectsRequest(
                filters=filters,
                limit=1,
                token=token,
                sort_by=list_pb2.Sort(key="created_at", direction=list_pb2.Sort.ASCENDING),
            )
            answer = await world.send(_PROJECTS + "ListProjects", request, project_pb2.ListProjectsResponse)
            found += [project.id for project in answer.projects.projects]
            if not (token := answer.projects.token):
                return found

    assert [name for name in await pages("eq(state, 0)") if name in names] == names[:2]
    assert [name for name in await pages("eq(state,1)+contains(name, pages-)") if name in names] == names[2:]


@pytest.fixture
async def many(world: World) -> AsyncIterator[str]:
    """The name of a task with many runs that have ended."""
    task = facts.new_name("many.")
    request = facts.create_run("", spec=facts.nap_spec(task))
    request.offloaded_input_data.CopyFrom(await world.upload(timedelta(0)))
    names = iter([facts.new_name("many") for _ in range(_MANY)])

    async def create() -> None:
        for name in names:
            request.run_id.name = name
            await world.send(facts.RUNS + "CreateRun", request, run_service_pb2.CreateRunResponse)

    await asyncio.gather(*(create() for _ in range(16)))
    yield task


async def test_many_runs(many: str, world: World) -> None:
    """2,000 runs in pages of 100: each once, and the last page takes no longer than a few of the first."""
    listed = list_pb2.ListRequest(limit=100, filters=[where("task_name", many)])
    seen: list[str] = []
    seconds: list[float] = []
    while True:
        began = time.perf_counter()
        page = await world.list_runs(run_service_pb2.ListRunsRequest(request=listed, project_id=project_id()))
        seconds.append(time.perf_counter() - began)
        seen += [run.action.id.run.name for run in page.runs]
        if not page.token:
            break
        listed.token = page.token
    assert (len(seen), len(set(seen)), len(seconds)) == (_MANY, _MANY, _MANY // 100)
    assert min(seconds[-5:]) < 5 * min(seconds[:5]) + 0.02


async def test_a_token_belongs_to_its_list(lists: Lists, world: World) -> None:
    """With another filter, order or scope it is InvalidArgument; so is one that was altered."""
    listed = list_pb2.ListRequest(limit=1, filters=[where("task_name", lists.task)])
    request = run_service_pb2.ListRunsRequest(request=listed, project_id=project_id())
    token = (await world.list_runs(request)).token
    other = list_pb2.Sort(key="created_at", direction=list_pb2.Sort.ASCENDING)
    changed = [
        run_service_pb2.ListRunsRequest(request=list_pb2.ListRequest(limit=1, token=token), project_id=project_id()),
        run_service_pb2.ListRunsRequest(request=list_pb2.ListRequest(limit=1, token=token, filters=listed.filters)),
        run_service_pb2.ListRunsRequest(
            request=list_pb2.ListRequest(limit=1, token=token, filters=listed.filters, sort_by=other), project_id=project_id()
        ),
        *(
            run_service_pb2.ListRunsRequest(
                request=list_pb2.ListRequest(limit=1, token=bad, filters=listed.filters), project_id=project_id()
            )
            for bad in (token[:-2], token[::-1], "x", "W10", "żółw", "\0")
        ),
    ]
    for request in changed:
        answer = await world.raw.call(facts.RUNS + "ListRuns", request)
        assert (answer.code, "request.token" in answer.message) == ("invalid_argument", True), answer
