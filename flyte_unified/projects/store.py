"""The SQL of projects, as pieces of work (see ``db.api``)."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Row, bindparam, select, update

from flyte_unified.core.clock import Micros
from flyte_unified.core.filters import TIME, enumeration
from flyte_unified.core.paging import Listing
from flyte_unified.db import lists
from flyte_unified.db.api import Work
from flyte_unified.db.tables import apps, artifacts, domains, projects, runs, scope_settings, tasks, triggers
from flyte_unified.db.upsert import insert_new


class State(enum.IntEnum):
    """Numbers as in flyteidl2.project.ProjectState."""

    ACTIVE = 0
    ARCHIVED = 1
    SYSTEM_GENERATED = 2
    SYSTEM_ARCHIVED = 3

    @property
    def archived(self) -> bool:
        return self in ARCHIVED


ARCHIVED = (State.ARCHIVED, State.SYSTEM_ARCHIVED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """One row of ``projects``. Domains are the same for all."""

    id: str
    name: str
    description: str = ""
    labels: Mapping[str, str]
    state: State = State.ACTIVE
    created_at: Micros
    updated_at: Micros


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """One row of ``domains``. One that was deleted is kept, as the settings may still name it."""

    id: str
    name: str
    created_at: Micros
    updated_at: Micros
    deleted_at: Micros | None = None


FIELDS = {
    "id": lists.Field(projects.c.id),
    "identifier": lists.Field(projects.c.id),
    "name": lists.Field(projects.c.name),
    "description": lists.Field(projects.c.description),
    "state": lists.Field(projects.c.state, enumeration(State)),
    "created_at": lists.Field(projects.c.created_at, TIME),
    "updated_at": lists.Field(projects.c.updated_at, TIME),
}
"""What a list of projects can be filtered and sorted by."""
KIND = lists.kinds(FIELDS.get)

_ADD = insert_new(projects).returning(projects.c.id)
_CHANGED = ("name", "description", "labels", "state", "updated_at")
_UPDATE = (
    update(projects)
    .where(projects.c.id == bindparam("_id"))
    .values({name: bindparam(name) for name in _CHANGED})
    .returning(projects.c.id)
)
_GET = select(projects).where(projects.c.id == bindparam("_id"))


def add(project: Project) -> Work[bool]:
    """False when there is one of that id."""
    return (yield _ADD, asdict(project)).first() is not None


def change(project: Project) -> Work[bool]:
    """Replaces everything but the id and the time of creation. False when there is no such project."""
    values = {name: getattr(project, name) for name in _CHANGED}
    return (yield _UPDATE, {"_id": project.id, **values}).first() is not None


def get(project: str) -> Work[Project | None]:
    row = (yield _GET, {"_id": project}).one_or_none()
    return _project(row) if row is not None else None


def page(listing: Listing) -> Work[tuple[list[Project], str]]:
    """One page, and the token of the next."""
    rows = (yield lists.apply(select(projects), listing, FIELDS.get)).all()
    found, token = lists.cut(rows, listing)
    return [_project(row) for row in found], token


def _project(row: Row[Any]) -> Project:
    values = dict(zip(projects.c.keys(), row, strict=False))
    return Project(**values | {"state": State(row.state)})


_ADD_DOMAIN = insert_new(domains).returning(domains.c.id)
_DOMAINS = select(domains).where(domains.c.deleted_at.is_(None)).order_by(domains.c.created_at, domains.c.id)
_IS = domains.c.id == bindparam("_id")
_IS_THERE = _IS & domains.c.deleted_at.is_(None)
_REVIVE = (
    update(domains)
    .where(_IS, domains.c.deleted_at.is_not(None))
    .values({name: bindparam(name) for name in ("name", "created_at", "updated_at")} | {"deleted_at": None})
    .returning(domains.c.id)
)
_RENAME = (
    update(domains).where(_IS_THERE).values({name: bindparam(name) for name in ("name", "updated_at")}).returning(domains.c.id)
)
_REMOVE = update(domains).where(_IS_THERE).values(deleted_at=bindparam("_at"))
_USERS = {
    "runs": select(runs.c.project).where(runs.c.domain == bindparam("_id")),
    "tasks": select(tasks.c.project).where(tasks.c.domain == bindparam("_id"), tasks.c.project != bindparam("_system")),
    "triggers": select(triggers.c.project).where(triggers.c.domain == bindparam("_id"), triggers.c.deleted_at.is_(None)),
    "apps": select(apps.c.project).where(apps.c.domain == bindparam("_id")),
    "artifacts": select(artifacts.c.project).where(artifacts.c.domain == bindparam("_id")),
    "settings": select(scope_settings.c.project).where(
        scope_settings.c.domain == bindparam("_id"), scope_settings.c.settings != b""
    ),
}
"""What may be in a domain."""


def add_domain(domain: Domain) -> Work[bool]:
    """False when there is, or was, one of that id."""
    return (yield _ADD_DOMAIN, asdict(domain)).first() is not None


def revive_domain(domain: Domain) -> Work[bool]:
    """Makes one that is not there, be it for the second time; False when it is there."""
    if (yield from add_domain(domain)):
        return True
    values = {"name": domain.name, "created_at": domain.created_at, "updated_at": domain.updated_at}
    return (yield _REVIVE, {"_id": domain.id, **values}).first() is not None


def rename_domain(domain: str, name: str, *, at: Micros) -> Work[bool]:
    """False when there is no such domain."""
    return (yield _RENAME, {"_id": domain, "name": name, "updated_at": at}).first() is not None


def all_domains() -> Work[tuple[Domain, ...]]:
    """In the order in which they were made."""
    return tuple(Domain(**row._mapping) for row in (yield _DOMAINS).all())


def remove_domain(domain: str, *, system: str, at: Micros) -> Work[dict[str, str]]:
    """Nothing, where the domain is gone with that; else what is in it, each with a project that has some.

    What the system's own project has everywhere does not count.
    """
    users: dict[str, str] = {}
    for what, statement in _USERS.items():
        values = {"_id": domain, "_system": system} if what == "tasks" else {"_id": domain}
        if (row := (yield statement.limit(1), values).first()) is not None:
            users[what] = row.project
    if not users:
        yield _REMOVE, {"_id": domain, "_at": at}
    return users
