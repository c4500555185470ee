"""The console's SQL: queries only, as pieces of work (see ``db.api``). Every list is bounded and goes on where it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Row, and_, func, select, tuple_

from flyte_unified.core.clock import Micros
from flyte_unified.core.ids import ROOT_ACTION, ActionKey, RunKey
from flyte_unified.core.phases import Phase
from flyte_unified.db.api import Work
from flyte_unified.db.tables import actions
from flyte_unified.ledger.api import ActionType

RUNS = 50
"""Runs on a page."""
CHILDREN = 200
"""Children of one action on a page."""
_BELOW = 25
"""Children of each action further down."""
_ROWS = 300
"""Actions on a page, all levels together."""
_LEVELS = 8
_LINE = 6


class Scope(NamedTuple):
    """Whose runs: of everything, of a project and domain, or of one of its tasks."""

    project: str = ""
    domain: str = ""
    task: str = ""


@dataclass(frozen=True, slots=True)
class Listed:
    """An action as lists show it."""

    key: ActionKey
    parent: str | None
    action_type: ActionType
    group_name: str
    phase: Phase
    attempt: int
    cache_status: int
    created_at: Micros
    started_at: Micros | None
    ended_at: Micros | None
    task_name: str
    short_name: str

    @property
    def title(self) -> str:
        return self.short_name or self.task_name or self.key.name


class RunMark(NamedTuple):
    """The last run of a page; the next page begins behind it."""

    created_at: int
    project: str
    domain: str
    run: str


class ActionMark(NamedTuple):
    """The last action of a page."""

    created_at: int
    name: str


@dataclass(frozen=True, slots=True)
class Tree:
    """``children`` of every action shown, ``counts`` of all children there are; ``after`` where the first parent's go on."""

    children: Mapping[str, Sequence[Listed]]
    counts: Mapping[str, int]
    after: ActionMark | None


_LISTED = (
    actions.c.project,
    actions.c.domain,
    actions.c.run,
    actions.c.name,
    actions.c.parent,
    actions.c.action_type,
    actions.c.group_name,
    actions.c.phase,
    actions.c.attempt,
    actions.c.cache_status,
    actions.c.created_at,
    actions.c.started_at,
    actions.c.ended_at,
    actions.c.task_name,
    actions.c.short_name,
)
_RUN_ORDER = (actions.c.created_at, actions.c.project, actions.c.domain, actions.c.run)
_ACTION_ORDER = (actions.c.created_at, actions.c.name)


def recent_runs(scope: Scope, after: RunMark | None) -> Work[tuple[list[Listed], RunMark | None]]:
    """The root actions of runs, the newest first, and where the next page begins, if there is one."""
    # The keys are read from an index, whole rows only of those that are shown. That every run has a project says nothing
    # new, but lets SQLite take the index that has all the columns.
    keys = select(*_RUN_ORDER).where(actions.c.parent.is_(None), *(_scoped(scope) or [actions.c.project > ""]))
    if after is not None:
        keys = keys.where(tuple_(*_RUN_ORDER) < tuple_(*after))
    page = keys.order_by(*(column.desc() for column in _RUN_ORDER)).limit(RUNS + 1).subquery()
    same = and_(*(actions.c[name] == page.c[name] for name in ("project", "domain", "run")), actions.c.name == ROOT_ACTION)
    statement = select(*_LISTED).join(page, same).order_by(*(column.desc() for column in page.c))
    rows = [_listed(row) for row in (yield statement).all()]
    if len(rows) <= RUNS:
        return rows, None
    last = rows[RUNS - 1]
    return rows[:RUNS], RunMark(last.created_at, *last.key.run_key)


def line(key: ActionKey) -> Work[list[Listed]]:
    """From the root down to the action itself; of a long line the root and the last few."""
    found: list[Listed] = []
    name: str | None = key.name
    while name is not None:
        row = (yield select(*_LISTED).where(_in_run(key.run_key), actions.c.name == name)).one()
        found.append(_listed(row))
        name = row.parent if len(found) < _LINE or row.parent is None else ROOT_ACTION
    return found[::-1]


def phase_counts(key: RunKey) -> Work[dict[Phase, int]]:
    """How many actions of the run are in each phase."""
    total = func.count().label("total")
    statement = select(actions.c.phase, total).where(_in_run(key)).group_by(actions.c.phase).order_by(actions.c.phase)
    return {Phase(row.phase): row.total for row in (yield statement).all()}


def in_phase(key: RunKey, phase: Phase, after: ActionMark | None) -> Work[tuple[list[Listed], ActionMark | None]]:
    """The actions of a run that are in ``phase``, in the order of their creation."""
    statement = select(*_LISTED).where(_in_run(key), actions.c.phase == phase, *_past(after))
    return _page([_listed(row) for row in (yield statement.order_by(*_ACTION_ORDER).limit(CHILDREN + 1)).all()])


def tree(top: ActionKey, after: ActionMark | None) -> Work[Tree]:
    """What ``top`` started, and what that started, level by level, as far as a page has room: each parent has its share."""
    run = top.run_key
    first, more = _page((yield from _children(run, top.name, CHILDREN + 1, after)))
    children = {top.name: first}
    counts = yield from _counts(run, [top.name])
    level, room = first, _ROWS - len(first)
    for depth in range(_LEVELS + 1):
        found = yield from _counts(run, [child.key.name for child in level])
        counts |= found
        if not found or room <= 0 or depth == _LEVELS:
            break
        share = min(_BELOW, max(1, room // len(found)))
        parents = [child.key.name for child in level if child.key.name in found]
        level = []
        for parent in parents[:room]:
            children[parent] = yield from _children(run, parent, share)
            level += children[parent]
        room -= len(level)
    return Tree(children, counts, more)


def _children(key: RunKey, parent: str, limit: int, after: ActionMark | None = None) -> Work[list[Listed]]:
    statement = select(*_LISTED).where(_in_run(key), actions.c.parent == parent, *_past(after))
    return [_listed(row) for row in (yield statement.order_by(*_ACTION_ORDER).limit(limit)).all()]


def _counts(key: RunKey, parents: Sequence[str]) -> Work[dict[str, int]]:
    """How many children each has; those that have none are left out."""
    total = func.count().label("total")
    statement = select(actions.c.parent, total).where(_in_run(key), actions.c.parent.in_(parents))
    return {row.parent: row.total for row in (yield statement.group_by(actions.c.parent)).all()}


def _scoped(scope: Scope) -> list[ColumnElement[bool]]:
    if scope.task:
        names = (actions.c.task_project, actions.c.task_domain, actions.c.task_name)
        return [column == value for column, value in zip(names, scope, strict=True)]
    if scope.project:
        return [actions.c.project == scope.project, actions.c.domain == scope.domain]
    return []


def _in_run(key: RunKey) -> ColumnElement[bool]:
    return and_(actions.c.project == key.project, actions.c.domain == key.domain, actions.c.run == key.run)


def _past(after: ActionMark | None) -> list[ColumnElement[bool]]:
    return [tuple_(*_ACTION_ORDER) > tuple_(*after)] if after is not None else []


def _page(rows: list[Listed]) -> tuple[list[Listed], ActionMark | None]:
    if len(rows) <= CHILDREN:
        return rows, None
    last = rows[CHILDREN - 1]
    return rows[:CHILDREN], ActionMark(last.created_at, last.key.name)


def _listed(row: Row[Any]) -> Listed:
    values: tuple[Any, ...] = tuple(row)
    return Listed(ActionKey._make(values[:4]), values[4], ActionType(values[5]), values[6], Phase(values[7]), *values[8:])
