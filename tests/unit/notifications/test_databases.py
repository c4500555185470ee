"""Deliveries on every database: owed with their run, settled by its end, the first due first."""

from __future__ import annotations

from dataclasses import replace

import pytest
from flyteidl2.task import run_pb2

from flyte_unified.core.errors import AlreadyExists
from flyte_unified.core.phases import Phase
from flyte_unified.db.api import Database
from flyte_unified.notifications import store
from flyte_unified.notifications.model import Delivery
from tests.unit.ledger import births
from tests.unit.manual_clock import ManualClock
from tests.unit.notifications.world import asking, email, rule, webhook, world_of


def _success(each: Delivery, phase: Phase) -> bool:
    return phase in each.rule_message.on_phases


async def test_a_row_from_its_run_to_its_end(database: Database, clock: ManualClock) -> None:
    """Written with the run and not without it, due after the end that it is for, removed when it is paid."""
    world = world_of(clock, database)
    spec = asking(rule(webhook()), rule(email("a@b"), int(Phase.ABORTED)))
    root = await world.run(spec)
    first, second = await world.owed(root)
    assert (first.ready_at, first.due_at, first.rule_message.delivery_template.webhook.url) == (None, None, "http://h/")
    assert await database.write(lambda: store.settle(None, _success, now=clock.now())) == 0
    await world.end(root)
    at = clock.pass_by(5)
    assert await database.write(lambda: store.settle(root, _success, now=at)) == 1
    assert await world.owed(root) == [replace(first, ready_at=at, due_at=at)]
    later = clock.pass_by(9)
    await database.write(lambda: store.change(replace(first, ready_at=at), due_at=later, tries=1, error="no"))
    (due,) = await database.read(lambda: store.next_due(9))
    assert (due.due_at, due.ready_at, due.tries, due.error) == (later, at, 1, "no")
    await database.write(lambda: store.change(due, due_at=None, tries=2, error="never"))
    assert await database.read(lambda: store.next_due(9)) == []
    await database.write(lambda: store.remove(due))
    assert await world.owed(root) == []
    assert second.channel == "email"
    world.ledger.changes.close()


async def test_a_run_that_is_repeated_owes_once(database: Database, clock: ManualClock) -> None:
    """And one that is refused owes nothing, as does a condition that is there already."""
    world = world_of(clock, database)
    spec = asking(rule(webhook()))
    root = await world.run(spec)
    await world.run(spec)
    assert len(await world.owed(root)) == 1
    other = replace(births.run(root, content="other"), beside=world.notifications.of_run(root.run_key, spec, now=clock.now()))
    with pytest.raises(AlreadyExists):
        await world.ledger.create_run(other)
    assert len(await world.owed(root)) == 1
    for _ in range(2):
        condition = await world.condition(run_pb2.RunSpec(), url="http://h/own")
    (own,) = await world.owed(condition)
    assert own.due_at == own.created_at
    world.ledger.changes.close()
