"""What is owed is sent, whatever dies and whoever does not answer; under virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
import structlog.testing
from flyteidl2.task import run_pb2

from flyte_unified.core.errors import FailedPrecondition, Unavailable
from flyte_unified.core.phases import Phase
from flyte_unified.ledger.api import Action, Move
from flyte_unified.net.webhooks import Later
from flyte_unified.notifications.model import Channel, Delivery
from tests.unit.notifications.world import KEPT, PAUSED, Receivers, World, asking, email, rule, webhook, world_of
from tests.unit.triggers.world import InlineDatabase
from tests.virtual_time import LoopClock

pytestmark = pytest.mark.virtual_time

FAILED = int(Phase.FAILED)
ASKED = asking(rule(webhook()))


class Slow(Receivers):
    """Gets it, and takes a second to say so; of the run r0 nearly a minute."""

    async def send(self, each: Delivery, action: Action) -> None:
        await super().send(each, action)
        await asyncio.sleep(50 if action.key.run == "r0" else 1)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    database = InlineDatabase()
    await database.start()
    world = world_of(LoopClock(), database)
    yield world
    world.ledger.changes.close()
    await database.stop()


async def test_an_end_is_told_by_the_rules_that_ask_for_it(world: World) -> None:
    """By each way of a rule; other rules' are owed no more. A run that asks for nothing owes nothing."""
    both = webhook()
    both.MergeFrom(email("a@b"))
    root = await world.run(asking(rule(both), rule(webhook(), FAILED)))
    silent = await world.run(run_pb2.RunSpec(), "silent")
    async with world.leading() as (postman, receivers):
        assert len(await world.owed(root)) == 3
        await world.end(root)
        await world.end(silent)
        await asyncio.sleep(1)
        assert [channel for _, _, channel in receivers.sent] == [Channel.WEBHOOK, Channel.EMAIL]
        assert (postman.delivered, postman.given_up) == (2, 0)
    assert await world.owed(root) == []


async def test_what_fails_is_tried_again_with_growing_waits(world: World) -> None:
    """One second, then twice as long each time, up to the longest; always under the same key."""
    root = await world.run(ASKED)
    receivers = Receivers(answers=[Unavailable("h answered 503")] * 8)
    times = []
    async with world.leading(receivers):
        await world.end(root)
        while len(times) < 9:
            await asyncio.sleep(0.01)
            times += [asyncio.get_running_loop().time()] * (len(receivers.sent) - len(times))
    waits = [round(later - earlier) for earlier, later in pairwise(times)]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert len({key for key, _, _ in receivers.sent}) == 1
    assert await world.owed(root) == []


async def test_a_receiver_may_ask_for_more_time(world: World) -> None:
    """Then it has that, and the next wait is the usual one again; what it asks for may be no longer than patience lasts."""
    root, impatient = await world.run(ASKED), await world.run(ASKED, "impatient")
    busy = Unavailable("h answered 503")
    receivers = Receivers(answers=[Later("h answered 429", seconds=300), busy, None, Later("h answered 503", seconds=3600)])
    times = []
    with structlog.testing.capture_logs():
        async with world.leading(receivers) as (postman, _):
            await world.end(root)
            while len(times) < 3:
                await asyncio.sleep(0.01)
                times += [asyncio.get_running_loop().time()] * (len(receivers.sent) - len(times))
            assert [round(later - earlier) for earlier, later in pairwise(times)] == [300, 2]
            await world.end(impatient)
            await asyncio.sleep(1)
            assert (postman.delivered, postman.given_up) == (1, 1)


async def test_a_delivery_is_given_up_and_stays_with_its_error(world: World) -> None:
    """When its time is over, or at once when its receiver refuses it; both are told in the log, and harm no other."""
    lost, refused, fine = [await world.run(ASKED, name) for name in ("lost", "refused", "fine")]
    away, no = Unavailable("h did not answer"), FailedPrecondition("h answered 404")
    receivers = Receivers(answers=[away, no, None, *([away] * 99)])
    with structlog.testing.capture_logs() as log:
        async with world.leading(receivers) as (postman, _):
            for root in (lost, refused, fine):
                await world.end(root)
            await asyncio.sleep(1000)
            assert (postman.delivered, postman.given_up) == (1, 2)
    assert receivers.told.count("lost/a0") > 10
    assert receivers.told.count("refused/a0") == receivers.told.count("fine/a0") == 1
    (left,), (denied,) = await world.owed(lost), await world.owed(refused)
    assert (left.error, left.due_at, denied.error, denied.due_at) == ("h did not answer", None, "h answered 404", None)
    assert sorted(each["error"] for each in log if each["log_level"] == "error") == ["h answered 404", "h did not answer"]


async def test_what_was_given_up_is_kept_for_a_time(world: World) -> None:
    """Then it goes as another is given up, or as the next leader begins; what is still to come stays."""
    first, second, third, waiting = [await world.run(ASKED, name) for name in ("first", "second", "third", "waiting")]
    receivers = Receivers(answers=[FailedPrecondition("h answered 404")] * 3)
    async with world.leading(receivers):
        await world.end(first)
        await asyncio.sleep(KEPT)
        await world.end(second)
        await asyncio.sleep(1000)
        assert len(await world.owed(first)) == 1, "nothing has come since"
        await world.end(third)
        await asyncio.sleep(1)
        assert await world.owed(first) == []
        assert len(await world.owed(second)) == len(await world.owed(third)) == 1
    await asyncio.sleep(KEPT + 1000)
    async with world.leading():
        await asyncio.sleep(1)
    assert await world.owed(second) == await world.owed(third) == []
    assert len(await world.owed(waiting)) == 1


async def test_what_cannot_be_made_keeps_nothing_else_waiting(world: World) -> None:
    """A message that fails for a reason of our own is tried and given up like any other, however many there are."""

    class Poisoned(Receivers):
        async def send(self, each: Delivery, action: Action) -> None:
            await super().send(each, action)
            if action.key.run != "fine":
                raise IndexError("no address")

    names = [f"r{number}" for number in range(40)]
    roots = [await world.run(ASKED, name) for name in (*names, "fine")]
    with structlog.testing.capture_logs():
        async with world.leading(Poisoned()) as (postman, _):
            for root in roots:
                await world.end(root)
            await asyncio.sleep(1000)
            assert (postman.delivered, postman.given_up) == (1, 40)
    (left,) = await world.owed(roots[0])
    assert (left.error, left.due_at) == ("IndexError", None)


async def test_a_kill_before_the_note_sends_it_again(world: World) -> None:
    """At least once, and its receiver can tell: the next server sends it under the same key."""
    root = await world.run(ASKED)
    async with world.leading(Slow()) as (_, first):
        await world.end(root)
        await asyncio.sleep(0.5)
    async with world.leading() as (_, second):
        await asyncio.sleep(1)
    assert len(first.sent) == 1
    assert second.sent == first.sent
    assert await world.owed(root) == []


async def test_ends_that_nobody_saw_are_told_by_the_next_server(world: World) -> None:
    """The run began and ended while no server led."""
    root = await world.run(ASKED)
    await world.end(root, Phase.ABORTED)
    failed = await world.run(asking(rule(webhook(), FAILED)), "other")
    await world.end(failed, Phase.FAILED, error="no")
    async with world.leading() as (_, receivers):
        await asyncio.sleep(1)
    assert receivers.told == ["other/a0"]
    assert await world.owed(root) == []


async def test_a_database_that_is_away_is_asked_again(world: World) -> None:
    """Nothing is forgotten meanwhile."""
    root = await world.run(ASKED)
    assert isinstance(world.database, InlineDatabase)
    with structlog.testing.capture_logs():
        async with world.leading() as (_, receivers):
            await asyncio.sleep(1)
            await world.end(root)
            world.database.failing[:] = [Unavailable("away")] * 3
            await asyncio.sleep(30)
    assert set(receivers.told) == {"r/a0"}
    assert await world.owed(root) == []


async def test_many_deliveries_do_not_wait_for_one_that_hangs(world: World) -> None:
    """A receiver that takes its time keeps no other waiting, and none is sent twice for being slow."""

    roots = [await world.run(ASKED, f"r{number}") for number in range(40)]
    async with world.leading(Slow()) as (postman, receivers):
        for root in roots:
            await world.end(root)
        await asyncio.sleep(10)
        assert postman.delivered == 39
        await asyncio.sleep(50)
        assert postman.delivered == 40
    assert sorted(receivers.told) == sorted(f"r{number}/a0" for number in range(40))


async def test_a_condition_is_told_of_as_it_begins(world: World) -> None:
    """To its own webhook, and to rules about what is paused; of the run's end these say nothing."""
    spec = asking(rule(webhook(body="{{.Prompt}}"), PAUSED))
    root = await world.run(spec)
    async with world.leading() as (_, receivers):
        await world.condition(spec, url="http://h/own")
        await asyncio.sleep(1)
        assert [channel for _, _, channel in receivers.sent] == [Channel.WEBHOOK, Channel.CONDITION]
        assert set(receivers.told) == {"r/c"}
        await world.end(root)
        await asyncio.sleep(1)
        assert len(receivers.sent) == 2


async def test_a_condition_that_was_signalled_first_is_not_told_of(world: World) -> None:
    """A word that comes too late would make somebody signal again."""
    await world.run(run_pb2.RunSpec())
    condition = await world.condition(run_pb2.RunSpec(), url="http://h/own")
    await world.ledger.move(condition, Move(to=Phase.SUCCEEDED))
    async with world.leading() as (_, receivers):
        await asyncio.sleep(1)
        assert receivers.sent == []
    assert await world.owed(condition) == []
