"""What an action costs the API server and the database, counted where they are asked. Pods are played: see ``benchmarks``."""

from __future__ import annotations

from tests.benchmarks.cluster import costs
from tests.benchmarks.played import APART, Pace
from tests.databases import clear
from tests.postgres import PostgresServer


async def test_an_action_costs_four_writes_and_four_statements(postgres: PostgresServer) -> None:
    """A hundred pods at once, from Enqueue to SUCCEEDED: all that a server sends is counted, transactions too.

    A TaskAction is created, told three phases, and marked as over afterwards; a pod is created, and let go of. A request that
    the API server refused, because ours had not seen its last change yet, is counted too: one in ten may be.
    """
    await clear(postgres.url())
    measured = await costs(postgres.url(), count=100, pace=APART)
    assert measured.statements <= 4.0
    assert measured.creates == 1.0
    assert measured.statuses <= 3.1
    assert measured.marks <= 1.0
    assert measured.pods <= 2.0


async def test_nothing_is_asked_that_is_known(postgres: PostgresServer) -> None:
    """Of reads, the pod's log alone; the lease's renewal and the watches' beginning don't grow with the actions."""
    await clear(postgres.url())
    measured = await costs(postgres.url(), count=50, pace=Pace())
    assert measured.others <= 1.2
