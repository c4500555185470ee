"""What an action costs its database, counted on the wire."""

from __future__ import annotations

from tests.benchmarks.statements import per_action
from tests.databases import clear
from tests.postgres import PostgresServer


async def test_an_action_costs_four_statements_at_most(postgres: PostgresServer) -> None:
    """A hundred pods at once, enqueued, moved thrice by a leader and told to other replicas: transactions are counted too."""
    await clear(postgres.url())
    assert await per_action(postgres.url(), count=100) <= 4.0


async def test_that_holds_when_they_are_not_in_step(postgres: PostgresServer) -> None:
    """Ten at a time, each ten a step behind those before: what waits together is not of one kind."""
    await clear(postgres.url())
    assert await per_action(postgres.url(), count=100, groups=10) <= 4.0
