"""The controller between a real ledger and a machine that the test plays, under virtual time."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from flyteidl2.task import task_definition_pb2
from flyteidl2.workflow import run_definition_pb2

from flyte_unified.core.clock import SECOND
from flyte_unified.core.errors import Internal, Unavailable
from flyte_unified.core.phases import Phase
from flyte_unified.executor.slots import Capacity
from flyte_unified.launchers.api import WorkId
from flyte_unified.ledger.api import Move
from flyte_unified.plugins.api import Process, Resources
from tests.unit.executor.world import ROOT, RUN, World, seconds_between, spec

pytestmark = pytest.mark.virtual_time

A1 = WorkId(ROOT, 1)
A2 = WorkId(ROOT, 2)


def phases(attempt: run_definition_pb2.ActionAttempt) -> list[Phase]:
    return [Phase(step.phase) for step in attempt.phase_transitions]


async def test_an_action_goes_through_its_phases_and_leaves_nothing(world: World) -> None:
    """QUEUED, INITIALIZING, RUNNING, SUCCEEDED; its process is forgotten, its slot free, its log linked."""
    await world.run()
    async with world.server() as (controller, machine):
        attempt = await machine.launched(ROOT)
        assert isinstance(attempt.work, Process)
        assert attempt.work.arguments[-1] == f"{world.base}/r1/a0/1"
        await world.succeed(machine, ROOT)
        details = await world.ended(ROOT)
        await machine.until(lambda: A1 in machine.forgotten)
    assert phases(details.attempts[0]) == [Phase.QUEUED, Phase.INITIALIZING, Phase.RUNNING, Phase.SUCCEEDED]
    assert details.action.output_uri == f"{world.base}/r1/a0/1"
    assert details.attempts[0].log_info[0].uri == "/log/a0/1"
    assert (controller.live, controller.slots.live) == (0, 0)


async def test_a_program_without_flyte_leaves_its_empty_outputs_to_us(world: World) -> None:
    """It succeeds by its exit code, and whoever waits for it finds the file that Flyte's runtime would have left."""
    world.describe = lambda context: Process(arguments=("java",), environment={}, system={}, resources=Resources())
    await world.run(spec("spark", command="--class"))
    async with world.server() as (_, machine):
        await machine.launched(ROOT)
        machine.begin(ROOT)
        machine.end(A1, code=0)
        details = await world.ended(ROOT)
    assert details.action.phase is Phase.SUCCEEDED
    assert await world.store.get(f"{details.action.output_uri}/outputs.pb") == b""


async def test_a_user_failure_is_retried_with_its_backoff(world: World) -> None:
    """Retries wait as the task asks: base, then base times factor; the last failure ends the action."""
    await world.run(spec(retries=2, backoff=10.0))
    async with world.server() as (_, machine):
        for attempt in (1, 2, 3):
            await machine.launched(ROOT, attempt)
            await world.fail(machine, ROOT, attempt)
        details = await world.ended(ROOT)
    assert details.action.phase is Phase.FAILED
    queued = [
        (a.phase_transitions[1].start_time.ToMicroseconds() - a.start_time.ToMicroseconds()) / SECOND for a in details.attempts
    ]
    assert [round(wait) for wait in queued] == [0, 10, 20]
    assert [Phase(attempt.phase) for attempt in details.attempts] == [Phase.FAILED] * 3


async def test_an_unrecoverable_error_is_not_retried(world: World) -> None:
    """The task's own verdict stands against its retries."""
    await world.run(spec(retries=5))
    async with world.server() as (_, machine):
        await machine.launched(ROOT)
        await world.fail(machine, ROOT, recoverable=False)
        details = await world.ended(ROOT)
    assert (details.action.phase, details.action.attempt) == (Phase.FAILED, 1)


async def test_crashes_have_a_budget_of_their_own(world: World) -> None:
    """A task without retries that crashes is tried again, system_retries times, and the backoff grows."""
    await world.run()
    async with world.server(system_retries=2) as (_, machine):
        for attempt in (1, 2, 3):
            await machine.launched(ROOT, attempt)
            machine.begin(ROOT, attempt)
            machine.end(WorkId(ROOT, attempt), signal=9)
        details = await world.ended(ROOT)
    assert (details.action.phase, details.action.attempt, details.action.system_failures) == (Phase.FAILED, 3, 2)
    assert details.action.user_failures == 0
    assert seconds_between(details.action.created_at, world.clock.now()) == pytest.approx(3.0, abs=0.1)


async def test_an_abort_while_queued_frees_the_claim(world: World) -> None:
    """What waits for a slot and is aborted never starts."""
    world.capacity = Capacity(cpu=1.0, memory=1 << 30)
    other = ROOT._replace(run="r2")
    await world.run()
    async with world.server() as (controller, machine):
        await machine.launched(ROOT)
        await world.run(key=other)
        await asyncio.sleep(1)
        assert controller.slots.waiting == 1
        await world.abort(other)
        await asyncio.sleep(1)
        assert (controller.slots.waiting, controller.live) == (0, 1)
        await world.succeed(machine, ROOT)
        await world.ended(ROOT)
    assert list(machine.attempts) == [A1]


async def test_an_abort_kills_the_process_and_waits_for_its_end(world: World) -> None:
    """Aborted at once for its watchers; its slot is free only when its process is gone. The launcher gets the grace."""
    await world.run()
    async with world.server(kill_grace=7.0) as (controller, machine):
        machine.obedient = False
        await machine.launched(ROOT)
        machine.begin(ROOT)
        await world.reaches(ROOT, Phase.RUNNING)
        await world.abort(ROOT)
        await machine.until(lambda: machine.kills)
        assert controller.slots.live == 1
        machine.end(A1, signal=9)
        await machine.until(lambda: A1 in machine.forgotten)
        await asyncio.sleep(1)
        assert (controller.slots.live, controller.live) == (0, 0)
    assert machine.kills == [(A1, 7.0)]
    details = await world.ledger.details(ROOT)
    assert (details.action.phase, len(details.attempts)) == (Phase.ABORTED, 1)


async def test_an_abort_between_launch_and_start_is_not_lost(world: World) -> None:
    """The process that was asked for is killed, whenever it comes into being."""
    await world.run()
    async with world.server() as (_, machine):
        machine.obedient = False
        await machine.launched(ROOT)
        await world.abort(ROOT)
        await machine.until(lambda: machine.kills)
        machine.begin(ROOT)
        machine.end(A1, signal=15)
        await machine.until(lambda: A1 in machine.forgotten)
    assert (await world.ledger.action(ROOT)).phase is Phase.ABORTED


async def test_a_finished_parent_takes_its_children_along(world: World) -> None:
    """Children of an action that ended are aborted and their processes killed."""
    await world.run()
    async with world.server() as (_, machine):
        await machine.launched(ROOT)
        machine.begin(ROOT)
        child = await world.child("c1")
        await machine.launched(child)
        machine.begin(child)
        await world.reaches(child, Phase.RUNNING)
        await world.succeed(machine, ROOT)
        details = await world.ended(child)
        await machine.until(lambda: machine.kills)
    assert details.action.phase is Phase.ABORTED
    assert details.action.reason == "its parent a0 ended (SUCCEEDED)"


@pytest.mark.parametrize(
    ("bound", "code", "launches"),
    [
        ("timeout", "MAX_RUNTIME_EXCEEDED", True),
        ("queued", "QUEUED_TIMEOUT_EXCEEDED", False),
        ("deadline", "DEADLINE_EXCEEDED", True),
    ],
)
async def test_bounds_end_an_action_in_time(world: World, bound: str, code: str, launches: bool) -> None:
    """Runtime, queue and deadline: TIMED_OUT with the code that the SDK knows, when the bound has passed and not before."""
    await world.run(spec(**{bound: 60.0}))  # type: ignore[arg-type]  # one of the bounds
    async with world.server() as (_, machine):
        await machine.launched(ROOT)
        if launches:
            machine.begin(ROOT)
        details = await world.ended(ROOT)
        await machine.until(lambda: A1 in machine.forgotten)
    error = details.action.execution_error()
    assert (details.action.phase, error.code if error else "") == (Phase.TIMED_OUT, code)
    assert details.action.ended_at is not None
    assert seconds_between(details.action.created_at, details.action.ended_at) == pytest.approx(60.0, abs=0.1)


async def test_a_timed_out_attempt_is_retried_after_its_process_is_gone(world: World) -> None:
    """Two attempts of one action never run side by side."""
    await world.run(spec(timeout=60.0, retries=1))
    async with world.server() as (_, machine):
        machine.obedient = False
        await machine.launched(ROOT)
        machine.begin(ROOT)
        await machine.until(lambda: machine.kills)
        await asyncio.sleep(30)
        assert A2 not in machine.attempts
        machine.end(A1, signal=9)
        await machine.launched(ROOT, 2)
        await world.succeed(machine, ROOT, 2)
        details = await world.ended(ROOT)
    assert [Phase(attempt.phase) for attempt in details.attempts] == [Phase.TIMED_OUT, Phase.SUCCEEDED]


async def test_a_timer_needs_no_process(world: World) -> None:
    """A core-sleep succeeds when its time is over, across a restart too."""
    await world.run(spec("core-sleep"), length=100.0)
    async with world.server():
        await world.reaches(ROOT, Phase.RUNNING)
        await asyncio.sleep(40)
    await asyncio.sleep(20)
    async with world.server() as (_, machine):
        details = await world.ended(ROOT)
    assert not machine.attempts
    assert details.action.ended_at is not None
    assert seconds_between(details.action.created_at, details.action.ended_at) == pytest.approx(100.0, abs=0.1)


async def test_a_stopping_server_starts_nothing(world: World) -> None:
    """What is queued when the stop begins stays queued."""
    world.capacity = Capacity(cpu=1.0, memory=1 << 30)
    other = ROOT._replace(run="r2")
    await world.run()
    async with world.server() as (controller, machine):
        await machine.launched(ROOT)
        machine.begin(ROOT)
        await world.run(key=other)
        await world.reaches(ROOT, Phase.RUNNING)
        await controller.stop(grace=5.0)
    assert list(machine.attempts) == [A1]
    assert (await world.ledger.action(other)).phase is Phase.QUEUED


async def test_the_machines_sleep_counts_for_no_bound(world: World) -> None:
    """An attempt may run for 60 s; the machine sleeps for an hour in between."""
    await world.run(spec(timeout=60.0))
    async with world.server() as (_, machine):
        await machine.launched(ROOT)
        machine.begin(ROOT)
        await world.reaches(ROOT, Phase.RUNNING)
        begun = world.clock.monotonic()
        await asyncio.sleep(30)
        world.clock.asleep = 3600 * SECOND
        details = await world.ended(ROOT)
        assert world.clock.monotonic() - begun == pytest.approx(60.0, abs=0.1)
    assert details.action.phase is Phase.TIMED_OUT


async def test_a_machine_that_cannot_start_a_task_fails_it(world: World) -> None:
    """The launcher's reason is the user's message."""
    await world.run()
    async with world.server() as (controller, machine):
        machine.refusal = Internal("there is no such interpreter")
        details = await world.ended(ROOT)
        await asyncio.sleep(1)
        assert (controller.live, controller.slots.live) == (0, 0)
    error = details.action.execution_error()
    assert error is not None
    assert (error.code, error.message) == ("LaunchFailed", "there is no such interpreter")


@pytest.mark.parametrize("error", [Unavailable("no keeper for now"), OSError(28, "No space left on device")])
async def test_a_launch_that_failed_for_now_is_tried_again(world: World, error: Exception) -> None:
    """What may pass costs the task nothing."""
    await world.run()
    async with world.server() as (_, machine):
        machine.refusal = error
        await asyncio.sleep(3)
        machine.refusal = None
        await machine.launched(ROOT)
        await world.succeed(machine, ROOT)
        details = await world.ended(ROOT)
    assert (details.action.phase, details.action.attempt) == (Phase.SUCCEEDED, 1)


async def test_a_parent_gives_its_slot_to_its_children(world: World) -> None:
    """On one slot, a parent and its two children end."""
    world.capacity = Capacity(cpu=1.0, memory=1 << 30)
    await world.run()
    async with world.server() as (controller, machine):
        await machine.launched(ROOT)
        machine.begin(ROOT)
        children = [await world.child("c1"), await world.child("c2")]
        for child in children:
            await machine.launched(child)
            assert (controller.slots.active, controller.slots.live) == (1, 2)
            await world.succeed(machine, child)
            await world.ended(child)
        await world.succeed(machine, ROOT)
        await world.ended(ROOT)


async def test_who_ends_gives_its_slot_to_its_parent_first(world: World) -> None:
    """Whoever else waits gets it when the parent has ended too: on one slot, one computes."""
    world.capacity = Capacity(cpu=1.0, memory=1 << 30)
    await world.run()
    stranger = RUN._replace(run="r2").action("a0")
    async with world.server() as (controller, machine):
        await machine.launched(ROOT)
        machine.begin(ROOT)
        child = await world.child("c1")
        await machine.launched(child)
        await world.run(key=stranger)
        await world.succeed(machine, child)
        await machine.until(lambda: WorkId(child, 1) in machine.forgotten)
        await asyncio.sleep(5)
        assert (controller.slots.active, controller.slots.waiting) == (1, 1)
        await world.succeed(machine, ROOT)
        await machine.launched(stranger)


async def test_beyond_the_process_limit_an_action_fails_and_names_the_setting(world: World) -> None:
    """Parents that wait have taken every process: the next child can never run."""
    world.capacity = replace(world.capacity, watermark=1, limit=1)
    await world.run()
    async with world.server() as (_, machine):
        await machine.launched(ROOT)
        machine.begin(ROOT)
        child = await world.child("c1")
        details = await world.ended(child)
        await world.succeed(machine, ROOT)
        await world.ended(ROOT)
    error = details.action.execution_error()
    assert details.action.phase is Phase.FAILED
    assert error is not None
    assert error.code == "ProcessLimit"
    assert "execution.process_limit" in error.message


async def test_a_cached_result_needs_no_process(world: World) -> None:
    """The second run of the same key takes the first one's outputs."""
    other = ROOT._replace(run="r2")
    await world.run(cache_key="k")
    async with world.server() as (_, machine):
        await machine.launched(ROOT)
        await world.succeed(machine, ROOT)
        await world.ended(ROOT)
        await world.run(key=other, cache_key="k")
        details = await world.ended(other)
    assert (details.action.phase, details.action.output_uri) == (Phase.SUCCEEDED, f"{world.base}/r1/a0/1")
    assert list(machine.attempts) == [A1]


async def test_a_move_of_somebody_else_in_between_is_respected(world: World) -> None:
    """An action that was ended while its process began is not revived."""
    await world.run()
    async with world.server() as (_, machine):
        await machine.launched(ROOT)
        moved = asyncio.create_task(world.ledger.move(ROOT, Move(to=Phase.ABORTED, reason="enough")))
        machine.begin(ROOT)
        await moved
        await machine.until(lambda: A1 in machine.forgotten)
    assert (await world.ledger.action(ROOT)).phase is Phase.ABORTED


async def test_a_reservation_is_waited_for(world: World) -> None:
    """Of two runs of one serialized key, the second waits for the first one's result and needs no process."""
    task = spec()
    task.task_template.metadata.cache_serializable = True
    other = ROOT._replace(run="r2")
    await world.run(task, cache_key="k")
    async with world.server() as (_, machine):
        await machine.launched(ROOT)
        await world.run(task, key=other, cache_key="k")
        await world.reaches(other, Phase.WAITING_FOR_RESOURCES)
        await world.succeed(machine, ROOT)
        details = await world.ended(other)
    assert details.action.output_uri == f"{world.base}/r1/a0/1"
    assert list(machine.attempts) == [A1]


@pytest.mark.parametrize(
    ("task", "code"),
    [
        (spec("mpi"), "UnsupportedTaskType"),
        (spec(command="/bin/echo"), "BadTaskSpecification"),
        (spec(gpu="1"), "ResourcesUnavailable"),
        (spec(cpu="many"), "BadTaskSpecification"),
    ],
)
async def test_what_cannot_run_here_fails_at_once(world: World, task: task_definition_pb2.TaskSpec, code: str) -> None:
    """With a word for the user, and without a process."""
    await world.run(task)
    async with world.server() as (controller, machine):
        details = await world.ended(ROOT)
        assert (controller.slots.live, machine.attempts) == (0, {})
    error = details.action.execution_error()
    assert error is not None
    assert (details.action.phase, error.code) == (Phase.FAILED, code)


async def test_runs_that_are_held_begin_when_they_are_let(world: World) -> None:
    """What has begun goes on with its children; a run that has not waits, and time that it is held is no time in the queue."""
    world.capacity = Capacity(cpu=1.0, memory=1 << 30)
    await world.run()
    async with world.server() as (controller, machine):
        await machine.launched(ROOT)
        machine.begin(ROOT)
        await world.reaches(ROOT, Phase.RUNNING)
        second = await world.run(spec(queued=5.0), key=ROOT.run_key._replace(run="r2").action("a0"))
        await asyncio.sleep(1)
        assert controller.slots.waiting == 1
        controller.hold_runs(True)
        child = await world.child("c1")
        await machine.launched(child)
        await world.succeed(machine, child)
        await world.ended(child)
        await asyncio.sleep(30)
        await world.succeed(machine, ROOT)
        assert [count async for count in controller.running()][-1] == 0
        assert not any(work.action == second for work in machine.attempts)
        controller.hold_runs(False)
        await machine.launched(second)
