"""Who may compute now. Pure: no clock, no I/O.

An action that waits for its children computes nothing: it leaves the active count, and comes back without asking when they have
ended. Ready actions are admitted deepest first, so a tree of any size goes on with few slots: what is nearest to its end comes
first. Every live process costs memory, though, waiting or not: over a watermark one action at a time is admitted, the deepest,
which keeps progress certain; when even that is over the hard limit and nothing computes, it is refused.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from flyte_unified.core.ids import ActionKey

DEFAULT_CPU = 1.0
"""What an action counts that asks for nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What one action asks for. ``cpu`` in CPUs, ``memory`` in bytes."""

    depth: int
    cpu: float = DEFAULT_CPU
    memory: int = 0
    gpu: int = 0


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the machine has. ``gpus`` are their numbers; ``watermark`` and ``limit`` count live processes."""

    cpu: float
    memory: int
    gpus: tuple[int, ...] = ()
    watermark: int = 64
    limit: int = 512


@dataclass(slots=True)
class _Held:
    claim: Claim
    gpus: tuple[int, ...]
    suspended: bool = False


@dataclass(slots=True)
class Slots:
    """``claim``, then ask ``admit`` who may start; ``release`` when its process is gone."""

    capacity: Capacity
    _held: dict[ActionKey, _Held] = field(default_factory=dict)
    _waiting: dict[ActionKey, Claim] = field(default_factory=dict)
    _queue: list[tuple[int, int, ActionKey]] = field(default_factory=list)
    _order: int = 0
    _cpu: float = 0.0
    _memory: int = 0

    @property
    def active(self) -> int:
        """Actions that compute."""
        return sum(not held.suspended for held in self._held.values())

    @property
    def live(self) -> int:
        """Actions with a process."""
        return len(self._held)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def fits(self, claim: Claim) -> bool:
        """Whether the machine could ever take it. CPU and memory are shared, GPUs are not."""
        return claim.gpu <= len(self.capacity.gpus)

    def claim(self, key: ActionKey, claim: Claim) -> None:
        if key not in self._held and key not in self._waiting:
            self._waiting[key] = claim
            self._order += 1
            heapq.heappush(self._queue, (-claim.depth, self._order, key))

    def hold(self, key: ActionKey, claim: Claim) -> None:
        """Takes a slot without asking: its process is there already, adopted after a restart."""
        if key not in self._held:
            self._waiting.pop(key, None)
            self._take(key, claim)

    def release(self, key: ActionKey) -> None:
        self._waiting.pop(key, None)
        if (held := self._held.pop(key, None)) is not None:
            self._memory -= held.claim.memory
            if not held.suspended:
                self._cpu -= held.claim.cpu

    def suspend(self, key: ActionKey) -> None:
        """It waits for its children."""
        if (held := self._held.get(key)) is not None and not held.suspended:
            held.suspended = True
            self._cpu -= held.claim.cpu

    def resume(self, key: ActionKey) -> None:
        """Its last child has ended."""
        if (held := self._held.get(key)) is not None and held.suspended:
            held.suspended = False
            self._cpu += held.claim.cpu

    def gpus(self, key: ActionKey) -> tuple[int, ...]:
        """The GPUs that a holder has for itself."""
        held = self._held.get(key)
        return held.gpus if held is not None else ()

    def admit(self) -> list[ActionKey]:
        """Actions that have just got their slot, deepest first."""
        admitted: list[ActionKey] = []
        skipped: list[tuple[int, int, ActionKey]] = []
        while self._queue:
            entry = self._queue[0]
            claim = self._waiting.get(entry[2])
            if claim is None:  # released while it waited
                heapq.heappop(self._queue)
                continue
            if not self._room(claim):
                break
            heapq.heappop(self._queue)
            if claim.gpu > len(self._free_gpus()):  # does not stand in the way of those that need none
                skipped.append(entry)
                continue
            del self._waiting[entry[2]]
            self._take(entry[2], claim)
            admitted.append(entry[2])
        for entry in skipped:
            heapq.heappush(self._queue, entry)
        return admitted

    def refuse(self) -> ActionKey | None:
        """The deepest waiting child when nothing computes and the hard limit forbids starting anything: a deadlock.

        A root may wait: what those who hold wait for is below them.
        """
        children = [key for key, claim in self._waiting.items() if claim.depth]
        if not children or self.active or len(self._held) < self.capacity.limit:
            return None
        return max(children, key=lambda key: self._waiting[key].depth)

    def _room(self, claim: Claim) -> bool:
        if len(self._held) >= self.capacity.limit:
            return False
        if not self.active:
            return True
        if len(self._held) >= self.capacity.watermark:
            return False
        return self._cpu + claim.cpu <= self.capacity.cpu + 1e-9 and self._memory + claim.memory <= self.capacity.memory

    def _take(self, key: ActionKey, claim: Claim) -> None:
        gpus = tuple(self._free_gpus())[: claim.gpu]
        self._held[key] = _Held(claim, gpus)
        self._cpu += claim.cpu
        self._memory += claim.memory

    def _free_gpus(self) -> list[int]:
        taken = {number for held in self._held.values() for number in held.gpus}
        return [number for number in self.capacity.gpus if number not in taken]
