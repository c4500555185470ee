"""Trees of any size on two slots: what ran when, as the ledger recorded it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from flyteidl2.workflow import run_definition_pb2

from flyte_unified.core.phases import Phase
from tests.sdk.durability.stand import Server, standing

FAMILIES = int(os.environ.get("FAMILIES", "20"))
DEPTH = int(os.environ.get("DEPTH", "30"))
"""``FAMILIES=200 DEPTH=100 pytest tests/sdk/test_slots.py`` is the full size, of about a minute on two cores."""


@dataclass(frozen=True)
class Life:
    """One action. Times in microseconds; a process from its launch to its end, None where there was none."""

    name: str
    parent: str
    created: int
    process: tuple[int, int] | None
    ended: int


async def lives(server: Server, run: str) -> list[Life]:
    return [life(await server.details(run, action.id.name)) for action in await server.actions(run)]


def life(details: run_definition_pb2.ActionDetails) -> Life:
    (attempt,) = details.attempts
    assert Phase(attempt.phase) is Phase.SUCCEEDED
    begun = [step.start_time.ToMicroseconds() for step in attempt.phase_transitions if step.phase == Phase.INITIALIZING]
    ended = attempt.end_time.ToMicroseconds()
    process = (begun[0], ended) if begun else None
    return Life(details.id.name, details.metadata.parent, attempt.start_time.ToMicroseconds(), process, ended)


def peak(spans: list[tuple[int, int]]) -> int:
    """How many of them there were at the same time."""
    steps = sorted([(begin, 1) for begin, _ in spans] + [(end, -1) for _, end in spans])
    count = highest = 0
    for _, step in steps:
        count += step
        highest = max(highest, count)
    return highest


def processes(found: list[Life]) -> list[tuple[int, int]]:
    return [one.process for one in found if one.process is not None]


def leaves(found: list[Life]) -> list[Life]:
    parents = {one.parent for one in found}
    return [one for one in found if one.name not in parents]


async def test_a_chain_of_tasks_ends_on_one_slot(tmp_path: Path) -> None:
    """Each task calls the next and waits for it: as many processes as the chain is long, over the watermark too."""
    async with standing(tmp_path, EXECUTION_SLOTS="1", EXECUTION_PROCESS_WATERMARK="8") as (server, gate):
        run = await server.run(gate, "deep", DEPTH - 1)
        assert await server.phase(run) is Phase.SUCCEEDED
        found = await lives(server, run)
    assert len(found) == DEPTH
    assert peak(processes(found)) == DEPTH


async def test_families_share_two_slots(tmp_path: Path) -> None:
    """Parents with five children each: no more than two leaves compute at once, and parents do not pile up."""
    async with standing(tmp_path, EXECUTION_SLOTS="2", EXECUTION_PROCESS_WATERMARK="8") as (server, gate):
        run = await server.run(gate, "families", FAMILIES)
        assert await server.phase(run) is Phase.SUCCEEDED
        found = await lives(server, run)
        assert [await server.metric(name) for name in ("live_actions", "active_slots", "waiting_actions")] == [0, 0, 0]
    assert len(found) == 1 + FAMILIES + FAMILIES * 5
    assert peak(processes(leaves(found))) <= 2
    assert peak(processes(found)) <= 9


async def test_a_parent_computes_while_its_children_run(tmp_path: Path) -> None:
    """On one slot, children start and end although their parent never stops computing."""
    async with standing(tmp_path, EXECUTION_SLOTS="1") as (server, gate):
        run = await server.run(gate, "busy", 3)
        parent = await gate.comes("busy")
        await server.ended_children(run, 3)
        assert not parent.left
        parent.go()
        assert await server.phase(run) is Phase.SUCCEEDED
        found = await lives(server, run)
    assert peak(processes(leaves(found))) == 1
