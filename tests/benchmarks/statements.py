"""How many statements Postgres is sent for an action."""

from __future__ import annotations

import asyncio

from flyte_unified.core.clock import SystemClock
from flyte_unified.core.ids import ActionKey
from flyte_unified.core.phases import Phase
from flyte_unified.db.feed import Feed
from flyte_unified.db.postgres import PostgresDatabase
from flyte_unified.ledger.api import EXECUTOR, Ledger, Move
from tests.postgres_meter import Meter
from tests.unit.ledger.births import action, run, spec

_POD = (Phase.INITIALIZING, Phase.RUNNING, Phase.SUCCEEDED)
"""What a pod that succeeds goes through."""


async def per_action(url: str, *, count: int, groups: int = 1) -> float:
    """Statements for each of ``count`` actions at once, from Enqueue to SUCCEEDED, on an empty database at ``url``.

    All that a server sends is counted, transactions too. Each of ``groups`` is a step behind the one before it, so that what
    waits together is not of one kind.
    """
    async with Meter.running(url) as meter:
        database = PostgresDatabase(meter.url)
        ledger = Ledger(database=database, clock=SystemClock())
        feed = Feed(meter.url, replica=database.replica, tell=lambda _: None, notice=lambda _: None)
        await database.start()
        await feed.start()
        try:
            await ledger.take_lead(EXECUTOR, 1, "here")
            _, root, _ = await ledger.create_run(run())
            before = meter.statements
            begun = [asyncio.Event() for _ in range(groups + 1)]
            begun[0].set()
            lives = (
                _life(ledger, root.key.sibling(f"n{number}"), *begun[number % groups : number % groups + 2])
                for number in range(count)
            )
            await asyncio.gather(*lives)
            return (meter.statements - before) / count
        finally:
            await feed.stop()
            ledger.changes.close()
            await database.stop()


async def _life(ledger: Ledger, key: ActionKey, begin: asyncio.Event, begun: asyncio.Event) -> None:
    await begin.wait()
    known, _ = await ledger.enqueue(action(key.name), spec())
    begun.set()
    for phase in _POD:
        (known,) = await ledger.move(key, Move(to=phase), epoch=1, known=known)
