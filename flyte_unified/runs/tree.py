"""A run's actions as a tree that tells what changed in it. Pure.

Every node counts the phases of all its descendants, and how many of them meet the watcher's filter: a node is shown when it
meets the filter itself or something below it does, so whoever watches can always draw the way down to a match.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from flyteidl2.common import list_pb2

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.filters import TEXT, Condition, Function, Kind, conditions, enumeration
from flyte_unified.core.phases import Phase
from flyte_unified.ledger.api import Action

Matches = Callable[[Action], bool]

_KINDS = {"phase": enumeration(Phase), "name": TEXT}
_FUNCTIONS = {
    "phase": (Function.VALUE_IN, Function.EQUAL),
    "name": (Function.CONTAINS_CASE_INSENSITIVE,),
}


@dataclass(slots=True, eq=False)
class Node:
    """One action. ``counts`` and ``matching`` are of all descendants; ``shown``: the watcher has it."""

    action: Action
    parent: Node | None = None
    counts: Counter[Phase] = field(default_factory=Counter)
    matches: bool = False
    matching: int = 0
    shown: bool = False

    def ancestors(self) -> Iterator[Node]:
        node = self.parent
        while node is not None:
            yield node
            node = node.parent

    @property
    def visible(self) -> bool:
        return self.matches or self.matching > 0


class Tree:
    """``matches`` is the watcher's filter."""

    def __init__(self, matches: Matches) -> None:
        self._matches = matches
        self._nodes: dict[str, Node] = {}

    def update(self, actions: Iterable[Action]) -> list[Node]:
        """Takes new and changed actions, in any order; the nodes to tell of, parents first.

        A node that is not ``visible`` any more is told of once.
        """
        changed: dict[str, Node] = {}
        new = []
        for action in actions:
            node = self._nodes.get(action.key.name)
            if node is None:
                node = self._nodes[action.key.name] = Node(_slim(action), matches=self._matches(action))
                new.append(node)
            else:
                self._renew(node, action, changed)
            changed[action.key.name] = node
        for node in sorted(new, key=lambda node: node.action.depth):
            self._link(node, changed)
        told = [node for node in changed.values() if node.visible or node.shown]
        for node in told:
            node.shown = node.visible
        return sorted(told, key=lambda node: (node.action.depth, node.action.created_at, node.action.key.name))

    def _renew(self, node: Node, action: Action, changed: dict[str, Node]) -> None:
        before, matched = node.action.phase, node.matches
        node.action, node.matches = _slim(action), self._matches(action)
        if before == action.phase and matched == node.matches:
            return
        for above in node.ancestors():
            above.counts[before] -= 1
            above.counts[action.phase] += 1
            above.matching += node.matches - matched
            changed[above.action.key.name] = above

    def _link(self, node: Node, changed: dict[str, Node]) -> None:
        """Hangs a new node below its parent, which is linked already, and adds it to the counts above."""
        node.parent = self._nodes.get(node.action.parent or "")
        for above in node.ancestors():
            above.counts[node.action.phase] += 1
            above.matching += node.matches
            changed[above.action.key.name] = above


def matcher(filters: Sequence[list_pb2.Filter]) -> Matches:
    """The filter of a WatchActions: PHASE by VALUE_IN, NAME by CONTAINS_CASE_INSENSITIVE. Raises InvalidArgument."""
    found = conditions(filters, _kind, field="filter")
    for condition in found:
        allowed = _FUNCTIONS[condition.field.lower()]
        if condition.function not in allowed:
            raise InvalidArgument(f"filter: {condition.field} is filtered by {allowed[0].name} only")
    return lambda action: all(_meets(action, condition) for condition in found)


def _kind(name: str) -> Kind | None:
    return _KINDS.get(name.lower())


def _meets(action: Action, condition: Condition) -> bool:
    if condition.field.lower() == "phase":
        return int(action.phase) in condition.values
    sought = str(condition.values[0]).lower()
    return any(sought in name.lower() for name in (action.short_name or action.task.name, action.key.name))


def _slim(action: Action) -> Action:
    """Without what only its details show: a watcher of a large run keeps all its actions."""
    return replace(action, record=b"", error=None, value=None)
