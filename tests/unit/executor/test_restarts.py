"""One server after the other on the same ledger: what the next one finds, and what it makes of it."""

from __future__ import annotations

import asyncio

import pytest
from flyteidl2.task import run_pb2

from flyte_unified.core.phases import Phase
from flyte_unified.executor.slots import Capacity
from flyte_unified.launchers.api import Ended, Started, WorkId
from flyte_unified.plugins.api import Exit, Pod
from tests.unit.executor.world import ROOT, World, spec

pytestmark = pytest.mark.virtual_time

A1 = WorkId(ROOT, 1)
A2 = WorkId(ROOT, 2)


def started(work: WorkId, world: World) -> Started:
    return Started(id=work, at=world.clock.now(), pid=7)


def ended(work: WorkId, world: World, *, code: int | None = None) -> Ended:
    return Ended(id=work, at=world.clock.now(), exit=Exit(code=code))


async def test_a_running_process_is_adopted(world: World) -> None:
    """A restart changes nothing for a process that outlived the server: same attempt, not launched again, one slot."""
    await world.run()
    async with world.server() as (_, machine):
        await machine.launched(ROOT)
        machine.begin(ROOT)
        await world.reaches(ROOT, Phase.RUNNING)
    async with world.server(started(A1, world)) as (controller, machine):
        assert controller.slots.active == 1
        await asyncio.sleep(5)
        assert not machine.attempts
        await world.succeed(machine, ROOT)
        details = await world.ended(ROOT)
    assert (details.action.phase, details.action.attempt) == (Phase.SUCCEEDED, 1)


async def test_a_process_that_started_unrecorded_is_adopted(world: World) -> None:
    """The server died before it could record RUNNING: the next one does, with the time of the process."""
    await world.run()
    async with world.server() as (_, machine):
        await machine.launched(ROOT)
    found = started(A1, world)
    await asyncio.sleep(50)
    async with world.server(found) as (_, machine):
        action = await world.reaches(ROOT, Phase.RUNNING)
        assert action.started_at == found.at
        await world.succeed(machine, ROOT)
        await world.ended(ROOT)
    assert not machine.attempts


async def test_what_is_written_down_is_not_written_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new leader hears of everything that runs what the one before heard: of ten thousand pods that would be many writes."""
    await world.run()
    async with world.server() as (_, machine):
        await machine.launched(ROOT)
    found = started(A1, world)
    async with world.server(found):
        await world.reaches(ROOT, Phase.RUNNING)
    moved = []
    move = world.ledger.move
    monkeypatch.setattr(world.ledger, "move", lambda *told, **more: moved.append(told) or move(*told, **more))
    async with world.server(found) as (_, machine):
        await asyncio.sleep(50)
        assert not moved
        await world.succeed(machine, ROOT)
        await world.ended(ROOT)


async def test_a_process_that_ended_unseen_keeps_its_result(world: World) -> None:
    """It ended while no server ran: its files say how, and its exit when."""
    await world.run()
    async with world.server() as (_, machine):
        await machine.launched(ROOT)
        machine.begin(ROOT)
        await world.reaches(ROOT, Phase.RUNNING)
        await world.put(ROOT, "outputs.pb", b"")
    found = ended(A1, world, code=0)
    await asyncio.sleep(50)
    async with world.server(found) as (_, machine):
        details = await world.ended(ROOT)
        await machine.until(lambda: A1 in machine.forgotten)
    assert (details.action.phase, details.action.attempt, details.action.ended_at) == (Phase.SUCCEEDED, 1, found.at)


async def test_cleaning_up_after_others_does_not_hide_what_was_found(world: World) -> None:
    """An end that belongs to no live action is forgotten without any live one being judged before its own end is seen."""
    await world.run(spec(retries=1))
    gone = WorkId(ROOT._replace(run="r0"), 1)
    async with world.server() as (_, machine):
        await machine.launched(ROOT)
        machine.begin(ROOT)
        await world.reaches(ROOT, Phase.RUNNING)
    async with world.server(ended(gone, world), Ended(id=A1, at=world.clock.now(), exit=Exit(out_of_memory=True))) as (
        _,
        machine,
    ):
        await machine.launched(ROOT, 2)
        await world.succeed(machine, ROOT, 2)
        details = await world.ended(ROOT)
        assert gone in machine.forgotten
    assert details.attempts[0].error_info.code == "OOMKilled"


async def test_a_process_of_an_action_that_ended_is_killed(world: World) -> None:
    """The server died between the abort and the kill."""
    await world.run()
    await world.abort(ROOT)
    async with world.server(started(A1, world)) as (_, machine):
        await machine.until(lambda: A1 in machine.forgotten)
    assert [work for work, _ in machine.kills] == [A1]


async def test_a_process_of_an_earlier_attempt_is_killed_before_the_next_starts(world: World) -> None:
    """The server died between the record of a retry and the kill."""
    await world.run(spec(timeout=60.0, retries=1))
    async with world.server() as (_, machine):
        machine.obedient = False
        await machine.launched(ROOT)
        machine.begin(ROOT)
        await machine.until(lambda: machine.kills)
    async with world.server(started(A1, world)) as (_, machine):
        machine.obedient = False
        await machine.until(lambda: machine.kills)
        assert A2 not in machine.attempts
        machine.end(A1, signal=9)
        await machine.launched(ROOT, 2)
        await world.succeed(machine, ROOT, 2)
        details = await world.ended(ROOT)
    assert details.action.attempt == 2


async def test_the_end_of_an_earlier_attempt_does_not_hide_the_running_one(world: World) -> None:
    """The record of attempt 1 is still to be forgotten while attempt 2 runs: it goes on, and is not started twice."""
    await world.run(spec(retries=1))
    async with world.server() as (_, machine):
        await machine.launched(ROOT)
        await world.fail(machine, ROOT)
        await machine.launched(ROOT, 2)
        machine.begin(ROOT, 2)
        await world.reaches(ROOT, Phase.RUNNING, 2)
    async with world.server(started(A2, world), ended(A1, world, code=1)) as (controller, machine):
        await machine.until(lambda: A1 in machine.forgotten)
        await asyncio.sleep(5)
        assert controller.slots.active == 1
        await world.succeed(machine, ROOT, 2)
        details = await world.ended(ROOT)
    assert (details.action.phase, details.action.attempt, machine.kills) == (Phase.SUCCEEDED, 2, [])


async def test_a_process_that_nobody_knows_of_is_judged_by_its_files(world: World) -> None:
    """RUNNING in the ledger, unknown to the launcher: done if its outputs are there, else tried again at the system's cost."""
    other = ROOT._replace(run="r2")
    await world.run()
    await world.run(key=other)
    async with world.server() as (_, machine):
        for key in (ROOT, other):
            await machine.launched(key)
            machine.begin(key)
            await world.reaches(key, Phase.RUNNING)
    await world.put(ROOT, "outputs.pb", b"")
    async with world.server() as (_, machine):
        done = await world.ended(ROOT)
        await machine.launched(other, 2)
        await world.succeed(machine, other, 2)
        again = await world.ended(other)
    assert (done.action.phase, done.action.attempt) == (Phase.SUCCEEDED, 1)
    assert (again.action.phase, again.action.attempt, again.action.system_failures) == (Phase.SUCCEEDED, 2, 1)


async def test_an_adopted_process_keeps_what_it_asked_for(world: World) -> None:
    """After a restart a process of two CPUs counts two, so that nothing starts beside it on two."""
    await world.run(spec(cpu="2"))
    async with world.server() as (_, machine):
        await machine.launched(ROOT)
        machine.begin(ROOT)
        await world.reaches(ROOT, Phase.RUNNING)
    other = ROOT._replace(run="r2")
    async with world.server(started(A1, world)) as (controller, machine):
        await world.run(key=other)
        await asyncio.sleep(1)
        assert (controller.slots.waiting, list(machine.attempts)) == (1, [])
        await world.succeed(machine, ROOT)
        await machine.launched(other)
        await world.succeed(machine, other)
        await world.ended(other)


async def test_a_graceful_stop_costs_no_retry(world: World) -> None:
    """Tasks that the stop ended go on at the next start, whatever they say of it; neither budget is charged."""
    other = ROOT._replace(run="r2")
    await world.run()
    await world.run(key=other)
    async with world.server() as (controller, machine):
        for key in (ROOT, other):
            await machine.launched(key)
            machine.begin(key)
            await world.reaches(key, Phase.RUNNING)
        await world.put(other, "error.pb", b"\n\x10\n\x04Exit\x12\x08SIGTERM!")
        await controller.stop(grace=5.0)
    for key in (ROOT, other):
        action = await world.ledger.action(key)
        assert (action.phase, action.attempt, action.interruptions) == (Phase.QUEUED, 2, 1)
        assert (action.user_failures, action.system_failures) == (0, 0)
    async with world.server() as (_, machine):
        for key in (ROOT, other):
            await machine.launched(key, 2)
            await world.succeed(machine, key, 2)
            assert (await world.ended(key)).action.phase is Phase.SUCCEEDED


async def test_time_without_a_server_is_no_time_in_the_queue(world: World) -> None:
    """A laptop that was off overnight does not time out what waits since yesterday."""
    await world.run(spec(queued=60.0))
    await asyncio.sleep(3600)
    async with world.server() as (_, machine):
        await machine.launched(ROOT)
        await world.succeed(machine, ROOT)
        assert (await world.ended(ROOT)).action.phase is Phase.SUCCEEDED


async def test_a_parent_that_starts_again_leaves_its_slot_to_the_children_it_has(world: World) -> None:
    """On one slot, a parent is interrupted while its child waits: both end after the restart."""
    world.capacity = Capacity(cpu=1.0, memory=1 << 30)
    await world.run()
    async with world.server() as (controller, machine):
        await machine.launched(ROOT)
        machine.begin(ROOT)
        child = await world.child("c1")
        await world.reaches(ROOT, Phase.RUNNING)
        await controller.stop(grace=5.0)
    attempt = (await world.ledger.action(child)).attempt
    async with world.server() as (_, machine):
        await machine.launched(ROOT, 2)
        machine.begin(ROOT, 2)
        await machine.launched(child, attempt)
        await world.succeed(machine, child, attempt)
        await world.ended(child)
        await world.succeed(machine, ROOT, 2)
        assert (await world.ended(ROOT)).action.phase is Phase.SUCCEEDED


async def test_an_adopted_process_has_the_time_that_is_left(world: World) -> None:
    """A bound of 60 s counts from the start of the attempt, not of the server."""
    await world.run(spec(timeout=60.0))
    async with world.server() as (_, machine):
        await machine.launched(ROOT)
        machine.begin(ROOT)
        await world.reaches(ROOT, Phase.RUNNING)
        begun = world.clock.monotonic()
    found = started(A1, world)
    await asyncio.sleep(40)
    async with world.server(found) as (_, machine):
        details = await world.ended(ROOT)
        assert world.clock.monotonic() - begun == pytest.approx(60.0, abs=0.1)
        await machine.until(lambda: A1 in machine.forgotten)
    assert details.action.phase is Phase.TIMED_OUT


async def test_a_keeper_that_tells_an_old_end_again_harms_nobody(world: World) -> None:
    """A new keeper repeats what was not forgotten: the attempt that runs by now goes on."""
    await world.run(spec(retries=1))
    async with world.server() as (_, machine):
        await machine.launched(ROOT)
        await world.fail(machine, ROOT)
        await machine.launched(ROOT, 2)
        machine.begin(ROOT, 2)
        await world.reaches(ROOT, Phase.RUNNING, 2)
        machine.end(A1, code=1)
        await asyncio.sleep(1)
        await world.succeed(machine, ROOT, 2)
        details = await world.ended(ROOT)
    assert (details.action.phase, details.action.attempt) == (Phase.SUCCEEDED, 2)
    assert machine.forgotten.count(A1) == 2


async def test_an_end_heard_while_the_server_starts_is_not_lost(world: World) -> None:
    """The process ends after the launcher found it and before the actions are known."""
    await world.run()
    async with world.server() as (_, machine):
        await machine.launched(ROOT)
        machine.begin(ROOT)
        await world.reaches(ROOT, Phase.RUNNING)
    await world.put(ROOT, "outputs.pb", b"")
    async with world.server(started(A1, world), heard=[ended(A1, world, code=0)]) as (_, machine):
        details = await world.ended(ROOT)
    assert (details.action.phase, details.action.attempt) == (Phase.SUCCEEDED, 1)


@pytest.mark.parametrize("place", ["process", "pod"])
async def test_bounds_hold_across_a_restart(world: World, place: str) -> None:
    """A run that may compute two at a time: what outlived the server counts, so nothing begins before one of them has ended."""
    if place == "pod":
        world.describe = lambda _: Pod(manifest={"spec": {"containers": [{"name": "main", "image": "i"}]}}, primary="main")
    await world.run(run_spec=run_pb2.RunSpec(max_action_concurrency=2))
    async with world.server() as (_, machine):
        await machine.launched(ROOT)
        machine.begin(ROOT)
        children = [await world.child(name) for name in ("c1", "c2", "c3")]
        for child in children[:2]:
            await machine.launched(child)
            machine.begin(child)
            await world.reaches(child, Phase.RUNNING)
        assert WorkId(children[2], 1) not in machine.attempts
    found = [started(WorkId(key, 1), world) for key in (ROOT, *children[:2])]
    async with world.server(*found) as (controller, machine):
        await asyncio.sleep(5)
        assert (controller.slots.active, controller.slots.waiting, machine.attempts) == (2, 1, {})
        await world.succeed(machine, children[0])
        attempt = await machine.launched(children[2])
        assert place == "process" or attempt.work.manifest["spec"]["containers"]  # type: ignore[union-attr]  # a Pod
        assert controller.slots.active == 2


async def test_queues_bound_runs_together(world: World) -> None:
    """One of those that name it begins when the other has ended."""
    world.queues = {"narrow": 1}
    other = ROOT._replace(run="r2")
    for key in (ROOT, other):
        await world.run(key=key, run_spec=run_pb2.RunSpec(queue="narrow"))
    async with world.server() as (controller, machine):
        await machine.launched(ROOT)
        await asyncio.sleep(1)
        assert WorkId(other, 1) not in machine.attempts
        await world.succeed(machine, ROOT)
        await machine.launched(other)
        assert (controller.slots.active, controller.slots.waiting) == (1, 0)
