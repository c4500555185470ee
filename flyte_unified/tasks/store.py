"""The SQL of deployed tasks, as pieces of work (see ``db.api``). A version never changes once it is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, bindparam, func, select

from flyte_unified.core.clock import Micros
from flyte_unified.core.filters import INTEGER, TIME
from flyte_unified.core.ids import RunKey
from flyte_unified.core.paging import Listing
from flyte_unified.core.phases import Phase
from flyte_unified.db import lists
from flyte_unified.db.api import Work
from flyte_unified.db.tables import actions, task_specs, tasks
from flyte_unified.db.upsert import insert_new
from flyte_unified.ledger.api import EncodedSpec, TaskId


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One row of ``tasks``: a version of a task, without its spec."""

    id: TaskId
    spec_digest: str
    short_name: str
    environment_name: str
    short_description: str
    entrypoint: bool
    deployed_by: str
    created_at: Micros


@dataclass(frozen=True, slots=True, kw_only=True)
class LatestRun:
    """The newest run whose root action is a task."""

    key: RunKey
    created_at: Micros
    phase: Phase
    task_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of tasks, or of one task's versions, each with its newest run."""

    tasks: Sequence[tuple[Task, LatestRun | None]]
    token: str
    total: int = 0
    """How many there are in the scope."""
    matching: int = 0
    """How many of them meet the filters."""


def fields(columns: Any) -> dict[str, lists.Field]:
    """What a list of tasks can be filtered and sorted by."""
    return {
        "project": lists.Field(columns.project),
        "domain": lists.Field(columns.domain),
        "name": lists.Field(columns.name),
        "version": lists.Field(columns.version),
        "short_name": lists.Field(columns.short_name),
        "function_name": lists.Field(columns.short_name),
        "environment": lists.Field(columns.environment_name),
        "environment_name": lists.Field(columns.environment_name),
        "short_description": lists.Field(columns.short_description),
        "entrypoint": lists.Field(columns.entrypoint, INTEGER),
        "deployed_by": lists.Field(columns.deployed_by),
        "created_at": lists.Field(columns.created_at, TIME),
        "updated_at": lists.Field(columns.updated_at, TIME),
    }


FIELDS = fields(tasks.c)
KIND = lists.kinds(FIELDS.get)

_PLACE = (
    tasks.c.project == bindparam("_project"),
    tasks.c.domain == bindparam("_domain"),
    tasks.c.name == bindparam("_name"),
)
_GET = select(tasks).where(*_PLACE, tasks.c.version == bindparam("_version"))
_VERSIONS = select(tasks).where(*_PLACE)
_ADD = insert_new(tasks).returning(tasks.c.version)
_ADD_SPEC = insert_new(task_specs)
_LATEST = (
    select(actions.c.project, actions.c.domain, actions.c.run, actions.c.created_at, actions.c.phase, actions.c.task_name)
    .where(
        actions.c.parent.is_(None),
        actions.c.task_project == bindparam("_project"),
        actions.c.task_domain == bindparam("_domain"),
        actions.c.task_name == bindparam("_name"),
    )
    .order_by(actions.c.created_at.desc())
    .limit(1)
)
_LATEST_OF_VERSION = _LATEST.where(actions.c.task_version == bindparam("_version"))


def add(task: Task, spec: EncodedSpec) -> Work[Task | None]:
    """Stores a version with its spec; what is there already where its name is taken."""
    known = yield from get(task.id)
    if known is not None:
        return known
    yield _ADD_SPEC, {"digest": spec.digest, "spec": spec.raw}
    if (yield _ADD, _columns(task)).first() is None:  # another replica was faster
        return (yield from get(task.id))
    return None


def get(task: TaskId) -> Work[Task | None]:
    row = (yield _GET, _place(task)).one_or_none()
    return _task(row) if row is not None else None


def page(scope: Sequence[ColumnElement[bool]], listing: Listing) -> Work[Page]:
    """One task a name: of the versions that meet the filters, the one deployed last."""
    matching = lists.where(listing.conditions, FIELDS.get)
    newest_first = func.row_number().over(
        partition_by=(tasks.c.project, tasks.c.domain, tasks.c.name),
        order_by=(tasks.c.created_at.desc(), tasks.c.version.desc()),
    )
    ranked = select(tasks, newest_first.label("rank")).where(*scope, *matching).subquery()
    statement = select(*(ranked.c[column.name] for column in tasks.c)).where(ranked.c.rank == 1)
    rows = (yield lists.apply(statement, replace(listing, conditions=()), fields(ranked.c).get)).all()
    found, token = lists.cut(rows, listing)
    total = int((yield _names(*scope)).scalar_one())
    count = int((yield _names(*scope, *matching)).scalar_one()) if matching else total
    listed = yield from _with_runs(_LATEST, [_task(row) for row in found])
    return Page(tasks=listed, token=token, total=total, matching=count)


def versions(task: TaskId, listing: Listing) -> Work[Page]:
    """The versions of one task; ``task.version`` is not looked at."""
    rows = (yield lists.apply(_VERSIONS, listing, FIELDS.get), _place(task)).all()
    found, token = lists.cut(rows, listing)
    listed = yield from _with_runs(_LATEST_OF_VERSION, [_task(row) for row in found])
    return Page(tasks=listed, token=token)


def _with_runs(latest: Select[Any], found: Sequence[Task]) -> Work[list[tuple[Task, LatestRun | None]]]:
    listed: list[tuple[Task, LatestRun | None]] = []
    for task in found:
        row = (yield latest, _place(task.id)).first()
        listed.append((task, _run(row) if row is not None else None))
    return listed


def _names(*where: ColumnElement[bool]) -> Select[Any]:
    """How many names there are."""
    names = select(tasks.c.name).where(*where).group_by(tasks.c.project, tasks.c.domain, tasks.c.name)
    return select(func.count()).select_from(names.subquery())


def in_project(project: str, domain: str) -> Sequence[ColumnElement[bool]]:
    return tasks.c.project == project, tasks.c.domain == domain


def _place(task: TaskId) -> dict[str, Any]:
    return {"_project": task.project, "_domain": task.domain, "_name": task.name, "_version": task.version}


_PLAIN = ("spec_digest", "short_name", "environment_name", "short_description", "deployed_by", "created_at")


def _columns(task: Task) -> dict[str, Any]:
    values = {name: getattr(task, name) for name in _PLAIN}
    return {**task.id._asdict(), **values, "entrypoint": int(task.entrypoint), "updated_at": task.created_at}


def _task(row: Row[Any]) -> Task:
    values = {name: getattr(row, name) for name in _PLAIN}
    return Task(id=TaskId(row.project, row.domain, row.name, row.version), entrypoint=bool(row.entrypoint), **values)


def _run(row: Row[Any]) -> LatestRun:
    return LatestRun(
        key=RunKey(row.project, row.domain, row.run),
        created_at=row.created_at,
        phase=Phase(row.phase),
        task_name=row.task_name,
    )
