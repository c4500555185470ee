"""Domains through their handlers, on a real database, and what rooms that ask for one see of them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from flyteidl2.org import domain_service_pb2 as idl
from flyteidl2.project import project_service_pb2
from sqlalchemy import insert

from flyte_unified.core.context import CallContext
from flyte_unified.core.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from flyte_unified.db.api import Database, Notice, Work
from flyte_unified.db.tables import scope_settings
from flyte_unified.ledger.api import Ledger
from flyte_unified.projects.api import Projects
from flyte_unified.projects.domain_handlers import DomainsHandlers
from flyte_unified.projects.handlers import ProjectsHandlers
from tests.unit.ledger.births import run
from tests.unit.manual_clock import ManualClock

SEED = ("development", "staging")
CTX = CallContext(procedure="/test")


@pytest.fixture
async def projects(database: Database, clock: ManualClock) -> AsyncIterator[Projects]:
    projects = Projects(database=database, clock=clock, domains=SEED, seed=("p",))
    await projects.start()
    clock.pass_by(1)
    yield projects


@pytest.fixture
def elsewhere() -> list[str]:
    """What is in any domain, and not in the database."""
    return []


@pytest.fixture
def handlers(projects: Projects, elsewhere: list[str]) -> DomainsHandlers:
    async def users(domain: str) -> list[str]:
        return elsewhere

    return DomainsHandlers(domains=projects.domains, users=users)


async def test_one_that_another_server_has_just_made(projects: Projects, database: Database, clock: ManualClock) -> None:
    """Is there for all servers at once: word of it may come later than its first run."""
    other = Projects(database=database, clock=clock, domains=SEED)
    await projects.check("p", "staging")
    await other.domains.create("qa", "")
    await projects.check("p", "qa")
    assert (await projects.domains.get("qa")).id == "qa"


async def _ids(handlers: DomainsHandlers) -> list[str]:
    return [domain.id for domain in (await handlers.list_domains(idl.ListDomainsRequest(org="acme"), CTX)).domains]


async def _create(handlers: DomainsHandlers, domain: str, name: str = "") -> None:
    await handlers.create_domain(idl.CreateDomainRequest(org="acme", id=domain, friendly_name=name), CTX)


async def _delete(handlers: DomainsHandlers, domain: str) -> None:
    await handlers.delete_domain(idl.DeleteDomainRequest(org="acme", id=domain), CTX)


async def test_a_domain_from_its_beginning_to_its_end(handlers: DomainsHandlers, projects: Projects) -> None:
    """Work may start in it while it is there; projects list it by its friendly name."""
    assert await _ids(handlers) == ["development", "staging"]
    with pytest.raises(NotFound, match="there is no domain 'qa'; known are development, staging"):
        await projects.check("p", "qa")
    await _create(handlers, "qa", "Quality")
    await projects.check("p", "qa")
    listed = project_service_pb2.ListProjectsRequest()
    (page,) = (await ProjectsHandlers(projects=projects).list_projects(listed, CTX)).projects.projects[:1]
    assert [(domain.id, domain.name) for domain in page.domains][-1] == ("qa", "Quality")

    renamed = idl.UpdateDomainRequest(org="acme", id="qa", friendly_name="Trials")
    assert (await handlers.update_domain(renamed, CTX)).domain.friendly_name == "Trials"
    found = (await handlers.get_domain(idl.GetDomainRequest(org="acme", id="qa"), CTX)).domain
    assert (found.id, found.org, found.friendly_name) == ("qa", "acme", "Trials")
    assert found.created_at.seconds > 0
    unnamed = idl.UpdateDomainRequest(id="qa")
    assert (await handlers.update_domain(unnamed, CTX)).domain.friendly_name == "Trials"

    await _delete(handlers, "qa")
    assert await _ids(handlers) == ["development", "staging"]
    with pytest.raises(NotFound, match="there is no domain 'qa'"):
        await projects.check("p", "qa")


async def test_what_is_in_use_stays(
    handlers: DomainsHandlers, projects: Projects, database: Database, clock: ManualClock, elsewhere: list[str]
) -> None:
    """The refusal names all that is in the domain, in the database and elsewhere; nothing of it is lost."""
    await Ledger(database=database, clock=clock).create_run(run())
    settings = {"project": "", "domain": "development", "settings": b"some", "version": 1, "created_at": 1, "updated_at": 1}

    def work() -> Work[None]:
        yield insert(scope_settings), settings

    await database.write(work)
    with pytest.raises(FailedPrecondition, match="'development' is in use: there are runs of project 'p', settings in it"):
        await _delete(handlers, "development")
    elsewhere.append("secrets")
    with pytest.raises(FailedPrecondition, match="'staging' is in use: there are secrets in it"):
        await _delete(handlers, "staging")
    assert await _ids(handlers) == ["development", "staging"]
    await projects.check("p", "development")


async def test_the_last_domain_stays(handlers: DomainsHandlers) -> None:
    """As every run is in one."""
    await _delete(handlers, "development")
    with pytest.raises(FailedPrecondition, match="'staging' is the last one"):
        await _delete(handlers, "staging")


async def test_a_deleted_domain_is_not_brought_back_by_a_start(
    handlers: DomainsHandlers, database: Database, clock: ManualClock
) -> None:
    """Though the settings name it; what they name for the first time is made, and so is what is created again."""
    await _delete(handlers, "staging")
    again = Projects(database=database, clock=clock, domains=(*SEED, "production"))
    await again.start()
    assert [domain.id for domain in await again.domains.all()] == ["development", "production"]
    clock.pass_by(1)
    await again.domains.create("staging", "")
    assert [domain.name for domain in await again.domains.all()] == ["development", "production", "staging"]


async def test_refusals(handlers: DomainsHandlers) -> None:
    """Each names the field."""
    with pytest.raises(AlreadyExists, match="id: there is a domain 'staging' already"):
        await _create(handlers, "staging")
    for name in ("", "No", "-a", "a-", "a.b", "x" * 64):
        with pytest.raises(InvalidArgument, match="id"):
            await _create(handlers, name)
    with pytest.raises(InvalidArgument, match="friendly_name has 256 characters"):
        await _create(handlers, "long", "x" * 256)
    for call in (
        handlers.get_domain(idl.GetDomainRequest(id="qa"), CTX),
        handlers.update_domain(idl.UpdateDomainRequest(id="qa", friendly_name="x"), CTX),
        handlers.delete_domain(idl.DeleteDomainRequest(id="qa"), CTX),
    ):
        with pytest.raises(NotFound, match="there is no domain 'qa'"):
            await call


async def test_domains_are_read_once(projects: Projects, database: Database) -> None:
    """They are asked for before every run; a word of another replica makes them be read again."""
    await projects.domains.all()
    projects.noticed(Notice("project", "p"))
    known = await projects.domains.all()
    assert await projects.domains.all() is known
    projects.noticed(Notice("domain", "qa"))
    assert await projects.domains.all() is not known
