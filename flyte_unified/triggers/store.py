"""The SQL of triggers, as pieces of work (see ``db.api``). A revision never changes once it is there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, bindparam, delete, func, literal_column, select, tuple_, update

from flyte_unified.core.clock import Micros
from flyte_unified.core.filters import INTEGER, LONG, TIME, Kind, enumeration
from flyte_unified.core.paging import Listing
from flyte_unified.db import lists
from flyte_unified.db.api import Work
from flyte_unified.db.tables import runs, trigger_offers, trigger_revisions, triggers
from flyte_unified.db.upsert import insert_new
from flyte_unified.triggers.model import Appeared, Automation, Change, Offer, Trigger, TriggerKey, due, goes_on, watches

_KEY = ("project", "domain", "task", "name")
_FIELDS = (
    "revision",
    "change",
    "spec",
    "automation",
    "automation_type",
    "task_version",
    "active",
    "description",
    "deployed_by",
    "updated_by",
    "deployed_at",
    "updated_at",
    "deleted_at",
    "next_fire",
)


@dataclass(frozen=True, slots=True)
class Listed:
    """A trigger as lists show it. ``triggered_at`` is when its last run was made."""

    trigger: Trigger
    triggered_at: Micros | None


def _boolean(text: str) -> int:
    if text.lower() not in ("true", "false", "1", "0"):
        raise ValueError(text)
    return int(text.lower() in ("true", "1"))


_TRIGGERED_AT = (
    select(func.max(runs.c.created_at))
    .where(
        runs.c.project == triggers.c.project,
        runs.c.domain == triggers.c.domain,
        runs.c.trigger_task == triggers.c.task,
        runs.c.trigger_name == triggers.c.name,
    )
    .correlate(triggers)
    .scalar_subquery()
)
FIELDS = {
    "project": lists.Field(triggers.c.project),
    "domain": lists.Field(triggers.c.domain),
    "task_name": lists.Field(triggers.c.task),
    "name": lists.Field(triggers.c.name),
    "revision": lists.Field(triggers.c.revision, LONG),
    "active": lists.Field(triggers.c.active, Kind("true or false", _boolean)),
    "task_version": lists.Field(triggers.c.task_version),
    "automation_type": lists.Field(triggers.c.automation_type, enumeration(Automation)),
    "description": lists.Field(triggers.c.description),
    "deployed_by": lists.Field(triggers.c.deployed_by),
    "updated_by": lists.Field(triggers.c.updated_by),
    "deployed_at": lists.Field(triggers.c.deployed_at, TIME),
    "updated_at": lists.Field(triggers.c.updated_at, TIME),
    "triggered_at": lists.Field(_TRIGGERED_AT, TIME, nullable=True),
}
"""What a list of triggers can be filtered and sorted by."""
KIND = lists.kinds(FIELDS.get)
HISTORY = {
    "revision": lists.Field(trigger_revisions.c.revision, LONG),
    "action": lists.Field(trigger_revisions.c.change, enumeration(Change)),
    "active": lists.Field(trigger_revisions.c.active, INTEGER),
    "task_version": lists.Field(trigger_revisions.c.task_version),
    "deployed_at": lists.Field(trigger_revisions.c.deployed_at, TIME),
    "updated_at": lists.Field(trigger_revisions.c.updated_at, TIME),
    "created_at": lists.Field(trigger_revisions.c.updated_at, TIME),
}
"""The same of one trigger's revisions."""
HISTORY_KIND = lists.kinds(HISTORY.get)

_LIVE = triggers.c.deleted_at.is_(None)
_PLACE = tuple(triggers.c[name] == bindparam("_" + name) for name in _KEY)
_OF_REVISION = tuple(trigger_revisions.c[name] == bindparam("_" + name) for name in _KEY)
_GET = select(triggers, _TRIGGERED_AT).where(*_PLACE)
_BY_NAME = select(triggers.c.task).where(_PLACE[0], _PLACE[1], _PLACE[3], _LIVE).order_by(triggers.c.task).limit(2)
_REVISION = select(trigger_revisions).where(*_OF_REVISION, trigger_revisions.c.revision == bindparam("_revision"))
_ADD = insert_new(triggers).returning(triggers.c.revision)
_ADD_REVISION = insert_new(trigger_revisions)
_REPLACE = (
    update(triggers)
    .where(*_PLACE, triggers.c.revision == bindparam("_revision"))
    .values({name: bindparam(name) for name in _FIELDS})
    .returning(triggers.c.revision)
)
_ADVANCE = (
    update(triggers)
    .where(*_PLACE, triggers.c.next_fire == bindparam("_next_fire"))
    .values(next_fire=bindparam("next_fire"))
    .returning(triggers.c.revision)
)
_SCHEDULED = (
    select(*(triggers.c[name] for name in _KEY), triggers.c.automation_type, triggers.c.next_fire)
    .where(triggers.c.next_fire.is_not(None))
    .order_by(triggers.c.next_fire)
)
# In words, as the index says it: no parameter would show that it can be used.
_ON_ARTIFACTS = select(*(triggers.c[name] for name in _KEY), triggers.c.automation).where(
    *_PLACE[:2], triggers.c.automation_type == literal_column("3"), triggers.c.active == literal_column("1")
)
_HOLD = (
    update(triggers)
    .where(*_PLACE, triggers.c.active == 1, triggers.c.automation == bindparam("_automation"))
    .values(next_fire=func.coalesce(triggers.c.next_fire, bindparam("_at")))
    .returning(triggers.c.revision)
)
_TOUCH = update(triggers).where(*_PLACE).values(next_fire=triggers.c.next_fire)
_FIRE_AT = update(triggers).where(*_PLACE).values(next_fire=bindparam("next_fire"))
_ADD_OFFER = insert_new(trigger_offers)
_OFFERED = tuple(trigger_offers.c[name] == bindparam("_" + name) for name in _KEY)
_OLDEST = (
    select(*(trigger_offers.c[name] for name in Offer._fields))
    .where(*_OFFERED)
    .order_by(*(trigger_offers.c[name] for name in Offer._fields))
    .limit(1)
)
_REMOVE_OFFERS = delete(trigger_offers).where(*_OFFERED)
_REMOVE_OFFER = _REMOVE_OFFERS.where(*(trigger_offers.c[name] == bindparam("_" + name) for name in Offer._fields))
_OF_TASK = select(triggers.c.name).where(*_PLACE[:3], _LIVE).order_by(triggers.c.name)


def get(key: TriggerKey) -> Work[Listed | None]:
    """A deleted one too."""
    row = (yield _GET, _place(key)).one_or_none()
    return _listed(row) if row is not None else None


def revision(key: TriggerKey, number: int) -> Work[Trigger | None]:
    row = (yield _REVISION, {**_place(key), "_revision": number}).one_or_none()
    return _trigger(row) if row is not None else None


def tasks_with(project: str, domain: str, name: str) -> Work[list[str]]:
    """Tasks that have a trigger of that name: the first two."""
    rows = (yield _BY_NAME, {"_project": project, "_domain": domain, "_name": name}).all()
    return [row.task for row in rows]


def change(key: TriggerKey, to: Callable[[Trigger | None], Trigger | None]) -> Work[tuple[Trigger | None, bool]]:
    """The next revision as ``to`` makes it of what is there, and True; what is there where it makes none.

    ``to`` may raise: nothing is written before.
    """
    while True:
        listed = yield from get(key)
        known = listed.trigger if listed is not None else None
        after = to(known)
        if after is None:
            return known, False
        values = _columns(after)
        if known is None:
            written = (yield _ADD, values).first()
        else:
            written = (yield _REPLACE, {**values, **_place(key), "_revision": known.revision}).first()
        if written is not None:  # else another replica was faster
            yield _ADD_REVISION, {name: value for name, value in values.items() if name != "next_fire"}
            if known is not None and known.automation_type is Automation.TYPE_ARTIFACT:
                yield from _settle(key) if goes_on(known, after) else _forget(key)
            return after, True


def of_task(project: str, domain: str, task: str) -> Work[list[TriggerKey]]:
    """What a task has, by name."""
    rows = (yield _OF_TASK, {"_project": project, "_domain": domain, "_task": task}).all()
    return [TriggerKey(project, domain, task, row.name) for row in rows]


def page(scope: Sequence[ColumnElement[bool]], listing: Listing) -> Work[tuple[list[Listed], str]]:
    """One page, and the token of the next."""
    statement = select(triggers, _TRIGGERED_AT).where(_LIVE, *scope)
    rows, token = lists.cut((yield lists.apply(statement, listing, FIELDS.get)).all(), listing)
    return [_listed(row) for row in rows], token


def history(key: TriggerKey, listing: Listing) -> Work[tuple[list[Trigger], str]]:
    """One page of a trigger's revisions, and the token of the next."""
    statement = lists.apply(select(trigger_revisions).where(*_OF_REVISION), listing, HISTORY.get)
    rows, token = lists.cut((yield statement, _place(key)).all(), listing)
    return [_trigger(row) for row in rows], token


def scheduled(now: Micros) -> Work[list[tuple[TriggerKey, Micros]]]:
    """All that are to fire, and when."""
    rows = (yield _SCHEDULED).all()
    return [(TriggerKey._make(row[:4]), due(row.automation_type, row.next_fire, now)) for row in rows]


def advance(key: TriggerKey, done: Micros, to: Micros | None) -> Work[bool]:
    """What was due at ``done`` is over, the next comes at ``to``. False when something else is due by now."""
    values = {**_place(key), "_next_fire": done, "next_fire": to}
    return (yield _ADVANCE, values).first() is not None


def appear(new: Appeared) -> Work[list[TriggerKey]]:
    """Notes ``new`` for every trigger that is to fire for it; which they are.

    Who changes one of them, or is done with another version, waits for this commit.
    """
    told = []
    rows = (yield _ON_ARTIFACTS, {"_project": new.project, "_domain": new.domain}).all()
    for row in [row for row in rows if watches(row.automation, new)]:
        key = TriggerKey._make(row[:4])
        if (yield _HOLD, {**_place(key), "_automation": row.automation, "_at": new.at}).first() is not None:
            yield _ADD_OFFER, {**key._asdict(), "at": new.at, "artifact": new.name, "version": new.version}
            told.append(key)
    return told


def offer(key: TriggerKey) -> Work[Offer | None]:
    """The oldest that a trigger is still to fire for."""
    row = (yield _OLDEST, _place(key)).one_or_none()
    return Offer._make(row) if row is not None else None


def offered(key: TriggerKey, done: Offer | None) -> Work[None]:
    """``done`` is over; the next one is due."""
    yield _TOUCH, _place(key)  # what is noted beside this is seen from here on, or comes after
    if done is not None:
        yield _REMOVE_OFFER, {**_place(key), **{f"_{name}": value for name, value in done._asdict().items()}}
    yield from _settle(key)


def _settle(key: TriggerKey) -> Work[None]:
    oldest = yield from offer(key)
    yield _FIRE_AT, {**_place(key), "next_fire": oldest.at if oldest is not None else None}


def _forget(key: TriggerKey) -> Work[None]:
    yield _REMOVE_OFFERS, _place(key)


def attached(tasks: Collection[tuple[str, str, str]]) -> Work[list[Trigger]]:
    """The triggers of some tasks."""
    place = tuple_(triggers.c.project, triggers.c.domain, triggers.c.task)
    rows = (yield select(triggers).where(_LIVE, place.in_(list(tasks))).order_by(triggers.c.name)).all()
    return [_trigger(row) for row in rows]


def in_scope(**wanted: str) -> Sequence[ColumnElement[bool]]:
    """Columns that have a value; an empty one is no matter."""
    return [triggers.c[name] == value for name, value in wanted.items() if value]


def _place(key: TriggerKey) -> dict[str, Any]:
    return {f"_{name}": value for name, value in zip(_KEY, key, strict=True)}


def _columns(trigger: Trigger) -> dict[str, Any]:
    values = {name: getattr(trigger, name) for name in _FIELDS}
    for name in ("change", "automation_type", "active"):
        values[name] = int(values[name])
    return {**trigger.key._asdict(), **values}


def _trigger(row: Row[Any]) -> Trigger:
    values: dict[str, Any] = {name: getattr(row, name, None) for name in _FIELDS}  # a revision has no next one
    values["change"] = Change(row.change)
    values["automation_type"] = Automation(row.automation_type)
    values["active"] = bool(row.active)
    return Trigger(key=TriggerKey._make(row[:4]), **values)


def _listed(row: Row[Any]) -> Listed:
    return Listed(_trigger(row), row[len(triggers.columns)])
