"""The scheduler in virtual time: every fire is one run, whatever happens to whoever makes it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest
from flyteidl2.project import project_service_pb2
from flyteidl2.task import run_pb2
from flyteidl2.workflow import run_definition_pb2, run_service_pb2
from structlog.testing import capture_logs

from flyte_unified.core.clock import SECOND, Micros, micros
from flyte_unified.core.context import CallContext
from flyte_unified.core.errors import Internal, Unavailable
from flyte_unified.core.ids import chosen_run_name
from flyte_unified.ledger.api import Action
from flyte_unified.triggers.api import TriggerKey
from flyte_unified.triggers.catchup import ANNOTATION, CatchUp, Policy
from flyte_unified.triggers.scheduler import Scheduler, run_name
from tests.unit.triggers.conftest import ShiftedClock
from tests.unit.triggers.world import CTX, DOMAIN, MINUTE, PROJECT, TASK, InlineDatabase, World, cron, rate, task_spec
from tests.virtual_time import EPOCH

pytestmark = pytest.mark.virtual_time

KEY = TriggerKey(PROJECT, DOMAIN, TASK, "t")


@asynccontextmanager
async def running(scheduler: Scheduler) -> AsyncIterator[None]:
    await scheduler.start()
    try:
        yield
    finally:
        await scheduler.close()


async def pass_by(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def runs(world: World) -> list[Action]:
    return await world.ledger.live()


def minutes(*numbers: int) -> list[int]:
    return [EPOCH + number * MINUTE for number in numbers]


async def test_fires_on_time(timed: World) -> None:
    """Each at its time and with it as its start; the run is the schedule's, in the name of who deployed it."""
    await timed.deploy_task()
    await timed.deploy(rate(1))
    async with running(timed.scheduler()):
        await pass_by(60 * 3 + 1)
    assert timed.times == minutes(1, 2, 3)
    for root, fired in zip(await runs(timed), timed.fired, strict=True):
        kept, spec = await timed.ledger.run(root.key.run_key)
        assert root.key.run == run_name(KEY, micros(fired.run_start_time)) == chosen_run_name(root.key.run)
        assert kept.created_at == kept.start_time == micros(spec.run_start_time) == micros(fired.run_start_time)
        assert (kept.source, kept.created_by) == (run_definition_pb2.RUN_SOURCE_SCHEDULE_TRIGGER, "grace")
        assert (kept.trigger_name, kept.trigger_task, kept.trigger_revision) == ("t", TASK, 1)
    trigger = await timed.triggers.latest(KEY)
    assert trigger is not None
    assert trigger.next_fire == EPOCH + 4 * MINUTE


async def test_what_is_deployed_while_it_runs(timed: World) -> None:
    """New, paused, activated, deployed anew, deleted: each counts from the moment on."""
    await timed.deploy_task()
    async with running(timed.scheduler()):
        await pass_by(30)
        await timed.deploy(cron("* * * * *"))  # the loop begins 20 seconds past a full minute
        await pass_by(60)
        assert timed.times == [EPOCH + 40 * SECOND]
        await timed.switch(active=False)
        await pass_by(600)
        assert len(timed.fired) == 1
        await timed.switch(active=True)
        await pass_by(60)
        assert timed.times[1:] == [EPOCH + 700 * SECOND]
        await timed.deploy(rate(5))
        await pass_by(301)
        assert timed.times[2:] == [EPOCH + 1050 * SECOND]
        await timed.delete("t")
        await pass_by(3600)
    assert len(timed.fired) == 3


async def test_missed_fires_are_caught_up(timed: World) -> None:
    """After a time without a server: each becomes a run with its own time, oldest first, and what is new comes as ever."""
    await timed.deploy_task()
    await timed.deploy(rate(1))
    await pass_by(60 * 5 + 30)
    async with running(timed.scheduler()):
        await pass_by(1)
        assert timed.times == minutes(1, 2, 3, 4, 5)
        await pass_by(30)
    assert timed.times[5:] == minutes(6)


@pytest.mark.parametrize(
    ("policy", "limit", "own", "expected"),
    [
        (Policy.ALL, 2, None, (4, 5)),
        (Policy.LATEST, 100, None, (5,)),
        (Policy.SKIP, 100, None, ()),
        (Policy.ALL, 100, "latest", (5,)),
        (Policy.SKIP, 100, "all", (1, 2, 3, 4, 5)),
    ],
)
async def test_catching_up_by_policy(
    timed: World, policy: Policy, limit: int, own: str | None, expected: tuple[int, ...]
) -> None:
    """The settings' or the trigger's own; whatever is dropped is logged, and the schedule goes on."""
    await timed.deploy_task()
    run_spec = run_pb2.RunSpec()
    if own is not None:
        run_spec.annotations.values[ANNOTATION] = own
    await timed.deploy(rate(2), run_spec=run_spec)
    await pass_by(60 * 11 + 30)
    with capture_logs() as logs:
        async with running(timed.scheduler(CatchUp(policy, limit))):
            await pass_by(1)
            assert timed.times == minutes(*(2 * number for number in expected))
            await pass_by(60)
    assert timed.times[len(expected) :] == minutes(12)
    assert any("not all of it" in line["event"] for line in logs) == (expected != (1, 2, 3, 4, 5))


async def test_a_crash_between_the_run_and_the_note_of_it(timed: World) -> None:
    """The run is there, and the next time is not stored: the next server makes no second one."""
    await timed.deploy_task()
    await timed.deploy(rate(1))
    advance = timed.triggers.advance

    async def crash(*_: object) -> None:
        await asyncio.Event().wait()

    timed.triggers.advance = crash  # type: ignore[method-assign,assignment]
    async with running(timed.scheduler()):
        await pass_by(61)
    assert (timed.times, len(await runs(timed))) == (minutes(1), 1)
    timed.triggers.advance = advance  # type: ignore[method-assign]
    async with running(timed.scheduler()):
        await pass_by(60)
    assert timed.times == minutes(1, 1, 2)
    assert len(await runs(timed)) == 2


async def test_a_deployment_between_the_run_and_the_note_of_it(timed: World) -> None:
    """The same, where the trigger has another run spec by then: the fire was a run already, and is no other."""
    await timed.deploy_task()
    await timed.deploy(rate(1))
    await pass_by(60)
    stale = await timed.triggers.latest(KEY)
    assert stale is not None
    await timed.scheduler()._start(stale, cast("Micros", stale.next_fire))
    await timed.deploy(rate(1), run_spec=run_pb2.RunSpec(queue="other"))
    async with running(timed.scheduler()):
        await pass_by(61)
    assert timed.times == minutes(1, 1, 2)
    assert len(await runs(timed)) == 2


async def test_a_deployment_while_a_fire_is_due(timed: World) -> None:
    """What is due is started as the newest revision says, once."""
    await timed.deploy_task()
    await timed.deploy(rate(1))
    await pass_by(90)
    await timed.deploy_task(spec=task_spec(version="v2"))
    await timed.deploy(rate(1), version="v2")
    async with running(timed.scheduler()):
        await pass_by(1)
    assert timed.times == minutes(1)
    (root,) = await runs(timed)
    assert root.task.version == "v2"
    assert (await timed.ledger.run(root.key.run_key))[0].trigger_revision == 2


async def test_a_deletion_while_a_fire_is_under_way(timed: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then there is no run, and nothing is tried again; a trigger that is deployed once more begins anew."""
    await timed.deploy_task()
    await timed.deploy(rate(1))
    create = timed.creator.create

    async def overtaken(message: run_service_pb2.CreateRunRequest, ctx: CallContext) -> run_service_pb2.CreateRunResponse:
        monkeypatch.undo()
        await timed.delete("t")
        return await create(message, ctx)

    monkeypatch.setattr(timed.creator, "create", overtaken)
    scheduler = timed.scheduler()
    with capture_logs() as logs:
        async with running(scheduler):
            await pass_by(200)
            assert scheduler.standing == (0, None, 0)
            assert await runs(timed) == []
            await timed.deploy(rate(1))
            await pass_by(61)
    assert timed.times == [*minutes(1), EPOCH + 260 * SECOND]
    assert len(await runs(timed)) == 1
    assert [entry["event"] for entry in logs] == ["a fire was refused, and is dropped"]


async def test_two_leaders(timed: World) -> None:
    """One that does not know yet that it leads no more makes the same runs as the other: no more than one of each."""
    await timed.deploy_task()
    await timed.deploy(rate(1))
    async with running(timed.scheduler()), running(timed.scheduler()):
        await pass_by(60 * 4 + 1)
    assert sorted(root.created_at for root in await runs(timed)) == minutes(1, 2, 3, 4)


async def test_a_fire_that_fails_is_tried_again(timed: World) -> None:
    """After one second, two, four; it becomes the run that it was to be, and what came due meanwhile follows."""
    await timed.deploy_task()
    await timed.deploy(rate(1))
    faults: list[Exception] = [Unavailable("away"), Internal("no"), RuntimeError("a fault of ours")]
    timed.refusing.extend(faults)
    with capture_logs() as logs:
        async with running(timed.scheduler()):
            await pass_by(60 + 6.9)
            assert timed.fired == []
            await pass_by(0.2)
            assert timed.times == minutes(1)
            timed.refusing.extend([Unavailable("away")] * 7)
            await pass_by(60 * 5)
    assert timed.times == minutes(1, 2, 3, 4, 5, 6)
    (root, *_) = await runs(timed)
    assert (root.created_at, (await timed.ledger.run(root.key.run_key))[0].start_time) == (
        EPOCH + 67 * SECOND,
        EPOCH + MINUTE,
    )
    assert [line["wait"] for line in logs if "tried again" in line["event"]][:3] == [1, 2, 4]


async def test_a_change_is_a_reason_to_try_at_once(timed: World) -> None:
    """Who mends a trigger need not wait for its next try."""
    await timed.deploy_task()
    await timed.deploy(rate(100))
    timed.refusing.extend([Unavailable("away")] * 6)
    async with running(timed.scheduler()):
        await pass_by(6000 + 40)
        assert timed.fired == []
        assert not timed.refusing
        await timed.deploy(rate(100))
        await pass_by(0.1)
    assert timed.times == minutes(100)


async def test_a_fire_that_is_refused_is_dropped(timed: World) -> None:
    """A project that takes no runs: nothing is tried again, it is said in the log, and later fires come."""
    await timed.deploy_task()
    await timed.deploy(rate(1))
    archived = project_service_pb2.PROJECT_STATE_ARCHIVED
    await timed.projects.update(project_service_pb2.Project(id=PROJECT, state=archived))
    with capture_logs() as logs:
        async with running(timed.scheduler()):
            await pass_by(100)
            assert await runs(timed) == []
            await timed.projects.update(project_service_pb2.Project(id=PROJECT))
            await pass_by(21)
    assert [root.created_at for root in await runs(timed)] == minutes(2)
    assert [line["log_level"] for line in logs if "refused" in line["event"]] == ["error"]


async def test_a_database_that_is_away(timed: World, inline: InlineDatabase) -> None:
    """At the start, and when a trigger is due: it is asked again."""
    await timed.deploy_task()
    await timed.deploy(rate(1))
    inline.failing.extend([Unavailable("away"), RuntimeError("a fault"), Unavailable("away")])
    async with running(timed.scheduler()):
        await pass_by(59)
        inline.failing.append(Unavailable("away"))
        await pass_by(10)
    assert timed.times == minutes(1)


async def test_a_clock_that_is_set(timed: World) -> None:
    """Forward: what was passed over is caught up within half a minute, as after a sleep. Backward: nothing comes twice."""
    clock = cast("ShiftedClock", timed.clock)
    await timed.deploy_task()
    await timed.deploy(rate(60))
    async with running(timed.scheduler()):
        await pass_by(10)
        clock.ahead = 130 * MINUTE
        await pass_by(30)
        assert timed.times == minutes(60, 120)
        clock.ahead = 0
        await pass_by(179 * 60)
        assert timed.times == minutes(60, 120)
        await pass_by(60)
    assert timed.times == minutes(60, 120, 180)


async def test_what_others_change_is_heard_of(timed: World, inline: InlineDatabase) -> None:
    """A replica that leads hears of what another stored, by its notice, or reads everything when notices were lost."""
    await timed.deploy_task()
    scheduler = timed.scheduler()
    tell, timed.triggers._tell = timed.triggers._tell, lambda key: None  # type: ignore[method-assign]
    async with running(scheduler):
        await pass_by(1)
        await timed.deploy(rate(1), "a")
        await timed.deploy(rate(1), "b")
        await pass_by(100)
        assert timed.fired == []
        timed.triggers._tell = tell  # type: ignore[method-assign]
        timed.triggers.noticed(inline.notices[0])
        await pass_by(1)
        assert [fired.trigger_name.name for fired in timed.fired] == ["a"]
        timed.triggers.noticed(None)
        await pass_by(1)
    assert [fired.trigger_name.name for fired in timed.fired] == ["a", "b"]


async def test_many_at_one_time(timed: World) -> None:
    """A hundred that are due together all come, and no more than sixteen at once."""
    await timed.deploy_task()
    for number in range(100):
        await timed.deploy(cron("@daily"), f"t{number}")
    now = most = 0
    create = timed.creator.create

    async def slow(message: object, ctx: object) -> object:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(1)
        now -= 1
        return await create(message, CTX)  # type: ignore[arg-type]

    timed.creator.create = slow  # type: ignore[method-assign,assignment]
    async with running(timed.scheduler()):
        await pass_by(86_400)
    assert (len(await runs(timed)), most) == (100, 16)


async def test_ten_thousand_that_wait_cost_nothing(timed: World, inline: InlineDatabase) -> None:
    """No look at the database in an hour, and of the processor not a hundredth of a second."""
    await timed.deploy_task()
    await timed.deploy(rate(7 * 24 * 60))
    (known,) = await timed.triggers.scheduled()

    async def many() -> list[tuple[TriggerKey, Micros]]:
        return [(known[0]._replace(name=f"t{number}"), Micros(known[1] + number)) for number in range(10_000)]

    timed.triggers.scheduled = many  # type: ignore[method-assign]
    async with running(timed.scheduler()):
        await pass_by(1)
        asked, began = inline.asked, time.process_time()
        await pass_by(3600)
        assert inline.asked == asked
        assert time.process_time() - began < 0.25
    assert timed.fired == []


async def test_changes_leave_nothing_behind(timed: World) -> None:
    """A trigger that is deployed over and over has one place in the heap, or a few until they are cleared away."""
    await timed.deploy_task()
    scheduler = timed.scheduler()
    async with running(scheduler):
        for number in range(300):
            await timed.deploy(rate(10 + number))
            await pass_by(0)
        await pass_by(0.1)
        assert len(scheduler._heap) < 100
        await pass_by(60 * 310)
    assert timed.times == minutes(309)


async def test_a_scheduler_may_start_again(timed: World) -> None:
    """Who leads, loses the lead and wins it again goes on; closed twice, or before it began, is closed."""
    await timed.deploy_task()
    await timed.deploy(rate(1))
    scheduler = timed.scheduler()
    await scheduler.close()
    for _ in range(3):
        async with running(scheduler):
            await pass_by(61)
    await scheduler.close()
    assert timed.times == minutes(1, 2, 3)
