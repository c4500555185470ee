"""Who leads. Under virtual time: partitions, crashes and lost answers over a Lease that only two kinds of write can change."""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import pytest

from flyte_unified.kube import errors
from flyte_unified.kube.client import Kube
from flyte_unified.kube.lease import Elector, granted, remaining
from tests.virtual_time import LoopClock

virtual = pytest.mark.virtual_time
NO_RIGHT = 'leases "leader" is forbidden: User "u" cannot get resource "leases" in API group "coordination.k8s.io"'


class Leases:
    """One Lease, as an API server keeps it."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.watchers: list[asyncio.Queue[tuple[str, dict[str, Any]]]] = []

    def store(self, lease: dict[str, Any] | None) -> dict[str, Any]:
        self.version += 1
        change = "DELETED" if lease is None else "ADDED" if self.lease is None else "MODIFIED"
        told = copy.deepcopy(self.lease if lease is None else lease) or {}
        told["metadata"]["resourceVersion"] = str(self.version)
        self.lease = None if lease is None else told
        for watcher in self.watchers:
            watcher.put_nowait((change, copy.deepcopy(told)))
        return copy.deepcopy(told)


class Way:
    """A client's way to the Lease: it can be cut, be slow, and lose answers."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self.cut = False
        self.lossy = 0.0
        self.slow = 0.0
        self.reads = 0
        self.refused: list[errors.Forbidden] = []
        self.broken = asyncio.Event()

    async def _go(self) -> None:
        await asyncio.sleep(random.uniform(0, self.slow))
        if self.cut:
            await asyncio.sleep(random.choice([0.0, 30.0]))
            raise errors.Away("cut")

    async def get(self, *_: object, **__: object) -> dict[str, Any]:
        self.reads += 1
        await self._go()
        if self.refused:
            raise self.refused.pop()
        if self._leases.lease is None:
            raise errors.Missing("no lease")
        return copy.deepcopy(self._leases.lease)

    async def create(self, _: object, obj: dict[str, Any]) -> dict[str, Any]:
        await self._go()
        if self._leases.lease is not None:
            raise errors.Exists("taken")
        return await self._answered(self._leases.store(obj))

    async def replace(self, _: object, obj: dict[str, Any]) -> dict[str, Any]:
        await self._go()
        if self._leases.lease is None:
            raise errors.Missing("no lease")
        if self._leases.lease["metadata"]["resourceVersion"] != obj["metadata"]["resourceVersion"]:
            raise errors.Conflict("changed")
        return await self._answered(self._leases.store(obj))

    async def _answered(self, lease: dict[str, Any]) -> dict[str, Any]:
        if random.random() < self.lossy:
            raise errors.Away("the answer was lost")
        return lease

    async def watch(self, *_: object, resource_version: str, **__: object) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        await self._go()
        events: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()
        if str(self._leases.version) != resource_version:
            raise errors.Gone("too old")
        self._leases.watchers.append(events)
        try:
            yield "BOOKMARK", {"metadata": {"resourceVersion": resource_version}}
            while True:
                event = await events.get()
                if self.cut:
                    await asyncio.Event().wait()
                yield event
        finally:
            self._leases.watchers.remove(events)


class Member:
    """A replica: who it is, its way to the Lease, and its terms."""

    def __init__(self, leases: Leases, name: str, leaders: list[tuple[float, str, int]], **more: Any) -> None:
        self.way = Way(leases)
        self.name = name
        self.leading = False
        self._leaders = leaders
        self.elector = Elector(cast("Kube", self.way), name="leader", namespace="n", identity=name, clock=LoopClock(), **more)
        self.task = asyncio.create_task(self.elector.run(self._lead), name=name)
        self.began = asyncio.Event()

    async def _lead(self, epoch: int) -> None:
        self._leaders.append((asyncio.get_running_loop().time(), self.name, epoch))
        self.leading = True
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.leading = False
            self.began.clear()

    async def stop(self) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task

    def crash(self) -> None:
        """Stops without a word."""
        self.way.cut = True
        self.task.cancel()


class World:
    def __init__(self) -> None:
        self.leases = Leases()
        self.leaders: list[tuple[float, str, int]] = []
        self.members: list[Member] = []

    def join(self, name: str, **more: Any) -> Member:
        self.members.append(Member(self.leases, name, self.leaders, **more))
        return self.members[-1]


@asynccontextmanager
async def a_world() -> AsyncIterator[World]:
    world = World()
    try:
        yield world
    finally:
        for member in world.members:
            member.task.cancel()
        await asyncio.gather(*(member.task for member in world.members), return_exceptions=True)


def now() -> float:
    return asyncio.get_running_loop().time()


def test_a_lease_holds_others_off_for_as_long_as_it_stands_still():
    """From when it was first seen so, whatever its own times say."""
    spec = {"holderIdentity": "a", "leaseDurationSeconds": 15, "renewTime": "1970-01-01T00:00:00.000000Z"}
    assert remaining(spec, seen_at=100.0, now=100.0, identity="b") == 15.0
    assert remaining(spec, seen_at=100.0, now=114.0, identity="b") == 1.0
    assert remaining(spec, seen_at=100.0, now=116.0, identity="b") < 0


@pytest.mark.parametrize(
    "spec", [{}, {"holderIdentity": ""}, {"holderIdentity": None}, {"holderIdentity": "me", "leaseDurationSeconds": 15}]
)
def test_nobodys_lease_and_our_own_hold_us_off_not_at_all(spec: dict[str, Any]):
    """Ours without our knowing is one whose answer was lost."""
    assert remaining(spec, seen_at=100.0, now=100.0, identity="me") == 0.0


def test_each_term_has_a_greater_epoch():
    """Than the lease's last, and than the last that anybody knows; fields that are not ours stay."""
    before = {"holderIdentity": "a", "leaseTransitions": 7, "strategy": "other"}
    spec = granted(before, identity="b", duration=14.5, last=3, at="now")
    assert spec == {
        "holderIdentity": "b",
        "leaseTransitions": 8,
        "leaseDurationSeconds": 15,
        "acquireTime": "now",
        "renewTime": "now",
        "strategy": "other",
    }
    assert granted({}, identity="b", duration=15, last=0, at="now")["leaseTransitions"] == 1
    assert granted({"leaseTransitions": 7}, identity="b", duration=15, last=41, at="now")["leaseTransitions"] == 42


def test_a_lease_that_cannot_be_kept_is_refused():
    """A leader must stop before others take over, and have more than one try."""
    for times in ({"duration": 10.0, "renew": 10.0}, {"renew": 2.0}):
        with pytest.raises(ValueError, match="cannot be kept"):
            Elector(cast("Kube", None), name="l", namespace="n", identity="i", clock=LoopClock(), **times)


@virtual
async def test_the_first_leads_and_goes_on():
    """Nobody disturbs who renews, and who waits asks nothing: the watch tells."""
    async with a_world() as world:
        world.join("a")
        await asyncio.sleep(1.0)
        other = world.join("b")
        await asyncio.sleep(3600.0)
        assert world.leaders == [(0.0, "a", 1)]
        assert other.elector.holder == "a"
        assert other.elector.epoch is None
        assert other.way.reads == 1


@virtual
@pytest.mark.parametrize(("message", "reads"), [(NO_RIGHT, 1), ("Unauthorized", 5)])
async def test_a_right_that_is_missing_is_told(message: str, reads: int):
    """To whoever stands for election: asking again does not give it. A token that is out of date is renewed."""
    world = Leases()
    way = Way(world)
    way.refused = [errors.Forbidden(message, status=403)] * reads
    elector = Elector(cast("Kube", way), name="leader", namespace="n", identity="a", clock=LoopClock())

    async def lead(epoch: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(errors.Forbidden if message is NO_RIGHT else ZeroDivisionError):
        await elector.run(lead)
    assert not way.refused


@virtual
async def test_a_release_is_taken_up_at_once():
    """Not after the lease's duration, nor at the next look."""
    async with a_world() as world:
        first = world.join("a")
        await first.began.wait()
        second = world.join("b")
        await asyncio.sleep(100.0)
        await first.stop()
        released = now()
        await second.began.wait()
        assert now() - released < 1.0
        assert world.leaders[-1][1:] == ("b", 2)
        assert second.elector.epoch == 2


@virtual
async def test_after_a_crash_another_leads_when_the_lease_is_over():
    """Not before."""
    async with a_world() as world:
        first = world.join("a")
        await first.began.wait()
        second = world.join("b")
        await asyncio.sleep(99.0)
        first.crash()
        crashed = now()
        await second.began.wait()
        assert 15.0 - 2.0 <= now() - crashed <= 15.0 + 2.0 * 2.2


@virtual
async def test_a_leader_that_is_cut_off_stops_before_another_begins():
    """Within its renew deadline, of itself; and it comes back as a standby."""
    async with a_world() as world:
        first = world.join("a")
        await first.began.wait()
        second = world.join("b")
        await asyncio.sleep(100.0)
        first.way.cut = True
        cut = now()
        await asyncio.sleep(10.0)
        assert not first.leading
        assert not second.leading
        await second.began.wait()
        assert now() - cut <= 15.0 + 2.0 * 2.2
        first.way.cut = False
        await asyncio.sleep(100.0)
        assert not first.leading
        assert first.elector.holder == "b"
        assert len(world.leaders) == 2


@virtual
async def test_a_renewal_whose_answer_was_lost_is_no_loss():
    """The lease is read again: it is ours, in another version."""
    async with a_world() as world:
        member = world.join("a")
        await member.began.wait()
        for _ in range(10):
            member.way.lossy = 1.0
            await asyncio.sleep(5.0)
            member.way.lossy = 0.0
            await asyncio.sleep(5.0)
        assert world.leaders == [(0.0, "a", 1)]


@virtual
@pytest.mark.parametrize("by", ["taken", "deleted"])
async def test_a_lease_that_is_lost_ends_the_term_at_the_next_renewal(by: str):
    """Somebody took it, or removed it; the next term has another epoch, greater than what anybody ever used."""
    last = 0

    async def last_epoch() -> int:
        return last

    async with a_world() as world:
        member = world.join("a", last_epoch=last_epoch)
        await member.began.wait()
        last = 30
        await asyncio.sleep(10.0)
        assert world.leases.lease is not None
        if by == "deleted":
            world.leases.store(None)
        else:
            spec = {"holderIdentity": "x", "leaseTransitions": 9, "leaseDurationSeconds": 15}
            world.leases.store(world.leases.lease | {"spec": spec})
        await asyncio.sleep(2.1)
        assert not member.leading
        await member.began.wait()
        assert member.elector.epoch == 31


@virtual
async def test_what_leading_raises_is_raised_after_the_release():
    """Another can lead at once; this process has to say what is wrong with it."""

    async def lead(_: int) -> None:
        raise ZeroDivisionError

    async with a_world() as world:
        elector = Elector(cast("Kube", Way(world.leases)), name="leader", namespace="n", identity="a", clock=LoopClock())
        with pytest.raises(ZeroDivisionError):
            await elector.run(lead)
        assert world.leases.lease is not None
        assert "holderIdentity" not in world.leases.lease["spec"]
        assert elector.epoch is None


@virtual
@pytest.mark.parametrize("times", [1, 2])
async def test_a_leader_ends_its_work_before_it_releases(times: int):
    """Who takes over finds nobody at it; also when a server that drains is stopped meanwhile, which cancels it once more."""
    ended = 0.0

    async def lead(_: int) -> None:
        nonlocal ended
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(3.0)
            ended = now()

    async with a_world() as world:
        elector = Elector(cast("Kube", Way(world.leases)), name="leader", namespace="n", identity="a", clock=LoopClock())
        task = asyncio.create_task(elector.run(lead))
        await asyncio.sleep(1.0)
        other = world.join("b")
        await asyncio.sleep(1.0)
        task.cancel()
        await asyncio.sleep(1.0)
        if times > 1:
            task.cancel()
        await other.began.wait()
        assert ended == 5.0
        assert ended <= now() < 6.0
        await asyncio.gather(task, return_exceptions=True)


@virtual
@pytest.mark.parametrize("seed", range(8))
async def test_there_are_never_two_leaders(seed: int):
    """Three replicas, ways that are slow, cut and lossy at random for two hours: one leader at most, epochs that only grow."""
    random.seed(seed)
    async with a_world() as world:
        members = [world.join(name) for name in "abc"]
        for _ in range(1440):
            member = random.choice(members)
            member.way.cut = random.random() < 0.4
            member.way.lossy = random.choice([0.0, 0.0, 0.3])
            member.way.slow = random.choice([0.0, 1.0, 6.0])
            for _ in range(10):
                await asyncio.sleep(0.5)
                assert sum(other.leading for other in members) <= 1
        for member in members:
            member.way.cut, member.way.lossy, member.way.slow = False, 0.0, 0.0
        await asyncio.sleep(60.0)
        assert sum(member.leading for member in members) == 1
        epochs = [epoch for _, _, epoch in world.leaders]
        assert epochs == sorted(set(epochs))
        assert len({name for _, name, _ in world.leaders}) == 3
