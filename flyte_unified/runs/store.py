"""The runs room's SQL: queries only, as pieces of work (see ``db.api``)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import ColumnElement, FromClause, LargeBinary, Select, Table, and_, exists, literal, null, select

from flyte_unified.core.clock import Micros
from flyte_unified.core.filters import INTEGER, LONG, TIME, Condition, enumeration
from flyte_unified.core.ids import ROOT_ACTION, RunKey
from flyte_unified.core.paging import Listing
from flyte_unified.core.phases import Phase
from flyte_unified.db import lists
from flyte_unified.db.api import Work
from flyte_unified.db.lists import Field
from flyte_unified.db.tables import actions, run_labels, runs
from flyte_unified.ledger.api import Action, ActionType, Run, action_from, run_from
from flyte_unified.runs import ways
from flyte_unified.runs.scopes import RunScope
from flyte_unified.runs.ways import Way

_LEFT_OUT: dict[str, ColumnElement[Any]] = {"error": null(), "value": null(), "record": literal(b"", LargeBinary)}
_LIGHT = [_LEFT_OUT.get(column.name, column) for column in actions.columns]
"""An action's columns without what only its details show."""
_WITH_ERROR = [column if column.name == "error" else _LEFT_OUT.get(column.name, column) for column in actions.columns]
_SIZE = len(_LIGHT)

_WALKED = {table.name: table for table in (actions, runs, run_labels)}

_phase, _action_type = enumeration(Phase), enumeration(ActionType)
_FIELDS = {
    "project": Field(actions.c.project),
    "domain": Field(actions.c.domain),
    "run_name": Field(actions.c.run),
    "phase": Field(actions.c.phase, _phase),
    "action_type": Field(actions.c.action_type, _action_type),
    "group": Field(actions.c.group_name),
    "task_project": Field(actions.c.task_project),
    "task_domain": Field(actions.c.task_domain),
    "task_name": Field(actions.c.task_name),
    "task_version": Field(actions.c.task_version),
    "task_type": Field(actions.c.task_type),
    "function_name": Field(actions.c.task_name),
    "short_name": Field(actions.c.short_name),
    "environment_name": Field(actions.c.environment_name),
    "queue": Field(actions.c.queue),
    "attempts": Field(actions.c.attempt, INTEGER),
    "cache_status": Field(actions.c.cache_status, INTEGER),
    "created_at": Field(actions.c.created_at, TIME),
    "updated_at": Field(actions.c.updated_at, TIME),
    "started_at": Field(actions.c.started_at, TIME, nullable=True),
    "ended_at": Field(actions.c.ended_at, TIME, nullable=True),
    "duration_ms": Field((actions.c.ended_at - actions.c.created_at) // 1000, LONG, nullable=True),
}
_ACTION_FIELDS = _FIELDS | {
    "name": Field(actions.c.name),
    "parent": Field(actions.c.parent, nullable=True),
    "parent_name": Field(actions.c.parent, nullable=True),
    "parent_action_name": Field(actions.c.parent, nullable=True),
}
_RUN_FIELDS = _FIELDS | {
    "name": Field(actions.c.run),
    "created_by": Field(runs.c.created_by),
    "created_by_subject": Field(runs.c.created_by),
    "run_source": Field(runs.c.source, INTEGER),
    "trigger_task_name": Field(runs.c.trigger_task, nullable=True),
    "trigger_name": Field(runs.c.trigger_name, nullable=True),
    "trigger_revision": Field(runs.c.trigger_revision, LONG, nullable=True),
    "trigger_type": Field(runs.c.trigger_type, INTEGER, nullable=True),
}


def action_field(name: str) -> Field | None:
    """What lists of a run's actions are filtered and sorted by."""
    return _ACTION_FIELDS.get(name)


def run_field(name: str) -> Field | None:
    """What lists of runs are filtered and sorted by; ``labels.<key>`` is a label, absent where a run has none."""
    if name.startswith(ways.LABELS) and not set(name) & {'"', "\\", "\0"}:
        return Field(runs.c.labels[name.removeprefix(ways.LABELS)].as_string(), nullable=True)
    return _RUN_FIELDS.get(name)


def made_by(project: str, domain: str, request_id: str) -> Work[RunKey | None]:
    """The run that the unnamed CreateRun with this request id made."""
    statement = select(runs.c.run).where(runs.c.project == project, runs.c.domain == domain, runs.c.request_id == request_id)
    row = (yield statement).one_or_none()
    return RunKey(project, domain, row.run) if row is not None else None


def list_runs(scope: RunScope, page: Listing, *, paused: bool) -> Work[tuple[list[tuple[Run, Action]], str]]:
    """A page of runs with their root actions, and the next page's token. ``paused``: with an action that waits."""
    way = ways.choose(scope, page.conditions, paused=paused)
    statement = _runs(scope, way=way)
    if paused:
        waiting = actions.alias()
        statement = statement.where(exists().where(_same_run(waiting, actions), waiting.c.phase == int(Phase.PAUSED)))
    places = _places(_WALKED[way.table])
    rows, token = lists.cut((yield lists.apply(statement, page, lambda name: places.get(name) or run_field(name))).all(), page)
    return [_run_and_root(row) for row in rows], token


def newest_runs(scope: RunScope, limit: int) -> Work[list[tuple[Run, Action]]]:
    newest = (actions.c.created_at.desc(), actions.c.project.desc(), actions.c.domain.desc(), actions.c.run.desc())
    rows = (yield _runs(scope).order_by(*newest).limit(limit)).all()
    return [_run_and_root(row) for row in rows]


def list_actions(run: RunKey, page: Listing) -> Work[tuple[list[Action], str]]:
    """A page of a run's actions, and the next page's token."""
    statement = select(*_LIGHT).where(*_of_run(run))
    rows, token = lists.cut((yield lists.apply(statement, page, action_field)).all(), page)
    return [action_from(row) for row in rows], token


def actions_after(run: RunKey, name: str, limit: int) -> Work[list[Action]]:
    """A run's actions in the order of their names, from past ``name`` on."""
    statement = select(*_LIGHT).where(*_of_run(run), actions.c.name > name).order_by(actions.c.name).limit(limit)
    return [action_from(row) for row in (yield statement).all()]


def roots(
    scope: RunScope,
    conditions: Sequence[Condition],
    *,
    since: Micros,
    until: Micros | None,
    tasks: Collection[str] | None,
    limit: int,
) -> Work[list[tuple[Run, Action]]]:
    """Root actions with their errors, newest first, begun between two times (inclusive); ``tasks``: of these names only."""
    statement = _runs(scope, _WITH_ERROR).where(actions.c.created_at >= since, *lists.where(conditions, run_field))
    if until is not None:
        statement = statement.where(actions.c.created_at <= until)
    if tasks is not None:
        statement = statement.where(actions.c.task_name.in_(tasks))
    newest = (actions.c.created_at.desc(), actions.c.run.desc())
    return [_run_and_root(row) for row in (yield statement.order_by(*newest).limit(limit)).all()]


def _runs(scope: RunScope, columns: Sequence[ColumnElement[Any]] = _LIGHT, way: Way = ways.ROOTS) -> Select[Any]:
    first = _WALKED[way.table]
    asked = (
        (first.c.project, scope.project),
        (first.c.domain, scope.domain),
        (actions.c.task_project, scope.task.project),
        (actions.c.task_domain, scope.task.domain),
        (actions.c.task_name, scope.task.name),
        (actions.c.task_version, scope.task.version),
        (runs.c.trigger_task, scope.trigger[0]),
        (runs.c.trigger_name, scope.trigger[1]),
    )
    where = [column == value for column, value in asked if value]
    where += [first.c[name] == value for name, value in way.equal]
    if way.until is not None:
        where.append(first.c.created_at <= way.until)
    where.append(actions.c.reported.is_not(None) if scope.tracked else actions.c.reported.is_(None))
    statement = select(*columns, *runs.columns).where(actions.c.parent.is_(None), *where)
    if first is actions:
        return statement.join(runs, _same_run(runs, actions))
    if first is not runs:
        statement = statement.select_from(first).join(runs, _same_run(runs, first))
    return statement.join(actions, and_(_same_run(actions, first), actions.c.name == ROOT_ACTION))


def _same_run(one: FromClause, other: FromClause) -> ColumnElement[bool]:
    return and_(*(one.c[name] == other.c[name] for name in ("project", "domain", "run")))


def _places(table: Table) -> dict[str, Field]:
    """By what runs are told apart and in order, in one of the tables that have it: the one that is walked."""
    return {
        "project": Field(table.c.project),
        "domain": Field(table.c.domain),
        "run_name": Field(table.c.run),
        "name": Field(table.c.run),
        "created_at": Field(table.c.created_at, TIME),
    }


def _of_run(run: RunKey) -> tuple[ColumnElement[bool], ...]:
    return (actions.c.project == run.project, actions.c.domain == run.domain, actions.c.run == run.run)


def _run_and_root(row: Sequence[Any]) -> tuple[Run, Action]:
    return run_from(row[_SIZE : _SIZE + len(runs.columns)]), action_from(row[:_SIZE])
