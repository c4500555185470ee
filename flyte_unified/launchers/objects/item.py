"""One attempt and its object, as they are known here."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from flyteidl2.core import execution_pb2
from flyteidl2.workflow import run_definition_pb2

from flyte_unified.core.clock import Micros, timestamp
from flyte_unified.core.phases import Phase
from flyte_unified.kube.kinds import Object
from flyte_unified.launchers.api import WorkId
from flyte_unified.launchers.objects.logs import Early, Place
from flyte_unified.plugins.api import Exit, State

_MOST_EVENTS = 50
"""Of the cluster's, told of one attempt."""


class Reader(Protocol):
    """What objects of one kind mean, by what is known here. Nothing but ``locate`` asks."""

    propagation: str
    """Foreground where what an object made must be gone before it counts as ended."""

    def state(self, obj: Object, now: Micros) -> State: ...

    def gone(self, obj: Object, now: Micros) -> State:
        """Of an object that is no more, and was last seen like this without an end."""

    def started(self, obj: Object) -> Micros | None: ...

    def where(self, obj: Object) -> str:
        """For people"""

    def details(self, obj: Object) -> run_definition_pb2.ActionAttempt | None:
        """Of an object that has started"""

    def place(self, obj: Object) -> Place | None:
        """The container whose log is the attempt's, once it has one, if it is the object's own."""

    def lingers(self, obj: Object, now: Micros) -> Micros | None:
        """Until when an object that was given up may still come to run; None: it may not."""

    def remains(self, obj: Object, *, faulty: bool) -> int | None:
        """In how many seconds what runs on after the attempt's end is to end; None: nothing does, or nobody minds.

        ``faulty``: the attempt was given up, whatever the object says of itself.
        """

    async def locate(self, obj: Object) -> tuple[Place, run_definition_pb2.ActionAttempt] | None:
        """The same as ``place`` and ``details`` where they are another object's. Raises KubeError."""


@dataclass(slots=True, eq=False)
class Item:
    """``manifest`` is what is still to be created, ``obj`` what the cluster has. Times are the loop's."""

    work: WorkId
    namespace: str
    name: str
    manifest: Object | None = None
    obj: Object | None = None
    uid: str = ""
    gone: bool = False
    unsure: bool = False
    """A try to create it had no answer."""
    told: Phase = Phase.QUEUED
    started: bool = False
    ended: bool = False
    faulty: bool = False
    forgotten: bool = False
    released: bool = False
    verdict: Exit | None = None
    """It was given up, and is deleted for that; its end is told when nothing can come of it any more."""
    grace: float | None = None
    """It is to be killed."""
    deleted: bool = False
    """Asked for with that grace."""
    stale: str = ""
    """The version that was deleted: what it tells is from before."""
    place: Place | None = None
    early: Early | None = None
    links: tuple[execution_pb2.TaskLog, ...] = ()
    failures: int = 0
    not_before: float = 0.0
    """Of the next step"""
    searches: int = 0
    locate_at: float = 0.0
    tell_at: float = 0.0
    """When what is pending is told though nothing follows it; 0: nothing is pending."""
    pending: list[run_definition_pb2.ClusterEvent] | None = None
    heard: set[str] | None = None
    worker: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None

    @property
    def dying(self) -> bool:
        return self.obj is not None and "deletionTimestamp" in self.obj["metadata"]

    def hear(self, event: run_definition_pb2.ClusterEvent) -> bool:
        """Whether it is news. Repetitions are not: Kubernetes says the same with another time and count, again and again."""
        heard = self.heard = self.heard if self.heard is not None else set()
        if not event.message or event.message in heard or len(heard) >= _MOST_EVENTS:
            return False
        heard.add(event.message)
        self.pending = [*(self.pending or ()), event]
        return True

    def say(self, message: str, at: Micros) -> None:
        """The same, in words of ours."""
        kind = run_definition_pb2.ClusterEvent.TYPE_NORMAL
        self.hear(run_definition_pb2.ClusterEvent(occurred_at=timestamp(at), message=message, type=kind, count=1))
