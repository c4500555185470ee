"""Who may compute, for any sequence of claims and any tree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from flyte_unified.core.ids import ActionKey
from flyte_unified.executor.slots import Capacity, Claim, Slots

MEMORY = 1000


def key(name: object) -> ActionKey:
    return ActionKey("p", "d", "r", str(name))


def slots(cpu: float = 2.0, *, gpus: tuple[int, ...] = (), watermark: int = 64, limit: int = 512) -> Slots:
    return Slots(Capacity(cpu=cpu, memory=MEMORY, gpus=gpus, watermark=watermark, limit=limit))


def test_the_deepest_comes_first() -> None:
    """And of the same depth, who came first."""
    s = slots(cpu=1.0)
    for name, depth in (("a", 1), ("b", 3), ("c", 2), ("d", 3)):
        s.claim(key(name), Claim(depth=depth))
    order = []
    while admitted := s.admit():
        order += [found.name for found in admitted]
        s.release(admitted[0])
    assert order == ["b", "d", "c", "a"]


def test_a_claim_repeated_counts_once() -> None:
    """While it waits and while it holds."""
    s = slots()
    for _ in range(2):
        s.claim(key("a"), Claim(depth=0))
    assert s.admit() == [key("a")]
    s.claim(key("a"), Claim(depth=0))
    assert (s.admit(), s.live, s.waiting) == ([], 1, 0)


def test_who_waits_for_children_makes_room_and_comes_back_without_asking() -> None:
    """The active count goes down and up; its process stays."""
    s = slots(cpu=1.0)
    s.claim(key("parent"), Claim(depth=0))
    s.claim(key("child"), Claim(depth=1))
    s.hold(key("parent"), Claim(depth=0))
    assert s.admit() == []
    s.suspend(key("parent"))
    assert s.admit() == [key("child")]
    s.resume(key("parent"))
    assert (s.active, s.live) == (2, 2)
    s.release(key("child"))
    s.release(key("parent"))
    s.claim(key("next"), Claim(depth=0))
    assert s.admit() == [key("next")]


def test_one_that_asks_for_more_than_there_is_runs_alone() -> None:
    """CPU and memory are shared: too much is no refusal."""
    s = slots(cpu=2.0)
    s.claim(key("small"), Claim(depth=1))
    s.claim(key("big"), Claim(depth=0, cpu=8.0, memory=10 * MEMORY))
    assert s.admit() == [key("small")]
    s.release(key("small"))
    assert s.admit() == [key("big")]
    s.claim(key("small"), Claim(depth=1))
    assert s.admit() == []


def test_memory_is_counted_of_those_who_wait_too() -> None:
    """A parent that waits keeps its memory."""
    s = slots(cpu=4.0)
    s.hold(key("parent"), Claim(depth=0, memory=800))
    s.suspend(key("parent"))
    s.hold(key("other"), Claim(depth=0))
    s.claim(key("child"), Claim(depth=1, memory=300))
    assert s.admit() == []
    s.release(key("parent"))
    assert s.admit() == [key("child")]


def test_gpus_are_never_shared() -> None:
    """Each holder has numbers of its own; who needs none passes by those that wait for one."""
    s = slots(cpu=9.0, gpus=(0, 1, 2))
    s.claim(key("two"), Claim(depth=3, gpu=2))
    s.claim(key("more"), Claim(depth=2, gpu=2))
    s.claim(key("none"), Claim(depth=1))
    assert s.admit() == [key("two"), key("none")]
    assert (s.gpus(key("two")), s.gpus(key("more"))) == ((0, 1), ())
    s.release(key("two"))
    assert s.admit() == [key("more")]
    assert not s.fits(Claim(depth=0, gpu=4))


def test_over_the_watermark_one_at_a_time() -> None:
    """However many slots are free, and the deepest first."""
    s = slots(cpu=9.0, watermark=2)
    for n in range(2):
        s.hold(key(n), Claim(depth=0))
        s.suspend(key(n))
    s.claim(key("a"), Claim(depth=1))
    s.claim(key("b"), Claim(depth=2))
    assert s.admit() == [key("b")]
    s.suspend(key("b"))
    assert s.admit() == [key("a")]


def test_at_the_limit_only_a_deadlock_is_refused() -> None:
    """While somebody computes, waiting may help; when nobody does, the deepest is told."""
    s = slots(limit=2)
    for n in range(2):
        s.hold(key(n), Claim(depth=n))
    s.claim(key("a"), Claim(depth=1))
    s.claim(key("b"), Claim(depth=2))
    assert (s.admit(), s.refuse()) == ([], None)
    for n in range(2):
        s.suspend(key(n))
    assert (s.admit(), s.refuse()) == ([], key("b"))


def test_a_root_waits_at_the_limit() -> None:
    """Who holds every process waits for a timer or a person, and not for it."""
    s = slots(limit=1)
    s.hold(key("parent"), Claim(depth=0))
    s.suspend(key("parent"))
    s.claim(key("root"), Claim(depth=0))
    assert (s.admit(), s.refuse()) == ([], None)
    s.release(key("parent"))
    assert s.admit() == [key("root")]


class AnyUse(RuleBasedStateMachine):
    """Claims, ends, suspensions in any order."""

    @initialize(cpu=st.sampled_from([1.0, 2.0, 4.0]), watermark=st.integers(1, 6), gpus=st.integers(0, 3))
    def begin(self, cpu: float, watermark: int, gpus: int) -> None:
        self.slots = slots(cpu, gpus=tuple(range(gpus)), watermark=watermark, limit=8)
        self.claims: dict[ActionKey, Claim] = {}
        self.held: dict[ActionKey, bool] = {}

    @rule(
        number=st.integers(0, 12),
        depth=st.integers(0, 4),
        cpu=st.sampled_from([0.5, 1.0, 3.0]),
        memory=st.integers(0, 600),
        gpu=st.integers(0, 2),
    )
    def claim(self, number: int, depth: int, cpu: float, memory: int, gpu: int) -> None:
        claim = Claim(depth=depth, cpu=cpu, memory=memory, gpu=gpu)
        if self.slots.fits(claim) and key(number) not in self.held:
            self.slots.claim(key(number), claim)
            self.claims.setdefault(key(number), claim)

    @rule()
    def admit(self) -> None:
        waiting = {k: c for k, c in self.claims.items() if k not in self.held}
        active_before = self.active()
        admitted = self.slots.admit()
        for found in admitted:
            assert found in waiting
            self.held[found] = True
        active = self.active()
        if len(active) > 1 and admitted:
            assert sum(self.claims[k].cpu for k in active) <= self.slots.capacity.cpu + 1e-6
        if len(self.held) > self.slots.capacity.watermark and admitted:
            assert len(admitted) == 1 or len(self.held) - 1 <= self.slots.capacity.watermark
        if not active_before and waiting and len(self.held) - len(admitted) < self.slots.capacity.limit:
            taken = sum(self.claims[k].gpu for k in self.held if k not in admitted)
            if any(c.gpu + taken <= len(self.slots.capacity.gpus) for c in waiting.values()):
                assert admitted, "nobody computes, and yet nobody may"

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def change(self, data: st.DataObject) -> None:
        chosen = data.draw(st.sampled_from(sorted(self.held)))
        if data.draw(st.booleans()):
            self.slots.release(chosen)
            del self.held[chosen], self.claims[chosen]
        else:
            (self.slots.suspend if self.held[chosen] else self.slots.resume)(chosen)
            self.held[chosen] = not self.held[chosen]

    def active(self) -> list[ActionKey]:
        return [k for k, active in self.held.items() if active]

    @invariant()
    def counts_agree(self) -> None:
        if not hasattr(self, "slots"):
            return
        assert self.slots.active == len(self.active())
        assert self.slots.live == len(self.held) <= self.slots.capacity.limit
        assert self.slots.waiting == len(self.claims) - len(self.held)
        numbers = [number for k in self.held for number in self.slots.gpus(k)]
        assert len(numbers) == len(set(numbers))
        assert all(len(self.slots.gpus(k)) == self.claims[k].gpu for k in self.held)


TestAnyUse = AnyUse.TestCase


@dataclass
class Node:
    name: str
    depth: int
    children: list[Node] = field(default_factory=list)
    done: bool = False

    @property
    def pending(self) -> int:
        return sum(not child.done for child in self.children)


@st.composite
def trees(draw: st.DrawFn) -> Node:
    """Up to 40 nodes, of any shape."""
    nodes = [Node("0", 0)]
    for number in range(1, draw(st.integers(1, 40))):
        parent = nodes[draw(st.integers(0, len(nodes) - 1))]
        node = Node(str(number), parent.depth + 1)
        parent.children.append(node)
        nodes.append(node)
    return nodes[0]


@given(tree=trees(), cpu=st.integers(1, 4), watermark=st.integers(1, 50), pick=st.randoms(use_true_random=False))
def test_every_tree_ends_on_any_number_of_slots(tree: Node, cpu: int, watermark: int, pick: object) -> None:
    """Whatever the shape and the order of events: every action ends, and never do more compute than there are slots for."""
    choose: Callable[[list[Node]], Node] = pick.choice  # type: ignore[attr-defined]  # a random.Random
    s = slots(float(cpu), watermark=watermark)
    nodes = {key(tree.name): tree}
    s.claim(key(tree.name), Claim(depth=0))
    running: list[Node] = []
    parents: dict[str, Node] = {}
    for _ in range(500):
        running += [nodes[found] for found in s.admit()]
        assert s.active <= max(cpu, sum(not node.pending for node in running))
        computing = [node for node in running if not node.pending or key(node.name) not in spawned(parents)]
        if not computing:
            break
        node = choose(computing)
        if node.children and node.pending and not any(parents.get(child.name) for child in node.children):
            for child in node.children:
                parents[child.name] = node
                nodes[key(child.name)] = child
                s.claim(key(child.name), Claim(depth=child.depth))
            s.suspend(key(node.name))
            continue
        node.done = True
        running.remove(node)
        s.release(key(node.name))
        if (parent := parents.get(node.name)) is not None and not parent.pending:
            s.resume(key(parent.name))
    assert tree.done
    assert (s.live, s.waiting, s.active) == (0, 0, 0)


def spawned(parents: dict[str, Node]) -> set[ActionKey]:
    """Who has started its children."""
    return {key(parent.name) for parent in parents.values()}


@pytest.mark.parametrize("depth", [1, 100])
def test_a_chain_ends_on_one_slot(depth: int) -> None:
    """Each calls the next and waits: the active count is always one."""
    s = slots(cpu=1.0, limit=512)
    for level in range(depth):
        s.claim(key(level), Claim(depth=level))
        assert s.admit() == [key(level)]
        assert s.active == 1
        s.suspend(key(level))
    assert s.live == depth


def test_queues_are_told() -> None:
    """Those with a bound, and those in which somebody computes or waits."""
    s = Slots(Capacity(cpu=8, memory=MEMORY), {"narrow": 1, "empty": 3})
    for name, queue in (("a", "narrow"), ("b", "narrow"), ("c", "wide")):
        s.claim(key(name), Claim(depth=0, queue=queue))
    s.admit()
    assert s.queues == {"empty": (0, 0, 3), "narrow": (1, 1, 1), "wide": (1, 0, 0)}
    s.suspend(key("c"))
    s.release(key("b"))
    assert s.queues == {"empty": (0, 0, 3), "narrow": (1, 0, 1)}
