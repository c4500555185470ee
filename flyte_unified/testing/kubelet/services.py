"""What the lives of pods and containers share on one node, and how patient the node is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from flyte_unified.core.clock import Clock
from flyte_unified.kube.client import Kube
from flyte_unified.kube.errors import KubeError, Missing
from flyte_unified.testing.kubelet.events import Recorder
from flyte_unified.testing.kubelet.images import Images
from flyte_unified.testing.kubelet.network import Network
from flyte_unified.testing.kubelet.runtime import Runtime

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Seconds, the kubelet's own by default; tests that wait for them shorten them."""

    crash_first: float = 10.0
    """Before the second restart of a container; doubled each time. The first restart is at once."""
    crash_most: float = 300.0
    crash_forgotten: float = 600.0
    """After a run of this length the container starts with a clean record."""
    pull_first: float = 10.0
    pull_most: float = 300.0
    retry: float = 5.0
    """Before what is missing (a secret, a volume) is looked for again."""
    write: float = 0.2
    """Before a write that the API server did not take is repeated; doubled up to ``write_most``."""
    write_most: float = 10.0
    renew: float = 10.0
    """Between two renewals of the node's lease, which is good for four of them."""
    report: float = 300.0
    """Between two reports of an unchanged node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """One node's."""

    kube: Kube
    runtime: Runtime
    images: Images
    events: Recorder
    clock: Clock
    pace: Pace
    allocatable: Mapping[str, str]
    warm: bool
    network: Network | None
    gate: asyncio.Event
    """Set while pods may start."""

    def pod_directory(self, uid: str) -> Path:
        return self.runtime.directory / "pods" / uid


class Backoff:
    """Growing pauses."""

    def __init__(self, first: float, most: float) -> None:
        self._first = first
        self._most = most
        self._next = first

    def next(self) -> float:
        """The pause to make now."""
        pause = self._next
        self._next = min(self._next * 2, self._most)
        return pause

    def reset(self) -> None:
        self._next = self._first


async def insist(call: Callable[[], Awaitable[Answer]], pace: Pace) -> Answer:
    """Repeat a call until the API server answers it well. Raises Missing."""
    backoff = Backoff(pace.write, pace.write_most)
    while True:
        try:
            return await call()
        except Missing:
            raise
        except KubeError as error:
            await asyncio.sleep(max(error.retry_after or 0.0, backoff.next()))
