"""A run's tree: counts over all descendants, and what a filter shows, whatever the order of changes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from flyteidl2.common import list_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from flyte_unified.core.clock import Micros
from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.ids import RunKey
from flyte_unified.core.phases import Phase
from flyte_unified.ledger.api import Action, ActionType
from flyte_unified.runs.tree import Node, Tree, matcher

_RUN = RunKey("p", "d", "r")
_PHASES = [Phase.QUEUED, Phase.RUNNING, Phase.SUCCEEDED, Phase.FAILED]
_FAILED = list_pb2.Filter(function=list_pb2.Filter.VALUE_IN, field="PHASE", values=["6"])


def _action(number: int, parents: list[int], phase: Phase) -> Action:
    parent = parents[number]
    depth, above = 0, number
    while above:
        depth, above = depth + 1, parents[above]
    return Action(
        key=_RUN.action(f"n{number}"),
        parent=f"n{parent}" if number else None,
        depth=depth,
        action_type=ActionType.TASK,
        phase=phase,
        created_at=Micros(0),
        updated_at=Micros(0),
    )


@st.composite
def _histories(draw: st.DrawFn) -> tuple[list[int], list[list[tuple[int, Phase]]]]:
    """A tree (each node's parent; node 0 is the root) and batches of changes that begin with every node, in some order."""
    size = draw(st.integers(1, 12))
    parents = [0, *(draw(st.integers(0, number - 1)) for number in range(1, size))]
    phases = st.sampled_from(_PHASES)
    first = draw(st.permutations([(number, draw(phases)) for number in range(size)]))
    rest = draw(st.lists(st.lists(st.tuples(st.integers(0, size - 1), phases), max_size=5), max_size=8))
    return parents, [list(first), *rest]


@settings(deadline=None, max_examples=120)
@given(history=_histories())
def test_a_watcher_that_keeps_the_last_of_each_node_has_the_truth(history: tuple[Any, Any]) -> None:
    """Counts of all descendants, and what meets the filter or leads to it, exactly; parents come first."""
    parents, batches = history
    tree, seen = Tree(matcher([_FAILED])), dict[str, tuple[bool, dict[Phase, int]]]()
    phases: dict[int, Phase] = {}
    for batch in batches:
        changes = dict(batch)
        phases |= changes
        told = tree.update([_action(number, parents, phase) for number, phase in changes.items()])
        places = [node.action.key.name for node in told]
        for node in told:
            seen[node.action.key.name] = node.visible, {phase: n for phase, n in node.counts.items() if n}
            if node.visible and node.parent is not None and node.parent.action.key.name in places:
                assert places.index(node.parent.action.key.name) < places.index(node.action.key.name)
    for number in range(len(parents)):
        below = _below(number, parents)
        shown = any(phases[each] is Phase.FAILED for each in (number, *below))
        assert seen.get(f"n{number}", (False, {}))[0] == shown
        if shown:
            assert seen[f"n{number}"][1] == Counter(phases[each] for each in below)


def _below(number: int, parents: list[int]) -> list[int]:
    children = [each for each in range(1, len(parents)) if parents[each] == number]
    return [each for child in children for each in (child, *_below(child, parents))]


def _names(nodes: list[Node]) -> list[tuple[str, bool]]:
    return [(node.action.key.name, node.visible) for node in nodes]


def test_a_node_that_no_longer_meets_the_filter_is_told_once() -> None:
    """With the way that led to it, which is hidden too; what was never shown stays unknown."""
    tree, parents = Tree(matcher([_FAILED])), [0, 0, 1, 1]
    first = [_action(number, parents, Phase.RUNNING) for number in range(4)]
    assert tree.update(first) == []
    shown = [("n0", True), ("n1", True), ("n2", True)]
    assert _names(tree.update([_action(2, parents, Phase.FAILED)])) == shown
    assert _names(tree.update([_action(2, parents, Phase.RUNNING)])) == [(name, False) for name, _ in shown]
    assert tree.update([_action(2, parents, Phase.SUCCEEDED)]) == []


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([], True),
        ([list_pb2.Filter(function=14, field="NAME", values=["FETCH"])], True),
        ([list_pb2.Filter(function=14, field="name", values=["N7"])], True),
        ([list_pb2.Filter(function=14, field="NAME", values=["other"])], False),
        ([list_pb2.Filter(function=7, field="PHASE", values=["4", "5"])], True),
        ([list_pb2.Filter(function=7, field="PHASE", values=["4"]), _FAILED], False),
    ],
)
def test_filters_of_a_tree(filters: list[list_pb2.Filter], expected: bool) -> None:
    """By phase and by the task's or the action's name, upper or lower case."""
    action = Action(
        key=_RUN.action("n7"),
        parent=None,
        depth=0,
        action_type=ActionType.TASK,
        phase=Phase.RUNNING,
        created_at=Micros(0),
        updated_at=Micros(0),
        short_name="fetch_all",
    )
    assert matcher(filters)(action) is expected


@pytest.mark.parametrize(
    "wrong",
    [
        list_pb2.Filter(function=0, field="NAME", values=["x"]),
        list_pb2.Filter(function=9, field="PHASE", values=["4"]),
        list_pb2.Filter(function=7, field="PHASE", values=["fast"]),
        list_pb2.Filter(function=7, field="GROUP", values=["x"]),
    ],
)
def test_other_filters_of_a_tree_are_refused(wrong: list_pb2.Filter) -> None:
    """As InvalidArgument that names the filter."""
    with pytest.raises(InvalidArgument, match="filter"):
        matcher([wrong])
