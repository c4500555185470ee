"""Two electors and a real Lease: one leads, and the other takes over."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

import pytest

from flyte_unified.core.clock import SystemClock
from flyte_unified.core.errors import NotLeader
from flyte_unified.kube.client import Kube
from flyte_unified.kube.kinds import LEASES
from flyte_unified.kube.lease import Elector
from flyte_unified.testing.fake_kube import FakeKube
from tests.unit.manual_clock import ManualClock


class Replica:
    """Competes until it is stopped."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self.identity = f"replica-{uuid.uuid4().hex[:6]}"
        self.epochs: list[int] = []
        self.began = asyncio.Event()
        self.ended = asyncio.Event()
        times = {"duration": 2.0, "renew": 1.0, "retry": 0.2}
        elector = Elector(kube, name="leader", namespace=namespace, identity=self.identity, clock=SystemClock(), **times)
        self.elector = elector
        self.task = asyncio.create_task(elector.run(self._lead), name=self.identity)

    async def _lead(self, epoch: int) -> None:
        self.epochs.append(epoch)
        self.ended.clear()
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.began.clear()
            self.ended.set()

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
async def replica(kube: Kube, namespace: str) -> AsyncIterator[Callable[[], Replica]]:
    """Makes one more."""
    made: list[Replica] = []

    def make() -> Replica:
        made.append(Replica(kube, namespace))
        return made[-1]

    yield make
    await asyncio.gather(*(one.stop() for one in made))


async def within(seconds: float, event: asyncio.Event) -> None:
    async with asyncio.timeout(seconds):
        await event.wait()


async def test_a_standby_takes_over_at_once_when_the_leader_stops(kube: Kube, namespace: str, replica: Callable[[], Replica]):
    """Within a second, by its watch; the lease says who, since when, and the number of the term."""
    first = replica()
    await within(5.0, first.began)
    lease = (await kube.get(LEASES, "leader", namespace=namespace))["spec"]
    assert (lease["holderIdentity"], lease["leaseTransitions"], lease["leaseDurationSeconds"]) == (first.identity, 1, 2)
    second = replica()
    version = (await kube.get(LEASES, "leader", namespace=namespace))["metadata"]["resourceVersion"]
    async with aclosing(kube.watch(LEASES, namespace=namespace, resource_version=version)) as renewals:
        for _ in range(4):  # by then it has seen the lease held
            await anext(renewals)
    assert not second.began.is_set()
    await first.stop()
    await within(1.0, second.began)
    assert (first.epochs, second.epochs) == ([1], [2])


async def test_a_leader_without_a_server_ends_and_somebody_leads_again(fake: FakeKube, replica: Callable[[], Replica]):
    """Its time is over before the lease is, though nobody could tell it so."""
    replicas = [replica(), replica()]
    done, waiting = await asyncio.wait(
        [asyncio.create_task(one.began.wait()) for one in replicas], return_when=asyncio.FIRST_COMPLETED, timeout=5.0
    )
    for task in waiting:
        task.cancel()
    assert len(done) == 1
    leader = next(one for one in replicas if one.began.is_set())
    fake.faults.outage()
    await within(1.5, leader.ended)
    fake.faults.restore()
    tasks = [asyncio.create_task(one.began.wait()) for one in replicas]
    done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=5.0)
    for task in waiting:
        task.cancel()
    assert len(done) == 1
    assert sorted(epoch for one in replicas for epoch in one.epochs) == [1, 2]


async def test_a_conflict_costs_a_leader_nothing(fake: FakeKube, replica: Callable[[], Replica]):
    """Somebody else may write on the lease: it is read again and renewed."""
    leader = replica()
    await within(5.0, leader.began)
    fake.faults.conflict(3, lambda asked: asked.resource == "leases")
    with pytest.raises(TimeoutError):
        await within(1.5, leader.ended)
    assert leader.elector.epoch == 1


async def test_a_leader_is_told_before_it_writes_that_its_time_is_over(kube: Kube, namespace: str):
    """By the clock alone, as one that was suspended has heard nothing of it yet; so is what is left of an earlier term."""
    clock = ManualClock()
    elector = Elector(kube, name="l", namespace=namespace, identity="a", clock=clock)
    with pytest.raises(NotLeader):
        elector.check(1)
    late = asyncio.Event()

    async def lead(epoch: int) -> None:
        elector.check(epoch)
        with pytest.raises(NotLeader):
            elector.check(epoch - 1)
        clock.pass_by(10)
        with pytest.raises(NotLeader):
            elector.check(epoch)
        late.set()

    running = asyncio.create_task(elector.run(lead))
    await asyncio.wait_for(late.wait(), 5)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
