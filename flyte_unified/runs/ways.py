"""Which index a list of runs is read by: one in the order of time that leaves out most of what is not asked for. Pure.

Databases choose among indexes by what they believe of the rows, and SQLite knows nothing of ours. So a query names the table
that it walks, and says of that table's columns what its filters mean. Every filter holds whatever is walked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from flyte_unified.core.filters import Condition, Function, Value
from flyte_unified.core.phases import LIVE, Phase
from flyte_unified.db.tables import LABEL
from flyte_unified.runs.scopes import RunScope

LABELS = "labels."
_BEFORE = (Function.LESS_THAN, Function.LESS_THAN_OR_EQUAL)
_PEOPLE = ("created_by", "created_by_subject")


class Way(NamedTuple):
    """The rows of ``table`` in which each of the ``equal`` columns has its value, and that are not of after ``until``."""

    table: str
    equal: tuple[tuple[str, Value], ...] = ()
    until: Value | None = None


ROOTS = Way("actions")
_LIVE = Way("actions", (("outcome", 0),))


def choose(scope: RunScope, conditions: Sequence[Condition], *, paused: bool) -> Way:
    """``paused``: only runs in which something waits, which live, where they are carried out here."""
    return _way(scope, conditions, paused=paused)._replace(until=_until(conditions))


def _way(scope: RunScope, conditions: Sequence[Condition], *, paused: bool) -> Way:
    if scope.trigger[1]:
        return Way("runs")
    if not (scope.project and scope.domain):
        return ROOTS
    if paused and not scope.tracked:
        return _LIVE
    outcome = _outcome(conditions)
    if outcome is not None and outcome is not Phase.SUCCEEDED:
        return Way("actions", (("outcome", int(outcome)),))
    ways = [_label(condition) or _person(condition) for condition in conditions]
    return next((way for way in ways if way is not None), ROOTS)


def _until(conditions: Sequence[Condition]) -> Value | None:
    """What was not changed any more since was not made since."""
    return min((each.values[0] for each in conditions if each.field == "updated_at" and each.function in _BEFORE), default=None)


def _outcome(conditions: Sequence[Condition]) -> Phase | None:
    """The one outcome that runs in the phases asked for have, if it is one; UNSPECIFIED is that of all that live."""
    found = set(Phase)
    for condition in conditions:
        if condition.field == "phase" and condition.function in (Function.EQUAL, Function.VALUE_IN):
            phases = [Phase(int(value)) for value in condition.values]
            found &= {Phase.UNSPECIFIED if phase in LIVE else phase for phase in phases}
    return found.pop() if len(found) == 1 else None


def _label(condition: Condition) -> Way | None:
    name = condition.field.removeprefix(LABELS)
    if name == condition.field or len(name) > LABEL:
        return None
    key = ("key", name)
    if condition.function is Function.EQUAL:
        return Way("run_labels", (key, ("value", str(condition.values[0])[:LABEL])))
    return Way("run_labels", (key,)) if condition.function is Function.EXISTS else None


def _person(condition: Condition) -> Way | None:
    if condition.field in _PEOPLE and condition.function is Function.EQUAL:
        return Way("runs", (("created_by", condition.values[0]),))
    return None
