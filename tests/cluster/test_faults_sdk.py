"""Runs of the real SDK: a fan-out whose bodies wait while everything around them fails."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from flyte_unified.core.phases import Phase
from tests.cluster.replicas import Replica
from tests.cluster.stand import LEASE, Stand
from tests.sdk.durability.stand import Gate

LEAVES = 2


async def _killed(stand: Stand, server: Replica) -> None:
    await server.kill()
    stand.vacate()
    await server.start()


async def _without_an_api_server(stand: Stand, server: Replica) -> None:
    stand.faults.outage()
    await asyncio.sleep(LEASE + 0.2)  # longer than it is leader
    stand.faults.restore()


@pytest.mark.parametrize("fault", [_killed, _without_an_api_server], ids=["killed", "away"])
async def test_a_fan_out_goes_on(stand: Stand, fault: Callable[[Stand, Replica], Awaitable[None]]) -> None:
    """Each body runs once, in the process that it began in, and the parent has every result."""
    server = await stand.replica(SERVER_PUBLIC_URL="")
    async with Gate(stand.directory / "visits").serving() as gate:
        run = await server.run(gate, "fan", LEAVES)
        await gate.until(lambda: len(gate.visits) == LEAVES + 1)
        await fault(stand, server)
        gate.open()
        assert await server.phase(run) is Phase.SUCCEEDED, server.log_text()
    actions = await server.actions(run)
    assert Counter(Phase(action.status.phase) for action in actions) == {Phase.SUCCEEDED: LEAVES + 1}
    assert Counter(visit.name for visit in gate.visits) == dict.fromkeys(("fan", *(f"leaf {n}" for n in range(LEAVES))), 1)
    await stand.settled(run)
