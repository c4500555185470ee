"""Who may compute now. Pure: no clock, no I/O.

An action that waits for its children computes nothing: it leaves the active count, and comes back without asking when they
have ended; so no bound on what computes keeps a tree from its end. Runs take turns, and within a run the deepest comes first:
what is nearest to its end, so that a tree of any size goes on with few slots. Every live process costs memory, though, waiting
or not: over half the watermark (of processes, or of those in one queue that wait) no run begins while another can go on; over
the watermark one action at a time is admitted, the deepest of all, which keeps progress certain; when even that is over the
hard limit and nothing computes, it is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple
from weakref import WeakValueDictionary

from flyte_unified.core.ids import ActionKey, RunKey
from flyte_unified.executor.lines import Bound, Claim, Line, Place, Turns

__all__ = ["Capacity", "Claim", "Slots"]


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the machine has. ``gpus`` are their numbers; ``watermark`` and ``limit`` count live processes."""

    cpu: float
    memory: int
    gpus: tuple[int, ...] = ()
    watermark: int = 64
    limit: int = 512


class Queue(NamedTuple):
    """How many actions of a queue compute and wait, and how many may compute; 0: as many as there is room for."""

    computing: int
    waiting: int
    bound: int


@dataclass(slots=True)
class _Held:
    claim: Claim
    bounds: tuple[Bound, ...]
    gpus: tuple[int, ...]
    suspended: bool = False


class Slots:
    """``claim``, then ask ``admit`` who may start; ``release`` when its process is gone.

    ``queues`` are the most actions that compute at once of each queue that has a bound.
    """

    def __init__(self, capacity: Capacity, queues: Mapping[str, int] | None = None) -> None:
        self.capacity = capacity
        self._queues = {name: Bound(most) for name, most in (queues or {}).items()}
        self._runs: WeakValueDictionary[RunKey, Bound] = WeakValueDictionary()
        """Those of lines and holders"""
        self._gpus = Bound(len(capacity.gpus), gpus=True)
        self._free_gpus = set(capacity.gpus)
        self._held: dict[ActionKey, _Held] = {}
        self._waiting: dict[ActionKey, Line] = {}
        self._lines: dict[Place, Line] = {}
        self._local, self._remote = Turns(), Turns()
        self._order = 0
        self._cpu = 0.0
        self._memory = 0
        self._processes = 0
        self._computing = 0
        """Processes that compute"""
        self._suspended = 0

    @property
    def active(self) -> int:
        """Actions that compute."""
        return len(self._held) - self._suspended

    @property
    def live(self) -> int:
        """Actions with a process."""
        return len(self._held)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def queues(self) -> dict[str, Queue]:
        """Those that have a bound, and those in which somebody is."""
        computing = Counter(held.claim.queue for held in self._held.values() if not held.suspended)
        waiting = Counter(line.place.queue for line in self._waiting.values())
        bounds = {name: bound.most for name, bound in self._queues.items()}
        names = sorted({*computing, *waiting, *bounds})
        return {name: Queue(computing[name], waiting[name], bounds.get(name, 0)) for name in names}

    def fits(self, claim: Claim) -> bool:
        """Whether the machine could ever take it. CPU and memory are shared, GPUs are not."""
        return claim.gpu <= len(self.capacity.gpus)

    def claim(self, key: ActionKey, claim: Claim) -> None:
        if key in self._held or key in self._waiting:
            return
        place = Place.of(key, claim)
        line = self._lines.get(place)
        if line is None:
            line = self._lines[place] = Line(place, (*self._bounds(key, claim), *((self._gpus,) if claim.gpu else ())))
            self._turns(line).add(line)
        self._order += 1
        line.join(key, claim, self._order)
        self._waiting[key] = line

    def hold(self, key: ActionKey, claim: Claim) -> None:
        """Takes a slot without asking: its process is there already, adopted after a restart."""
        if key not in self._held:
            self._leave(key)
            self._take(key, claim)

    def release(self, key: ActionKey) -> None:
        self._leave(key)
        if (held := self._held.get(key)) is None:
            return
        self.suspend(key)
        self._rest(self._held.pop(key), -1)
        self._memory -= held.claim.memory
        self._processes -= held.claim.process
        self._gpus.taken -= len(held.gpus)
        self._free_gpus.update(held.gpus)
        self._wake(self._gpus)

    def suspend(self, key: ActionKey) -> None:
        """It waits for its children."""
        if (held := self._held.get(key)) is not None and not held.suspended:
            held.suspended = True
            self._rest(held, +1)
            self._count(held, -1)
            for bound in reversed(held.bounds):  # its run before its queue: who ends gives its turn to its own
                self._wake(bound)

    def resume(self, key: ActionKey) -> None:
        """Its last child has ended."""
        if (held := self._held.get(key)) is not None and held.suspended:
            held.suspended = False
            self._rest(held, -1)
            self._count(held, +1)

    def gpus(self, key: ActionKey) -> tuple[int, ...]:
        """The GPUs that a holder has for itself."""
        held = self._held.get(key)
        return held.gpus if held is not None else ()

    def admit(self) -> list[ActionKey]:
        """Actions that have just got their slot, in the order of their turns."""
        admitted: list[ActionKey] = []
        for turns in (self._remote, self._local):
            while (line := self._next(turns)) is not None and (first := line.first) is not None:
                self._leave(first.key)
                self._take(first.key, first.claim)
                admitted.append(first.key)
        return admitted

    def refuse(self) -> ActionKey | None:
        """The deepest waiting child when nothing computes and the hard limit forbids starting anything: a deadlock.

        A root may wait: what those who hold wait for is below them.
        """
        if self._computing or self._processes < self.capacity.limit:
            return None
        firsts = (line.first for place, line in self._lines.items() if place.process and not place.root)
        deepest = min(filter(None, firsts), default=None)
        return deepest.key if deepest is not None else None

    def _next(self, turns: Turns) -> Line | None:
        """The line whose first may start now; it has had its turn then."""
        while (line := turns.next(roots_last=self._many(self._processes))) is not None:
            if (claim := self._standing(line)) is None:
                turns.remove(line)
            elif self._has_room(claim):
                turns.served(line)
                return line
            else:
                return self._alone(turns)
        return None

    def _alone(self, turns: Turns) -> Line | None:
        """The same where there is no room: somebody has to compute."""
        if self._computing or self._processes >= self.capacity.limit:
            return None
        while (line := turns.deepest()) is not None and self._standing(line) is None:
            turns.remove(line)
        return line

    def _standing(self, line: Line) -> Claim | None:
        """The first's claim, if nothing but this machine keeps it waiting; else the line is put where it is woken again."""
        claim = line.claim
        full = next((bound for bound in line.bounds if claim is not None and not bound.has_room(claim)), None)
        if claim is not None and full is None:
            return claim
        if full is not None:
            full.parked.add(line)
        else:
            del self._lines[line.place]
        for bound in line.bounds:  # it may have been woken for what another can take
            self._wake(bound)
        return None

    def _wake(self, bound: Bound) -> None:
        for line in bound.woken(roots_last=self._many(max(self._processes, bound.idle))):
            self._turns(line).add(line)

    def _many(self, begun: int) -> bool:
        """Whether so many wait in the midst of their work, or may come to, that no other is to begin."""
        return 2 * begun >= self.capacity.watermark

    def _turns(self, line: Line) -> Turns:
        return self._local if line.place.process else self._remote

    def _bounds(self, key: ActionKey, claim: Claim) -> tuple[Bound, ...]:
        """Those of its queue and of its run."""
        bounds = [queue] if (queue := self._queues.get(claim.queue)) is not None else []
        if claim.run_bound:
            bounds.append(self._runs.setdefault(key.run_key, Bound(claim.run_bound)))
        return tuple(bounds)

    def _has_room(self, claim: Claim) -> bool:
        if not claim.process:
            return True
        if self._processes >= min(self.capacity.watermark, self.capacity.limit):
            return False
        return self._cpu + claim.cpu <= self.capacity.cpu + 1e-9 and self._memory + claim.memory <= self.capacity.memory

    def _take(self, key: ActionKey, claim: Claim) -> None:
        gpus = tuple(sorted(self._free_gpus))[: claim.gpu]
        self._free_gpus.difference_update(gpus)
        self._gpus.taken += len(gpus)
        self._held[key] = held = _Held(claim, self._bounds(key, claim), gpus)
        self._memory += claim.memory
        self._processes += claim.process
        self._count(held, +1)

    def _leave(self, key: ActionKey) -> None:
        if (line := self._waiting.pop(key, None)) is not None:
            line.leave(key)

    def _rest(self, held: _Held, step: int) -> None:
        """It begins to wait for its children, or has waited."""
        self._suspended += step
        for bound in held.bounds:
            bound.idle += step

    def _count(self, held: _Held, step: int) -> None:
        """It begins to compute, or stops."""
        for bound in held.bounds:
            bound.taken += step
        if held.claim.process:
            self._computing += step
            self._cpu += step * held.claim.cpu
