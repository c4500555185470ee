"""What an action costs its database, counted on the wire."""

from __future__ import annotations

import asyncio

from flyte_unified.core.clock import SystemClock
from flyte_unified.core.phases import Phase
from flyte_unified.db.postgres import PostgresDatabase
from flyte_unified.ledger.api import Ledger, Move
from tests.benchmarks.statements import per_action
from tests.databases import clear
from tests.postgres import PostgresServer
from tests.postgres_meter import Meter
from tests.unit.ledger.births import ROOT, action, run, spec


async def test_an_action_costs_four_statements_at_most(postgres: PostgresServer) -> None:
    """A hundred pods at once, enqueued, moved thrice by a leader and told to other replicas: transactions are counted too."""
    await clear(postgres.url())
    assert await per_action(postgres.url(), count=100) <= 4.0


async def test_that_holds_when_they_are_not_in_step(postgres: PostgresServer) -> None:
    """Ten at a time, each ten a step behind those before: what waits together is not of one kind."""
    await clear(postgres.url())
    assert await per_action(postgres.url(), count=100, groups=10) <= 4.0


async def test_an_abort_of_a_thousand_is_a_handful_of_statements(postgres: PostgresServer) -> None:
    """What lives below an end ends with it level by level, so that nobody waits long for the one who writes."""
    await clear(postgres.url())
    children, below = [f"n{number}" for number in range(1100)], [f"n{number}x" for number in range(50)]
    async with Meter.running(postgres.url()) as meter:
        database = PostgresDatabase(meter.url)
        await database.start()
        ledger = Ledger(database=database, clock=SystemClock())
        await ledger.create_run(run())
        await asyncio.gather(*(ledger.enqueue(action(name), spec()) for name in children))
        await asyncio.gather(*(ledger.enqueue(action(name, parent=name[:-1]), spec()) for name in below))
        before = meter.statements
        changed = await ledger.move(ROOT, Move(to=Phase.ABORTED, reason="enough"))
        assert meter.statements - before <= 15
        assert {each.key.name for each in changed if each.reason == "enough"} == {"a0", *children, *below}
        assert await ledger.live() == []
        await database.stop()
