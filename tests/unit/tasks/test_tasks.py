"""Deployed tasks through their handlers, on a real ledger and database."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from flyteidl2.common import identifier_pb2, list_pb2
from flyteidl2.project import project_service_pb2
from flyteidl2.task import common_pb2, run_pb2, task_definition_pb2, task_service_pb2

from flyte_unified.core.clock import micros
from flyte_unified.core.context import CallContext, Identity
from flyte_unified.core.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from flyte_unified.core.ids import RunKey
from flyte_unified.core.phases import Phase
from flyte_unified.db.api import Database
from flyte_unified.identity.api import Identities
from flyte_unified.ledger.api import EncodedSpec, Ledger, Move, NewRun, Run, TaskId, task_action
from flyte_unified.projects.api import Projects
from flyte_unified.tasks.api import Tasks
from flyte_unified.tasks.handlers import TasksHandlers
from flyte_unified.triggers.api import Triggers
from tests.unit.manual_clock import ManualClock

ORG = "acme"


def task_id(name: str = "env.main", version: str = "v1", **fields: str) -> task_definition_pb2.TaskIdentifier:
    where = {"project": "p", "domain": "development", **fields}
    return task_definition_pb2.TaskIdentifier(org=ORG, name=name, version=version, **where)


def spec(*, entrypoint: bool = True, command: str = "a0") -> task_definition_pb2.TaskSpec:
    message = task_definition_pb2.TaskSpec(short_name="main")
    message.task_template.type = "python"
    message.task_template.interface.SetInParent()
    message.task_template.container.command.append(command)
    message.task_template.metadata.is_entrypoint = entrypoint
    message.environment.name = "env"
    message.documentation.short_description = "does it"
    return message


@dataclass
class Server:
    """The handlers, and what a test needs beside them."""

    handlers: TasksHandlers
    tasks: Tasks
    ledger: Ledger
    projects: Projects
    clock: ManualClock

    async def deploy(
        self,
        name: str = "env.main",
        version: str = "v1",
        *,
        by: str = "",
        content: task_definition_pb2.TaskSpec | None = None,
        **where: str,
    ) -> None:
        """Deploys a version, a second after whatever was before."""
        self.clock.pass_by(1)
        request = task_service_pb2.DeployTaskRequest(task_id=task_id(name, version, **where), spec=content or spec())
        await self.handlers.deploy_task(request, _ctx(by))

    async def details(self, **id_fields: str) -> task_definition_pb2.TaskDetails:
        request = task_service_pb2.GetTaskDetailsRequest(task_id=task_id(**id_fields))
        return (await self.handlers.get_task_details(request, _ctx())).details

    async def list(self, **fields: object) -> task_service_pb2.ListTasksResponse:
        request = {"project_id": IN_PROJECT, **fields}
        return await self.handlers.list_tasks(task_service_pb2.ListTasksRequest(**request), _ctx())

    async def shown(self, **fields: object) -> Sequence[str]:
        """Name and version of the tasks listed."""
        return [f"{each.task_id.name} {each.task_id.version}" for each in (await self.list(**fields)).tasks]

    async def versions(self, name: str = "env.main", **request: object) -> task_service_pb2.ListVersionsResponse:
        wanted = task_definition_pb2.TaskName(org=ORG, project="p", domain="development", name=name)
        message = task_service_pb2.ListVersionsRequest(task_name=wanted, request=list_pb2.ListRequest(**request))
        return await self.handlers.list_versions(message, _ctx())

    async def run(self, name: str, task: TaskId, *, phase: Phase | None = None) -> None:
        """A run of ``task`` whose root is in ``phase``."""
        now = self.clock.pass_by(1)
        key = RunKey("q", "production", name)
        encoded = EncodedSpec.of(spec())
        root = task_action(key.action("a0"), encoded, now=now, parent=None, input_uri="", output_base="")
        run = Run(
            key=key,
            run_spec=run_pb2.RunSpec().SerializeToString(),
            labels={},
            source=0,
            request_id=None,
            content=name,
            output_base="",
            start_time=now,
            created_by="",
            created_at=now,
        )
        await self.ledger.create_run(NewRun(run=run, root=replace(root, task=task), spec=encoded.raw))
        if phase is not None:
            await self.ledger.move(root.key, Move(to=phase))


IN_PROJECT = identifier_pb2.ProjectIdentifier(organization=ORG, name="p", domain="development")


def _ctx(subject: str = "") -> CallContext:
    return CallContext(procedure="/test", identity=Identity(subject=subject))


@pytest.fixture
async def server(database: Database, clock: ManualClock) -> Server:
    projects = Projects(database=database, clock=clock, domains=("development", "production"), seed=("p", "q"))
    await projects.start()
    ledger = Ledger(database=database, clock=clock)
    triggers = Triggers(database=database, clock=clock)
    tasks = Tasks(database=database, ledger=ledger, projects=projects, triggers=triggers, clock=clock)
    return Server(TasksHandlers(tasks=tasks, triggers=triggers, identities=Identities()), tasks, ledger, projects, clock)


async def test_a_version_comes_back_as_it_was_deployed(server: Server) -> None:
    """Spec and metadata are whole, the org is the caller's own."""
    await server.deploy(by="grace")
    details = await server.details()

    assert details.task_id == task_id()
    assert details.spec == spec()
    metadata = details.metadata
    assert (metadata.short_name, metadata.environment_name, metadata.short_description) == ("main", "env", "does it")
    assert micros(metadata.deployed_at) == server.clock.now()
    assert metadata.deployed_by.user.id.subject == "grace"


async def test_fields_that_this_server_does_not_know_survive(server: Server) -> None:
    """A newer client finds in a spec what it put there."""
    unknown = b"\xf2\x3e\x05newer"  # field 1006, a string
    newer = task_definition_pb2.TaskSpec.FromString(spec().SerializeToString() + unknown)
    await server.deploy(content=newer)
    assert unknown in (await server.details()).spec.SerializeToString()


async def test_a_version_that_is_there_stays_and_says_so(server: Server) -> None:
    """The SDK takes the error for success; where the content differs, its message says that the version is another one."""
    await server.deploy()
    with pytest.raises(AlreadyExists, match=r"task_id\.version.*version v1 already$"):
        await server.deploy()
    with pytest.raises(AlreadyExists, match=r"version v1 already, with another spec"):
        await server.deploy(content=spec(command="other"))
    assert (await server.details()).spec == spec()


async def test_of_two_who_deploy_at_once_one_is_told_that_it_is_there(server: Server) -> None:
    """The SDK deploys concurrently: the version is one of the two, whole."""
    one, other = spec(command="one"), spec(command="other")
    outcomes = await asyncio.gather(server.deploy(content=one), server.deploy(content=other), return_exceptions=True)

    assert [type(outcome) for outcome in outcomes if outcome is not None] == [AlreadyExists]
    assert (await server.details()).spec == (one if outcomes[0] is None else other)


async def test_one_spec_may_be_many_versions(server: Server) -> None:
    """Equal specs are stored once and found under every version."""
    await server.deploy(version="v1")
    await server.deploy(version="v2")
    await server.deploy(name="env.other")
    assert (await server.details(version="v2")).spec == (await server.details(name="env.other")).spec == spec()


async def test_a_wrong_trigger_refuses_the_task_too(server: Server) -> None:
    """Nothing is stored of a request that can't be fulfilled whole."""
    trigger = task_definition_pb2.TaskTrigger(name="nightly")
    trigger.automation_spec.type = common_pb2.TYPE_SCHEDULE
    request = task_service_pb2.DeployTaskRequest(task_id=task_id(), spec=spec(), triggers=[trigger])
    with pytest.raises(InvalidArgument, match="schedule"):
        await server.handlers.deploy_task(request, _ctx())
    with pytest.raises(NotFound):
        await server.details()


def _without(field: str) -> task_definition_pb2.TaskSpec:
    message = spec()
    target = message if field == "task_template" else message.task_template
    target.ClearField(field)
    return message


@pytest.mark.parametrize(
    ("identifier", "content", "named"),
    [
        (task_id(project=""), spec(), r"task_id\.project is empty"),
        (task_id(domain="a/b"), spec(), r"task_id\.domain"),
        (task_id(name=""), spec(), r"task_id\.name is empty"),
        (task_id(name="n" * 256), spec(), r"task_id\.name has 256"),
        (task_id(version=""), spec(), r"task_id\.version is empty"),
        (task_id(), task_definition_pb2.TaskSpec(), r"spec\.task_template is missing"),
        (task_id(), _without("task_template"), r"spec\.task_template is missing"),
        (task_id(), _without("interface"), r"spec\.task_template\.interface is missing"),
        (task_id(), _without("type"), r"spec\.task_template\.type is empty"),
    ],
)
async def test_a_wrong_field_is_named(
    server: Server, identifier: task_definition_pb2.TaskIdentifier, content: task_definition_pb2.TaskSpec, named: str
) -> None:
    """What could never run is refused when it is deployed, not when it is run."""
    with pytest.raises(InvalidArgument, match=named):
        await server.handlers.deploy_task(task_service_pb2.DeployTaskRequest(task_id=identifier, spec=content), _ctx())


async def test_a_task_needs_a_project_that_is_there_and_active(server: Server) -> None:
    """The project's own errors are told."""
    with pytest.raises(NotFound, match="'nowhere'"):
        await server.deploy(project="nowhere")
    with pytest.raises(NotFound, match="'staging'"):
        await server.deploy(domain="staging")


async def test_what_is_not_there_is_named(server: Server) -> None:
    """The SDK shows the message: it says which version of which task is missing."""
    await server.deploy()
    with pytest.raises(NotFound, match=r"p/development/env\.main of version v2"):
        await server.details(version="v2")
    with pytest.raises(NotFound, match=r"p/production/env\.main"):
        await server.details(domain="production")


async def test_other_rooms_get_the_spec_of_a_version(server: Server) -> None:
    """CreateRun and uploads name a task by its id, or a trigger of it."""
    await server.deploy()
    assert await server.tasks.of_task(TaskId("p", "development", "env.main", "v1")) == spec()
    with pytest.raises(NotFound, match="v9"):
        await server.tasks.of_task(TaskId("p", "development", "env.main", "v9"))
    with pytest.raises(NotFound, match="nightly"):
        await server.tasks.of_trigger(TaskId("p", "development", "env.main"), "nightly")


@pytest.fixture
async def many(server: Server) -> Server:
    """Three tasks of one project, the first in three versions, and two elsewhere."""
    await server.deploy("env.a", "v1", by="grace")
    await server.deploy("env.b", "v1", content=spec(entrypoint=False))
    await server.deploy("env.a", "v3")
    await server.deploy("other.c", "v1", by="grace")
    await server.deploy("env.a", "v2", by="ada")
    await server.deploy("env.a", "v1", domain="production")
    await server.deploy("env.z", "v1", project="q")
    return server


def _filter(field: str, *values: str, function: int = list_pb2.Filter.EQUAL) -> list_pb2.ListRequest:
    return list_pb2.ListRequest(filters=[list_pb2.Filter(function=function, field=field, values=values)])


async def test_a_list_shows_one_row_a_task_its_latest_version(many: Server) -> None:
    """Latest is what was deployed last, whatever the versions are called; the newest comes first."""
    assert await many.shown() == ["env.a v2", "other.c v1", "env.b v1"]


async def test_a_list_of_all_projects_keeps_tasks_of_one_name_apart(many: Server) -> None:
    """Without a project every project's tasks are shown; whatever the org is."""
    for scope in ({"project_id": None}, {"project_id": None, "org": "any"}):
        assert await many.shown(**scope) == ["env.z v1", "env.a v1", "env.a v2", "other.c v1", "env.b v1"]


@pytest.mark.parametrize(
    ("request_", "found"),
    [
        (_filter("name", "env.a"), ["env.a v2"]),
        (_filter("name", "env.", function=list_pb2.Filter.CONTAINS), ["env.a v2", "env.b v1"]),
        (_filter("version", "v1"), ["other.c v1", "env.b v1", "env.a v1"]),
        (_filter("version", "v3", "v1", function=list_pb2.Filter.VALUE_IN), ["other.c v1", "env.a v3", "env.b v1"]),
        (_filter("environment", "env"), ["env.a v2", "other.c v1", "env.b v1"]),
        (_filter("deployed_by", "ada"), ["env.a v2"]),
        (
            _filter("created_at", "2023-11-14T22:13:22Z", function=list_pb2.Filter.GREATER_THAN),
            ["env.a v2", "other.c v1"],
        ),
        (_filter("name", "nothing"), []),
        (
            list_pb2.ListRequest(sort_by=list_pb2.Sort(key="name", direction=list_pb2.Sort.ASCENDING)),
            ["env.a v2", "env.b v1", "other.c v1"],
        ),
    ],
)
async def test_a_list_is_filtered_and_sorted(many: Server, request_: list_pb2.ListRequest, found: list[str]) -> None:
    """Of a task the latest version that meets the filters is shown, so an old one is found by its version."""
    assert await many.shown(request=request_) == found


async def test_filters_with_a_field_of_their_own_hold_too(many: Server) -> None:
    """Who deployed a task, and whether it is an entry point, together with the other filters."""
    known = task_service_pb2.ListTasksRequest.KnownFilter
    assert await many.shown(known_filters=[known(deployed_by="grace")]) == ["other.c v1", "env.a v1"]
    assert await many.shown(known_filters=[known(is_entrypoint=True)]) == ["env.a v2", "other.c v1"]
    assert await many.shown(known_filters=[known(is_entrypoint=False)]) == ["env.b v1"]
    both = [known(is_entrypoint=True), known(deployed_by="grace")]
    assert await many.shown(known_filters=both, request=_filter("name", "env.a")) == ["env.a v1"]


async def test_a_list_counts_tasks_not_versions(many: Server) -> None:
    """How many there are in the scope, and how many of them meet the filters, on every page."""
    request = _filter("name", "env.", function=list_pb2.Filter.CONTAINS)
    request.limit = 1
    first = await many.list(request=request)
    request.token = first.token
    second = await many.list(request=request)
    for page in (first, second):
        assert (page.metadata.total, page.metadata.filtered_total, len(page.tasks)) == (3, 2, 1)
    assert second.token == ""
    plain = await many.list()
    assert (plain.metadata.total, plain.metadata.filtered_total) == (3, 3)


async def test_pages_show_every_task_once(many: Server) -> None:
    """A version that is deployed between two pages moves its task, which neither repeats nor hides another."""
    request = list_pb2.ListRequest(limit=1, sort_by=list_pb2.Sort(key="created_at", direction=list_pb2.Sort.ASCENDING))
    shown = []
    while True:
        page = await many.list(request=request)
        shown += [each.task_id.name for each in page.tasks]
        if not page.token:
            break
        request.token = page.token
        if len(shown) == 1:
            await many.deploy("env.d", "v1")
    assert shown == ["env.b", "other.c", "env.a", "env.d"]


async def test_a_token_belongs_to_its_list(many: Server) -> None:
    """One of another project's list is refused, not read as a place in this one."""
    token = (await many.list(request=list_pb2.ListRequest(limit=1))).token
    elsewhere = identifier_pb2.ProjectIdentifier(name="q", domain="development")
    with pytest.raises(InvalidArgument, match="token"):
        await many.list(project_id=elsewhere, request=list_pb2.ListRequest(limit=1, token=token))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"project_id": identifier_pb2.ProjectIdentifier(name="p")}, r"project_id\.domain"),
        ({"request": _filter("colour", "red")}, "'colour'"),
        ({"request": list_pb2.ListRequest(limit=1001)}, "limit"),
    ],
)
async def test_a_wrong_list_is_refused(server: Server, fields: dict[str, object], named: str) -> None:
    """The message names what was wrong with it."""
    with pytest.raises(InvalidArgument, match=named):
        await server.list(**fields)


async def test_versions_are_listed_newest_first(many: Server) -> None:
    """With when and by whom each was deployed; other tasks' versions, and other domains', are not among them."""
    found = (await many.versions("env.a")).versions
    assert [each.version for each in found] == ["v2", "v3", "v1"]
    assert [each.deployed_by.user.id.subject for each in found][0::2] == ["ada", "grace"]
    assert found[0].deployed_at.seconds - found[2].deployed_at.seconds == 4
    assert list((await many.versions("nothing")).versions) == []


async def test_versions_come_in_pages(many: Server) -> None:
    """Tokens lead to the end, and belong to one task's list."""
    first = await many.versions("env.a", limit=2)
    second = await many.versions("env.a", limit=2, token=first.token)
    assert [each.version for each in (*first.versions, *second.versions)] == ["v2", "v3", "v1"]
    assert second.token == ""
    with pytest.raises(InvalidArgument, match="token"):
        await many.versions("env.b", limit=2, token=first.token)


async def test_lists_show_the_latest_run(many: Server) -> None:
    """Of a task its newest run, of a version its own newest; runs as they are now, wherever they ran."""
    a = TaskId("p", "development", "env.a", "v1")
    await many.run("r1", a, phase=Phase.SUCCEEDED)
    await many.run("r2", a._replace(version="v2"), phase=Phase.FAILED)
    await many.run("r3", a)
    await many.run("r4", a._replace(domain="production"))

    latest = {each.task_id.name: each.task_summary for each in (await many.list()).tasks}
    run = latest["env.a"].latest_run
    assert run.run_id == identifier_pb2.RunIdentifier(org=ORG, project="q", domain="production", name="r3")
    assert (run.phase, run.root_task_name) == (Phase.QUEUED, "env.a")
    assert micros(run.run_time) == many.clock.now() - 1_000_000
    assert not latest["env.b"].HasField("latest_run")

    versions = {each.version: each for each in (await many.versions("env.a")).versions}
    assert versions["v1"].latest_run.run_id.name == "r3"
    assert (versions["v2"].latest_run.run_id.name, versions["v2"].latest_run.phase) == ("r2", Phase.FAILED)
    assert not versions["v3"].HasField("latest_run")


async def test_an_archived_project_takes_no_more_tasks(server: Server) -> None:
    """What was deployed before is still found."""
    await server.deploy()
    archived = project_service_pb2.Project(id="p", state=project_service_pb2.PROJECT_STATE_ARCHIVED)
    await server.projects.update(archived)
    with pytest.raises(FailedPrecondition, match="archived"):
        await server.deploy(version="v2")
    assert (await server.details()).spec == spec()
