"""Projects through their handlers, on a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from flyteidl2.common import list_pb2
from flyteidl2.project import project_service_pb2 as idl
from flyteidl2.task import run_pb2

from flyte_unified.core.context import CallContext
from flyte_unified.core.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from flyte_unified.db.api import Database
from flyte_unified.projects.api import Projects
from flyte_unified.projects.handlers import ProjectsHandlers
from tests.unit.manual_clock import ManualClock

DOMAINS = ("development", "production")
CTX = CallContext(procedure="/test")


@pytest.fixture
async def projects(database: Database, clock: ManualClock) -> AsyncIterator[Projects]:
    projects = Projects(database=database, clock=clock, domains=DOMAINS, seed=("first",))
    await projects.start()
    yield projects


@pytest.fixture
def handlers(projects: Projects) -> ProjectsHandlers:
    return ProjectsHandlers(projects=projects)


async def _create(handlers: ProjectsHandlers, project: str, **fields: object) -> None:
    await handlers.create_project(idl.CreateProjectRequest(project=idl.Project(id=project, **fields)), CTX)


async def _update(handlers: ProjectsHandlers, project: str, **fields: object) -> None:
    await handlers.update_project(idl.UpdateProjectRequest(project=idl.Project(id=project, **fields)), CTX)


async def _get(handlers: ProjectsHandlers, project: str) -> idl.Project:
    return (await handlers.get_project(idl.GetProjectRequest(id=project), CTX)).project


async def _ids(handlers: ProjectsHandlers, **request: object) -> list[str]:
    page = (await handlers.list_projects(idl.ListProjectsRequest(**request), CTX)).projects
    return [project.id for project in page.projects]


async def test_the_first_start_makes_the_seed_and_the_systems_own(handlers: ProjectsHandlers) -> None:
    """The seed is active; the system's project is marked as made by the system, so that users' lists may hide it."""
    assert (await _get(handlers, "first")).state == idl.PROJECT_STATE_ACTIVE
    assert (await _get(handlers, "system")).state == idl.PROJECT_STATE_SYSTEM_GENERATED


async def test_a_later_start_leaves_projects_as_they_are(
    handlers: ProjectsHandlers, database: Database, clock: ManualClock
) -> None:
    """What a user made of a seeded project outlives the next start, and a wider seed is added."""
    await _update(handlers, "first", name="Mine", state=idl.PROJECT_STATE_ARCHIVED)
    again = Projects(database=database, clock=clock, domains=DOMAINS, seed=("first", "second"))
    await again.start()

    assert (await _get(handlers, "first")).name == "Mine"
    assert (await _get(handlers, "second")).state == idl.PROJECT_STATE_ACTIVE
    with pytest.raises(FailedPrecondition):
        await again.check("first", "development")


async def test_a_project_comes_back_as_it_was_made(handlers: ProjectsHandlers) -> None:
    """All that a project says is kept; its domains are the settings', whatever the request names; the org is echoed."""
    labels = run_pb2.Labels(values={"team": "blue", "ünï": "✓"})
    await _create(handlers, "p-1", name="One", description="of many", labels=labels, domains=[idl.Domain(id="mine")], org="x")
    found = (await handlers.get_project(idl.GetProjectRequest(id="p-1", org="acme"), CTX)).project

    assert (found.id, found.name, found.description, found.org) == ("p-1", "One", "of many", "acme")
    assert found.labels == labels
    assert [(domain.id, domain.name) for domain in found.domains] == [(name, name) for name in DOMAINS]


async def test_a_name_is_shown_also_where_none_was_given(handlers: ProjectsHandlers) -> None:
    """Lists show names, so a project without one is called by its id."""
    await _create(handlers, "plain")
    assert (await _get(handlers, "plain")).name == "plain"


async def test_an_update_replaces_and_can_be_taken_back(handlers: ProjectsHandlers) -> None:
    """The SDK sends the whole project with its changes: what it leaves out is gone, and archiving is no dead end."""
    await _create(handlers, "p", name="One", description="text", labels=run_pb2.Labels(values={"a": "b"}))
    await _update(handlers, "p", name="Two", state=idl.PROJECT_STATE_ARCHIVED)
    found = await _get(handlers, "p")
    assert (found.name, found.description, dict(found.labels.values)) == ("Two", "", {})
    assert found.state == idl.PROJECT_STATE_ARCHIVED

    await _update(handlers, "p", name="Two", state=idl.PROJECT_STATE_ACTIVE)
    assert (await _get(handlers, "p")).state == idl.PROJECT_STATE_ACTIVE


async def test_a_taken_id_is_refused_and_its_project_untouched(handlers: ProjectsHandlers) -> None:
    """A second project of one id is an error, whatever it says."""
    await _create(handlers, "p", name="One")
    with pytest.raises(AlreadyExists, match=r"project\.id.*'p'"):
        await _create(handlers, "p", name="Two")
    assert (await _get(handlers, "p")).name == "One"


async def test_what_is_not_there_is_not_found(handlers: ProjectsHandlers) -> None:
    """Get and update name the project that is missing."""
    with pytest.raises(NotFound, match="'nowhere'"):
        await _get(handlers, "nowhere")
    with pytest.raises(NotFound, match="'nowhere'"):
        await _update(handlers, "nowhere")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"id": ""}, r"project\.id is empty"),
        ({"id": "a/b"}, r"project\.id"),
        ({"id": "../etc"}, r"project\.id"),
        ({"id": "p" * 64}, r"project\.id has 64"),
        ({"id": "p", "state": 9}, r"project\.state.*9"),
    ],
)
async def test_a_wrong_field_is_named(handlers: ProjectsHandlers, fields: dict[str, object], named: str) -> None:
    """An id is part of paths and keys, so it holds no separators; a state is one of the IDL's."""
    with pytest.raises(InvalidArgument, match=named):
        await handlers.create_project(idl.CreateProjectRequest(project=idl.Project(**fields)), CTX)


@pytest.fixture
async def many(handlers: ProjectsHandlers, clock: ManualClock) -> ProjectsHandlers:
    """``alpha`` to ``delta`` in that order after the seed, ``beta`` archived."""
    for project in ("alpha", "beta", "gamma", "delta"):
        clock.pass_by(1)
        await _create(handlers, project, name=project.title(), description="50% + more")
    await _update(handlers, "beta", name="Beta", state=idl.PROJECT_STATE_ARCHIVED)
    return handlers


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ("", ["first", "system", "alpha", "gamma", "delta"]),
        ("eq(state, 0)", ["first", "alpha", "gamma", "delta"]),
        ("eq(state,1)", ["beta"]),
        ("ne(state, 0)", ["system", "beta"]),
        ("eq(state, archived)", ["beta"]),
        ("contains(name, lpha)+eq(state, 0)", ["alpha"]),
        ("contains(name, a) + ne(id, gamma) + eq(state, 0)", ["alpha", "delta"]),
        ("value_in(identifier, alpha;beta; gamma )", ["alpha", "beta", "gamma"]),
        ("value_in(id, alpha)", ["alpha"]),
        ("contains(description, 50% + more)+eq(id, delta)", ["delta"]),
        ("gte(created_at, 2023-11-14T22:13:23Z)", ["gamma", "delta"]),
        ("eq(id, nothing)", []),
    ],
)
async def test_a_list_shows_what_its_filters_ask(many: ProjectsHandlers, filters: str, found: list[str]) -> None:
    """Filters hold together; without any, archived projects are hidden; the order is that of creation."""
    assert await _ids(many, filters=filters) == found


@pytest.mark.parametrize(
    ("filters", "named"),
    [
        ("eq(state)", "eq"),
        ("eq state 0", "eq state 0"),
        ("like(name, a)", "'like'"),
        ("eq(colour, red)", "'colour'"),
        ("eq(state, blue)", "'blue'"),
        ("eq(state, 0)+", "filters"),
    ],
)
async def test_a_wrong_filter_is_named(many: ProjectsHandlers, filters: str, named: str) -> None:
    """What cannot be read as a filter is an error that quotes it, not an empty list."""
    with pytest.raises(InvalidArgument, match=named):
        await _ids(many, filters=filters)


async def test_pages_show_every_project_once(many: ProjectsHandlers) -> None:
    """Tokens lead through the list in the order asked for, also when projects come between two pages."""
    sort = list_pb2.Sort(key="id", direction=list_pb2.Sort.DESCENDING)
    request = idl.ListProjectsRequest(limit=2, sort_by=sort)
    shown = []
    while True:
        page = (await many.list_projects(request, CTX)).projects
        shown.append([project.id for project in page.projects])
        if not page.token:
            break
        request.token = page.token
        await _create(many, f"zz{len(shown)}")

    assert shown == [["system", "gamma"], ["first", "delta"], ["alpha"]]


async def test_a_list_without_a_limit_is_whole(many: ProjectsHandlers) -> None:
    """Consoles ask for all projects by asking for none in particular."""
    for n in range(60):
        await _create(many, f"more{n}")
    assert len(await _ids(many)) == 65


async def test_work_may_start_where_project_and_domain_are_known(projects: Projects) -> None:
    """The check passes in every domain of the settings, and names what is missing."""
    await projects.check("first", "development")
    await projects.check("system", "production")
    with pytest.raises(NotFound, match="project 'nowhere'"):
        await projects.check("nowhere", "development")
    with pytest.raises(NotFound, match=r"'staging'.*development, production"):
        await projects.check("first", "staging")


async def test_the_check_follows_changes_at_once(projects: Projects, handlers: ProjectsHandlers) -> None:
    """What the check remembers never lags behind an answered change."""
    with pytest.raises(NotFound):
        await projects.check("p", "development")
    await _create(handlers, "p")
    await projects.check("p", "development")
    await _update(handlers, "p", state=idl.PROJECT_STATE_ARCHIVED)
    with pytest.raises(FailedPrecondition, match="'p' is archived"):
        await projects.check("p", "development")
    await _update(handlers, "p", state=idl.PROJECT_STATE_ACTIVE)
    await projects.check("p", "development")


async def test_a_check_under_way_leaves_no_old_state_behind(
    projects: Projects, handlers: ProjectsHandlers, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read before a change, and comes back after it, is not remembered."""
    await _create(handlers, "p")
    await projects.domains.all()
    read = database.read

    async def late(work: Any) -> Any:
        found = await read(work)
        monkeypatch.setattr(database, "read", read)
        await _update(handlers, "p", state=idl.PROJECT_STATE_ARCHIVED)
        return found

    monkeypatch.setattr(database, "read", late)
    await projects.check("p", "development")
    with pytest.raises(FailedPrecondition, match="archived"):
        await projects.check("p", "development")


async def test_the_check_asks_the_database_once(projects: Projects, database: Database) -> None:
    """It stands before every run, so a project that it knows costs nothing."""
    await projects.check("first", "development")
    await database.stop()
    await projects.check("first", "development")
