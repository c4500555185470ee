"""Who waits to compute, and whose turn it is. Pure.

Actions of one run in one queue stand in a line: the deepest first, then who came first. Lines take turns, so that a run with
ten thousand waiting actions keeps no other waiting. A line whose queue or run computes as much as it may leaves the turns, and
comes back in the order of leaving when there is room: what an admission costs does not grow with what waits.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from flyte_unified.core import queues
from flyte_unified.core.ids import ActionKey, RunKey

DEFAULT_CPU = 1.0
"""What an action counts that asks for nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What one action asks for. ``cpu`` in CPUs, ``memory`` in bytes."""

    depth: int
    cpu: float = DEFAULT_CPU
    memory: int = 0
    gpu: int = 0
    process: bool = True
    """Whether it computes on this machine; what runs elsewhere takes nothing of its capacity."""
    queue: str = queues.DEFAULT
    run_bound: int = 0
    """How many actions of its run may compute at once; 0: as many as there is room for."""


class _Entry(NamedTuple):
    """In the order of admission. The claim is never compared: no two have one ``order``."""

    height: int
    order: int
    key: ActionKey
    claim: Claim


class Place(NamedTuple):
    """What those in one line have in common."""

    queue: str
    run: RunKey
    process: bool
    gpu: int
    root: bool

    @classmethod
    def of(cls, key: ActionKey, claim: Claim) -> Place:
        return cls(claim.queue, key.run_key, claim.process, claim.gpu, claim.depth == 0)


class Line:
    """Waiting actions that the same ``bounds`` hold for."""

    def __init__(self, place: Place, bounds: tuple[Bound, ...]) -> None:
        self.place = place
        self.bounds = bounds
        self._heap: list[_Entry] = []
        self._orders: dict[ActionKey, int] = {}

    @property
    def first(self) -> _Entry | None:
        """Who is next; None when nobody waits any more."""
        while self._heap and self._orders.get(self._heap[0].key) != self._heap[0].order:  # left while it waited
            heapq.heappop(self._heap)
        return self._heap[0] if self._heap else None

    @property
    def claim(self) -> Claim | None:
        """The same of its claim."""
        return self.first.claim if self.first is not None else None

    def join(self, key: ActionKey, claim: Claim, order: int) -> None:
        self._orders[key] = order
        heapq.heappush(self._heap, _Entry(-claim.depth, order, key, claim))

    def leave(self, key: ActionKey) -> None:
        del self._orders[key]


class Turns:
    """Lines that have a turn, one after the other.

    Roots alternate with what is below them: neither does a run that is large keep others from beginning, nor do many runs
    that begin keep any from going on.
    """

    def __init__(self) -> None:
        self._roots: deque[Line] = deque()
        self._below: deque[Line] = deque()
        self._root_was_last = False

    def add(self, line: Line) -> None:
        """At the end."""
        self._of(line).append(line)

    def add_first(self, line: Line) -> None:
        self._of(line).appendleft(line)

    def remove(self, line: Line) -> None:
        self._of(line).remove(line)

    def next(self, *, roots_last: bool) -> Line | None:
        """Whose turn it is."""
        below_first = roots_last or self._root_was_last
        lines = (self._below or self._roots) if below_first else (self._roots or self._below)
        return lines[0] if lines else None

    def take(self, *, roots_last: bool) -> Line | None:
        """The same, and it leaves."""
        if (line := self.next(roots_last=roots_last)) is not None:
            self._of(line).popleft()
            self._root_was_last = line.place.root
        return line

    def served(self, line: Line) -> None:
        """The next one has had its turn, and goes to the end of its kind."""
        self._of(line).rotate(-1)
        self._root_was_last = line.place.root

    def deepest(self) -> Line | None:
        """The line with the deepest action of all; an empty one comes before."""
        return min((*self._below, *self._roots), key=lambda line: line.first or (), default=None)

    def _of(self, line: Line) -> deque[Line]:
        return self._roots if line.place.root else self._below


@dataclass(slots=True, eq=False, weakref_slot=True)
class Bound:
    """``most`` of something, ``taken`` of it in use. ``parked`` are the lines that wait for more."""

    most: int
    gpus: bool = False
    """Counts GPUs, and not actions"""
    taken: int = 0
    idle: int = 0
    """Holders that have begun and take nothing: they wait for their children"""
    parked: Turns = field(default_factory=Turns)

    def units(self, claim: Claim) -> int:
        return claim.gpu if self.gpus else 1

    def has_room(self, claim: Claim) -> bool:
        return self.taken + self.units(claim) <= self.most

    def woken(self, *, roots_last: bool) -> Iterator[Line]:
        """Lines for which there is room now; they are parked no more. Of GPUs, one that wants less may pass by."""
        free = self.most - self.taken
        passed: list[Line] = []
        while free > 0 and (line := self.parked.take(roots_last=roots_last)) is not None:
            units = self.units(line.claim) if line.claim is not None else 0
            if units > free:
                passed.append(line)
                continue
            free -= units
            yield line
        for line in reversed(passed):
            self.parked.add_first(line)
