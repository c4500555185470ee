"""Whose turn it is: runs beside each other, queues and their bounds."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.ids import ActionKey
from flyte_unified.core.queues import Queues
from flyte_unified.executor.lines import Bound
from flyte_unified.executor.slots import Capacity, Claim, Slots

MEMORY = 1 << 30


def key(run: object, name: object) -> ActionKey:
    return ActionKey("p", "d", f"r{run}", str(name))


def slots(cpu: float = 100.0, *, watermark: int = 64, gpus: int = 0, **queues: int) -> Slots:
    return Slots(Capacity(cpu=cpu, memory=MEMORY, gpus=tuple(range(gpus)), watermark=watermark), queues)


def served(s: Slots) -> list[str]:
    """All that wait, in the order in which they are admitted, each gone before the next."""
    order = []
    while admitted := s.admit():
        order += [f"{found.run}.{found.name}" for found in admitted]
        for found in admitted:
            s.release(found)
    return order


def test_a_large_run_does_not_keep_another_waiting() -> None:
    """Three actions of one run are admitted between the first of ten thousand of another, in their order."""
    s = slots(cpu=1.0)
    for n in range(10_000):
        s.claim(key(1, n), Claim(depth=1))
    for n in range(3):
        s.claim(key(2, n), Claim(depth=1))
    assert served(s)[:7] == ["r1.0", "r2.0", "r1.1", "r2.1", "r1.2", "r2.2", "r1.3"]


def test_a_run_begins_while_a_large_one_goes_on() -> None:
    """A root waits for one action, whatever waits below other roots; and many that begin keep none from going on."""
    s = slots(cpu=1.0)
    for n in range(100):
        s.claim(key(1, n), Claim(depth=1))
    for run in range(2, 5):
        s.claim(key(run, "a0"), Claim(depth=0))
    assert served(s)[:6] == ["r2.a0", "r1.0", "r3.a0", "r1.1", "r4.a0", "r1.2"]


def test_over_half_the_watermark_no_run_begins_while_another_can_go_on() -> None:
    """Parents that wait cost memory, so that there are not more of them than help."""
    s = slots(cpu=1.0, watermark=4)
    for run in range(2):
        s.hold(key(run, "a0"), Claim(depth=0))
        s.suspend(key(run, "a0"))
    s.claim(key(2, "a0"), Claim(depth=0))
    for n in range(2):
        s.claim(key(0, n), Claim(depth=1))
    assert served(s) == ["r0.0", "r0.1", "r2.a0"]


@pytest.mark.parametrize("process", [True, False], ids=["here", "away"])
def test_a_queue_admits_in_order_and_in_turns(process: bool) -> None:
    """Two at once, of whichever runs; each run's in the order in which they came, the deepest first."""
    s = slots(narrow=2)
    for run, names in ((1, "abc"), (2, "de")):
        for name in names:
            s.claim(key(run, name), Claim(depth=1, queue="narrow", process=process))
    s.claim(key(1, "deep"), Claim(depth=2, queue="narrow", process=process))
    s.claim(key(3, "other"), Claim(depth=1, process=process))
    first = s.admit()
    assert [found.name for found in first] == ["deep", "d", "other"]
    order = []
    for found in first:
        s.release(found)
    while admitted := s.admit():
        assert len(admitted) <= 2
        order += [found.name for found in admitted]
        s.release(admitted[0])
        for found in admitted[1:]:
            s.release(found)
    assert order == ["a", "e", "b", "c"]


def test_the_smaller_of_two_bounds_holds() -> None:
    """Of queue and run; what the one keeps waiting takes nothing of the other."""
    s = slots(narrow=3)
    for run, bound in ((1, 1), (2, 0)):
        for n in range(4):
            s.claim(key(run, n), Claim(depth=1, queue="narrow", run_bound=bound))
    assert Counter(found.run for found in s.admit()) == {"r1": 1, "r2": 2}
    s.release(key(1, 0))
    assert [found.run for found in s.admit()] == ["r1"]


def test_who_waits_for_children_counts_for_no_bound() -> None:
    """A tree of any depth ends in a queue of one, in a run of one."""
    s = slots(narrow=1)
    for depth in range(5):
        s.claim(key(1, depth), Claim(depth=depth, queue="narrow", run_bound=1))
        assert s.admit() == [key(1, depth)]
        s.suspend(key(1, depth))
    assert (s.active, s.live) == (0, 5)


def test_what_was_adopted_counts() -> None:
    """After a restart more may compute than a bound that was lowered allows; nothing is added until there is room."""
    s = slots(narrow=1)
    for n in range(3):
        s.hold(key(1, n), Claim(depth=1, queue="narrow"))
    s.claim(key(2, "next"), Claim(depth=1, queue="narrow"))
    for n in range(3):
        assert s.admit() == []
        s.release(key(1, n))
    assert s.admit() == [key(2, "next")]


def test_an_admission_costs_the_same_whatever_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full queue with a thousand runs that wait: about as many looks as admissions."""
    s = slots(narrow=1)
    looks = 0
    has_room = Bound.has_room

    def counted(self: Bound, claim: Claim) -> bool:
        nonlocal looks
        looks += 1
        return has_room(self, claim)

    for run in range(1000):
        for n in range(2):
            s.claim(key(run, n), Claim(depth=1, queue="narrow", process=False))
    (found,) = s.admit()
    monkeypatch.setattr(Bound, "has_room", counted)
    for _ in range(500):
        s.release(found)
        (found,) = s.admit()
    assert looks <= 3 * 500


@pytest.mark.parametrize("process", [True, False], ids=["here", "away"])
@pytest.mark.parametrize("bounds", [{}, {"narrow": 1}, {"narrow": 3}], ids=str)
def test_many_runs_with_children_pile_up_no_parents(process: bool, bounds: dict[str, int]) -> None:
    """Of hundreds that come together all end, few of them begun at one time, whatever bounds them."""
    s = slots(cpu=2.0, watermark=16, **bounds)
    for run in range(300):
        s.claim(key(run, "a0"), Claim(depth=0, process=process, queue="narrow"))
    left = dict.fromkeys((f"r{run}" for run in range(300)), 5)
    running: deque[ActionKey] = deque()
    begun = 0
    while left:
        running.extend(s.admit())
        assert s.refuse() is None
        if process or bounds:
            begun = max(begun, s.live - s.active)
        found = running.popleft()
        if found.name == "a0" and left[found.run] == 5:
            for n in range(5):
                s.claim(found.sibling(str(n)), Claim(depth=1, process=process, queue="narrow"))
            s.suspend(found)
            continue
        s.release(found)
        left[found.run] -= found.name != "a0"
        if found.name == "a0":
            del left[found.run]
        elif not left[found.run]:
            s.resume(found.sibling("a0"))
            running.append(found.sibling("a0"))
            left[found.run] = -1
    assert begun <= 12
    assert (s.live, s.waiting) == (0, 0)


@dataclass
class Grown:
    """An action of a tree that grows while it runs."""

    key: ActionKey
    claim: Claim | None
    """None: a timer, or what the cache knows; it computes nothing"""
    parent: Grown | None
    live: int = 0
    """Its children that have not ended"""


class Forest:
    """Trees in a queue of ``bound``, their steps in the controller's order."""

    def __init__(self, bound: int) -> None:
        self.slots = slots(narrow=bound)
        self.nodes: list[Grown] = []
        self.made = 0

    @property
    def computing(self) -> int:
        return self.slots.queues["narrow"].computing

    def held(self, node: Grown) -> bool:
        return node.key in self.slots._held

    def grow(self, parent: Grown | None, queue: str) -> None:
        """A child is known before it asks for its slot."""
        self.made += 1
        claim = Claim(depth=int(parent is not None), queue=queue) if queue else None
        node = Grown(key(1, self.made), claim, parent)
        self.nodes.append(node)
        if parent is not None:
            parent.live += 1
            if parent.live == 1:
                self.slots.suspend(parent.key)
                self.slots.admit()
        self.ask(node)

    def ask(self, node: Grown) -> None:
        if node.claim is not None:
            self.slots.claim(node.key, node.claim)
            self.slots.admit()

    def fail(self, node: Grown) -> None:
        """One attempt of several."""
        self.slots.release(node.key)
        self.slots.admit()
        self.ask(node)

    def end(self, node: Grown) -> bool:
        """Whether it makes its parent compute, in ``narrow``, and gives no slot of that for it."""
        gives = self.held(node) and node.claim is not None and node.claim.queue == "narrow"
        self.nodes.remove(node)
        above, resumed = node.parent, False
        if above is not None:
            above.live -= 1
            if not above.live:
                self.slots.resume(above.key)
                resumed = above.claim is not None and above.claim.queue == "narrow"
        self.slots.release(node.key)
        self.slots.admit()
        return resumed and not gives


@settings(max_examples=50)
@given(bound=st.integers(1, 3), pick=st.randoms(use_true_random=False), alike=st.booleans())
def test_a_bound_is_passed_only_by_parents_that_get_no_slot_of_a_child(bound: int, pick: Random, alike: bool) -> None:
    """Who ends gives its slot to the parent that goes on by this, before anybody else: where all are ``alike`` no more compute.

    Where the last child had none (it was in another queue, was cached, a timer, or ended while it waited), the parent is one
    more, and nobody begins until that is over.
    """
    forest = Forest(bound)
    queues = ["narrow"] if alike else ["narrow", "narrow", "free", ""]
    for _ in range(60):
        before, more = forest.computing, False
        ready = [node for node in forest.nodes if not node.live and (forest.held(node) or not alike)]
        match pick.choice(["root", "child", "fail", "end", "end"]) if ready else "root":
            case "root" if len(forest.nodes) < 30:
                forest.grow(None, "narrow")
            case "child" if held := [node for node in forest.nodes if forest.held(node)]:
                forest.grow(pick.choice(held), pick.choice(queues))
            case "fail" if held := [node for node in ready if forest.held(node)]:
                forest.fail(pick.choice(held))
            case "end" if ready:
                more = forest.end(pick.choice(ready))
        assert forest.computing <= max(bound, before + more)
        assert not (alike and more)
    while forest.nodes:
        forest.end(next(node for node in forest.nodes if not node.live and (forest.held(node) or node.claim is None)))
    assert (forest.slots.live, forest.slots.waiting) == (0, 0)


def test_queues_are_told_by_name_and_bound() -> None:
    """A server that knows queues refuses other names; one that knows none takes them all."""
    queues = Queues(("gpu=2", "wide", "default=4"))
    assert queues.bounds == {"gpu": 2, "default": 4}
    for name in ("", "gpu", "wide", "default"):
        queues.check(name, field="f")
    with pytest.raises(InvalidArgument, match="f: there is no queue 'gup'; known are default, gpu, wide"):
        queues.check("gup", field="f")
    Queues().check("any", field="f")
    for wrong in ("gpu=some", "gpu=0", "=8", ""):
        with pytest.raises(InvalidArgument, match=f"'{wrong}' is no queue"):
            Queues((wrong,))


class AnyTraffic(RuleBasedStateMachine):
    """Claims of several runs in several queues, ends, suspensions, adoptions, in any order."""

    @initialize(cpu=st.sampled_from([1.0, 3.0, 50.0]), gpus=st.integers(0, 3), one=st.integers(1, 3), two=st.integers(1, 2))
    def begin(self, cpu: float, gpus: int, one: int, two: int) -> None:
        self.queues = {"one": one, "two": two}
        self.slots = slots(cpu, gpus=gpus, **self.queues)
        self.waiting: dict[ActionKey, Claim] = {}
        self.held: dict[ActionKey, Claim] = {}
        self.asleep: set[ActionKey] = set()

    @rule(
        run=st.integers(0, 2),
        number=st.integers(0, 9),
        depth=st.integers(0, 2),
        queue=st.sampled_from(["one", "two", "free"]),
        process=st.booleans(),
        gpu=st.integers(0, 2),
        adopted=st.booleans(),
    )
    def come(self, run: int, number: int, depth: int, queue: str, process: bool, gpu: int, adopted: bool) -> None:
        found = key(run, number)
        gpu = gpu if process else 0
        claim = Claim(depth=depth, queue=queue, process=process, gpu=gpu, run_bound=run)
        if found in self.held or found in self.waiting or not self.slots.fits(claim):
            return
        if adopted and not gpu:
            self.slots.hold(found, claim)
            self.held[found] = claim
        else:
            self.slots.claim(found, claim)
            self.waiting[found] = claim

    @precondition(lambda self: self.held or self.waiting)
    @rule(data=st.data())
    def change(self, data: st.DataObject) -> None:
        found = data.draw(st.sampled_from(sorted({*self.held, *self.waiting})))
        if found in self.held and data.draw(st.booleans()):
            (self.slots.resume if found in self.asleep else self.slots.suspend)(found)
            self.asleep ^= {found}
        else:
            self.slots.release(found)
            self.held.pop(found, None)
            self.waiting.pop(found, None)
            self.asleep.discard(found)

    @rule()
    def admit(self) -> None:
        before = self.slots.active
        for found in self.slots.admit():
            self.held[found] = claim = self.waiting.pop(found)
            if claim.queue in self.queues:
                assert self.computing(queue=claim.queue) <= self.queues[claim.queue]
            if claim.run_bound:
                assert self.computing(run=found.run) <= claim.run_bound
        assert self.slots.active >= before
        for found, claim in self.waiting.items():
            assert self.reason(found, claim), f"{found} waits, and nothing keeps it"

    def computing(self, *, queue: str = "", run: str = "") -> int:
        return sum(
            (not queue or claim.queue == queue) and (not run or found.run == run)
            for found, claim in self.held.items()
            if found not in self.asleep
        )

    def reason(self, found: ActionKey, claim: Claim) -> bool:
        """Why it waits: its queue, its run, GPUs, the machine, or somebody before it who waits for the machine."""
        taken = sum(held.gpu for held in self.held.values())
        return (
            (claim.queue in self.queues and self.computing(queue=claim.queue) >= self.queues[claim.queue])
            or self.computing(run=found.run) >= (claim.run_bound or 99)
            or claim.gpu + taken > len(self.slots.capacity.gpus)
            or (self.full() and (claim.process or self.shared(found, claim)))
        )

    def shared(self, found: ActionKey, claim: Claim) -> bool:
        """Whether a process waits under one of its bounds."""
        return any(
            other.process and (other.queue == claim.queue or where.run == found.run) for where, other in self.waiting.items()
        )

    def full(self) -> bool:
        busy = sum(claim.cpu for found, claim in self.held.items() if claim.process and found not in self.asleep)
        return busy + 1.0 > self.slots.capacity.cpu

    @invariant()
    def counts_agree(self) -> None:
        if hasattr(self, "slots"):
            assert (self.slots.live, self.slots.waiting) == (len(self.held), len(self.waiting))
            assert self.slots.active == len(self.held) - len(self.asleep)


TestAnyTraffic = AnyTraffic.TestCase
