"""Who led once writes nothing more, on every database."""

from __future__ import annotations

import asyncio

import pytest

from flyte_unified.core.clock import SystemClock
from flyte_unified.core.errors import Aborted, NotLeader
from flyte_unified.core.phases import Phase
from flyte_unified.db.api import Database
from flyte_unified.ledger.api import EXECUTOR, Everything, Ledger, Move
from tests.unit.ledger.births import ROOT, RUN, action, run, spec


@pytest.fixture
async def ledger(database: Database) -> Ledger:
    """With a run, led by ``one`` in epoch 3."""
    ledger = Ledger(database=database, clock=SystemClock())
    await ledger.create_run(run())
    await ledger.take_lead(EXECUTOR, 3, "one")
    return ledger


async def test_the_leader_moves(ledger: Ledger) -> None:
    """Its epoch is the one that is noted; what it saw last need not be read again."""
    (known,) = await ledger.move(ROOT, Move(to=Phase.INITIALIZING), epoch=3)
    (known,) = await ledger.move(ROOT, Move(to=Phase.RUNNING), epoch=3, known=known)
    assert await ledger.action(ROOT) == known


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("epoch", [2, 4])
async def test_another_epoch_writes_nothing(ledger: Ledger, epoch: int, *, known: bool) -> None:
    """Whether it is over, or nobody's yet: refused, and nobody is told of anything."""
    before = await ledger.action(ROOT)
    with ledger.changes.subscribe(Everything()) as told:
        with pytest.raises(NotLeader, match=rf"epoch {epoch}.*one does in epoch 3") as refused:
            await ledger.move(ROOT, Move(to=Phase.RUNNING), epoch=epoch, known=before if known else None)
        assert isinstance(refused.value, Aborted)
        assert told.take() == []
    assert await ledger.action(ROOT) == before


async def test_a_stale_epoch_is_told_though_there_was_nothing_to_write(ledger: Ledger) -> None:
    """A deposed leader learns of it from whatever it tries."""
    await ledger.move(ROOT, Move(to=Phase.SUCCEEDED))
    with pytest.raises(NotLeader):
        await ledger.move(ROOT, Move(to=Phase.RUNNING), epoch=2)
    assert await ledger.move(ROOT, Move(to=Phase.RUNNING), epoch=3) == []


async def test_nobody_leads_before_it_is_noted(database: Database) -> None:
    """A move of an epoch that nobody took is refused; one without an epoch, a user's abort say, is anybody's."""
    ledger = Ledger(database=database, clock=SystemClock())
    await ledger.create_run(run())
    with pytest.raises(NotLeader, match="nobody"):
        await ledger.move(ROOT, Move(to=Phase.RUNNING), epoch=1)
    assert await ledger.move(ROOT, Move(to=Phase.ABORTED))


@pytest.mark.parametrize(("epoch", "holder"), [(4, "other"), (4, "one"), (3, "one")])
async def test_the_lead_is_taken(ledger: Ledger, epoch: int, holder: str) -> None:
    """By a later epoch, or once more by who has it."""
    await ledger.take_lead(EXECUTOR, epoch, holder)
    assert await ledger.move(ROOT, Move(to=Phase.RUNNING), epoch=epoch)


@pytest.mark.parametrize(("epoch", "holder"), [(3, "other"), (2, "other"), (2, "one")])
async def test_the_lead_is_not_taken(ledger: Ledger, epoch: int, holder: str) -> None:
    """By who is late, or has the same epoch as another."""
    with pytest.raises(NotLeader, match=r"one does in epoch 3"):
        await ledger.take_lead(EXECUTOR, epoch, holder)
    assert await ledger.move(ROOT, Move(to=Phase.RUNNING), epoch=3)


async def test_the_last_epoch_is_known(ledger: Ledger) -> None:
    """For a lease that was deleted; refused ones do not count."""
    assert await ledger.last_epoch("scheduler") == 0
    with pytest.raises(NotLeader):
        await ledger.take_lead(EXECUTOR, 2, "other")
    assert await ledger.last_epoch(EXECUTOR) == 3
    await ledger.take_lead(EXECUTOR, 8, "other")
    assert await ledger.last_epoch(EXECUTOR) == 8


async def test_other_leads_are_of_no_concern(ledger: Ledger) -> None:
    """Each name has its own; moves ask for the executor's."""
    await ledger.take_lead("scheduler", 9, "other")
    assert await ledger.move(ROOT, Move(to=Phase.RUNNING), epoch=3)


async def test_what_a_leader_saw_may_be_over(ledger: Ledger) -> None:
    """A row that another writer moved meanwhile is read again, and the steps are judged by what it is."""
    seen = await ledger.action(ROOT)
    await ledger.move(ROOT, Move(to=Phase.INITIALIZING))
    (moved,) = await ledger.move(ROOT, Move(to=Phase.RUNNING), epoch=3, known=seen)
    assert (moved.phase, moved.version) == (Phase.RUNNING, 3)
    await ledger.move(ROOT, Move(to=Phase.ABORTED))
    assert await ledger.move(ROOT, Move(to=Phase.SUCCEEDED), epoch=3, known=moved) == []


async def test_what_looked_illegal_is_judged_by_the_row(ledger: Ledger) -> None:
    """Steps that what was seen forbids may be legal by now."""
    (running,) = await ledger.move(ROOT, Move(to=Phase.RUNNING))
    await ledger.move(ROOT, Move(to=Phase.PAUSED))
    (moved,) = await ledger.move(ROOT, Move(to=Phase.RUNNING), epoch=3, known=running)
    assert moved.version == 4


async def test_many_moves_of_two_leaders_at_once(ledger: Ledger) -> None:
    """Sent together or not: those of the leader are written, the others refused, each one told its own."""
    names = [f"n{number}" for number in range(40)]
    await asyncio.gather(*(ledger.enqueue(action(name), spec()) for name in names))
    moves = [ledger.move(RUN.action(name), Move(to=Phase.RUNNING), epoch=2 + index % 2) for index, name in enumerate(names)]
    told = await asyncio.gather(*moves, return_exceptions=True)
    assert [type(each) for each in told] == [NotLeader, list] * 20
    live = {each.key.name: each.phase for each in await ledger.live()}
    assert [live[name] for name in names] == [Phase.QUEUED, Phase.RUNNING] * 20
