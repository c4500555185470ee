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
from flyte_unified.db.tables import projects
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
    """One row of ``projects``. Domains are the settings', the same for all."""

    id: str
    name: str
    description: str = ""
    labels: Mapping[str, str]
    state: State = State.ACTIVE
    created_at: Micros
    updated_at: Micros


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
