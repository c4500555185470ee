"""Subscriptions: nothing is lost, nothing piles up."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from flyte_unified.ledger.api import Action, Changes, Children, Everything, OneAction, Roots, WholeRun
from tests.unit.ledger.births import ROOT, RUN, action

A0 = action("a0", parent=None)
B = action("b")
C = action("c", parent="b")
ELSEWHERE = replace(B, key=RUN._replace(run="other").action("b"))


def version(of: Action, number: int) -> Action:
    return replace(of, version=number)


def test_a_slow_reader_gets_the_last_state_of_each_action() -> None:
    """States that nobody looked at are overwritten: the backlog is as long as there are actions, not changes."""
    changes = Changes()
    with changes.subscribe(WholeRun(RUN)) as subscription:
        for number in range(1, 1000):
            changes.publish([version(B, number), version(C, number)])
        assert subscription.take() == [version(B, 999), version(C, 999)]
        assert subscription.take() == []


def test_an_older_state_never_replaces_a_newer() -> None:
    """What is told twice, or late, does not go back."""
    changes = Changes()
    with changes.subscribe(WholeRun(RUN)) as subscription:
        changes.publish([version(B, 2)])
        changes.publish([version(B, 1)])
        assert subscription.take() == [version(B, 2)]


def test_actions_come_in_the_order_in_which_they_changed_first() -> None:
    """A child is told after its parent, whatever happened to the parent since."""
    changes = Changes()
    with changes.subscribe(WholeRun(RUN)) as subscription:
        for each in (A0, B, C, version(A0, 2)):
            changes.publish([each])
        assert [each.key.name for each in subscription.take()] == ["a0", "b", "c"]


@pytest.mark.parametrize(
    ("scope", "heard"),
    [
        (OneAction(B.key), {"b"}),
        (Children(ROOT), {"a0", "b"}),
        (Children(B.key), {"b", "c"}),
        (WholeRun(RUN), {"a0", "b", "c"}),
        (Roots("p", "development"), {"a0"}),
        (Roots("q", "development"), set()),
        (Roots(), {"a0"}),
        (Everything(), {"a0", "b", "c", "other/b"}),
    ],
)
def test_a_scope_hears_of_its_own(scope: Children, heard: set[str]) -> None:
    """Actions of one name in two runs are two."""
    changes = Changes()
    with changes.subscribe(scope) as subscription:
        changes.publish([A0, B, C, ELSEWHERE])
        names = {each.key.name if each.key.run_key == RUN else f"other/{each.key.name}" for each in subscription.take()}
    assert names == heard


def test_two_scopes_of_one_reader_tell_once() -> None:
    """An action that is in both is one entry."""
    changes = Changes()
    with changes.subscribe(OneAction(B.key), Children(ROOT)) as subscription:
        changes.publish([B])
        assert subscription.take() == [B]


def test_each_reader_has_its_own_pace() -> None:
    """What one has read the other still has before it; after the end nobody is told."""
    changes = Changes()
    with changes.subscribe(Everything()) as gone:
        pass
    with changes.subscribe(Everything()) as slow, changes.subscribe(Everything()) as quick:
        changes.publish([A0])
        assert quick.take() == [A0]
        changes.publish([B])
        assert quick.take() == [B]
        assert slow.take() == [A0, B]
    assert gone.take() == []


async def test_a_reader_sleeps_until_something_changes() -> None:
    """It is woken by the change, and by nothing else."""
    changes = Changes()
    with changes.subscribe(OneAction(B.key)) as subscription:
        reading = asyncio.create_task(subscription.next())
        await asyncio.sleep(0)
        changes.publish([C])
        await asyncio.sleep(0)
        assert not reading.done()
        changes.publish([B])
        assert await asyncio.wait_for(reading, 5) == [B]


async def test_a_stop_lets_readers_finish() -> None:
    """What was told before is still read; then, and for who comes later, there is the end."""
    changes = Changes()
    with changes.subscribe(Everything()) as subscription:
        changes.publish([B])
        changes.close()
        assert await subscription.next() == [B]
        assert await subscription.next() == []
        assert await subscription.next() == []
    with changes.subscribe(Everything()) as late:
        assert await asyncio.wait_for(late.next(), 5) == []
