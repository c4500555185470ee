"""The SQL of deliveries, as pieces of work (see ``db.api``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Row, and_, bindparam, delete, select, update

from flyte_unified.core.clock import Micros
from flyte_unified.core.ids import ActionKey
from flyte_unified.core.phases import Phase
from flyte_unified.db.api import Work
from flyte_unified.db.tables import actions, deliveries
from flyte_unified.db.upsert import insert_new
from flyte_unified.notifications.model import Channel, Delivery

_PLACE = ("project", "domain", "run", "name")
_FIELDS = ("number", "channel", "rule", "created_at", "ready_at", "due_at", "tries", "error")

_AT = and_(*(deliveries.c[name] == bindparam("_" + name) for name in _PLACE))
_ONE = _AT & (deliveries.c.number == bindparam("_number"))
_ADD = insert_new(deliveries)
_REMOVE = delete(deliveries).where(_ONE)
_CHANGE = update(deliveries).where(_ONE).values({name: bindparam(name) for name in ("ready_at", "due_at", "tries", "error")})
_ENDED = (
    select(deliveries, actions.c.phase)
    .join(actions, and_(*(actions.c[name] == deliveries.c[name] for name in _PLACE)))
    .where(deliveries.c.ready_at.is_(None), actions.c.ended_at.is_not(None))
)
_FORGET = delete(deliveries).where(deliveries.c.due_at.is_(None), deliveries.c.ready_at < bindparam("_before"))
_DUE = select(deliveries).where(deliveries.c.due_at.is_not(None)).order_by(deliveries.c.due_at)


def add(owed: Sequence[Delivery]) -> Work[None]:
    yield _ADD, [_columns(each) for each in owed]


def settle(key: ActionKey | None, wanted: Callable[[Delivery, Phase], bool], *, now: Micros) -> Work[int]:
    """What was owed for an end that has come is due, or, where that end is not ``wanted``, owed no more.

    Of one action, or of all; how many are due by this.
    """
    found = (yield _ENDED.where(_AT), _place(key)).all() if key is not None else (yield _ENDED).all()
    due = 0
    for row in found:
        each = _delivery(row)
        if wanted(each, Phase(row.phase)):
            yield _CHANGE, {**_number(each), "ready_at": now, "due_at": now, "tries": 0, "error": ""}
            due += 1
        else:
            yield _REMOVE, _number(each)
    return due


def next_due(limit: int) -> Work[list[Delivery]]:
    """Those that come first."""
    return [_delivery(row) for row in (yield _DUE.limit(limit)).all()]


def remove(each: Delivery) -> Work[None]:
    yield _REMOVE, _number(each)


def forget(before: Micros) -> Work[None]:
    """Those that were ready earlier, and were given up."""
    yield _FORGET, {"_before": before}


def change(each: Delivery, *, due_at: Micros | None, tries: int, error: str) -> Work[None]:
    yield _CHANGE, {**_number(each), "ready_at": each.ready_at, "due_at": due_at, "tries": tries, "error": error}


def of_action(key: ActionKey) -> Work[list[Delivery]]:
    """What is owed because of an action, by number."""
    rows = (yield select(deliveries).where(_AT).order_by(deliveries.c.number), _place(key)).all()
    return [_delivery(row) for row in rows]


def undelivered(key: ActionKey) -> Work[list[Delivery]]:
    """The same of what was tried, and failed."""
    owed = yield from of_action(key)
    return [each for each in owed if each.tries]


def _place(key: ActionKey) -> dict[str, Any]:
    return {"_" + name: value for name, value in zip(_PLACE, key, strict=True)}


def _number(each: Delivery) -> dict[str, Any]:
    return {**_place(each.action), "_number": each.number}


def _columns(each: Delivery) -> dict[str, Any]:
    place = dict(zip(_PLACE, each.action, strict=True))
    return {**place, **{name: getattr(each, name) for name in _FIELDS}, "channel": str(each.channel)}


def _delivery(row: Row[Any]) -> Delivery:
    values: dict[str, Any] = {name: getattr(row, name) for name in _FIELDS}
    values["channel"] = Channel(row.channel)
    return Delivery(action=ActionKey._make(row[:4]), **values)
