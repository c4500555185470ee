"""Who makes triggers fire: one heap of times and one timer, whatever the number of triggers.

A fire becomes a run whose name follows from the trigger and the time, and only then is the trigger's next time stored. So
whatever dies in between, and whoever else believes to lead, a fire is one run: that is why no epoch is needed here. A trigger
on an artifact is due since the version that it waits for appeared, and is otherwise like one on a clock. The
timer runs by a clock that stands still while the machine sleeps, and the wall clock may be set, of which no system tells every
program; so a wait is never longer than ``_LOOK``, after which one comparison says what is due.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import heapq
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NamedTuple

import structlog
from flyteidl2.common import identifier_pb2
from flyteidl2.workflow import run_definition_pb2, run_service_pb2

from flyte_unified.core.clock import SECOND, Clock, Micros, timestamp
from flyte_unified.core.context import CallContext, Identity
from flyte_unified.core.errors import (
    AlreadyExists,
    FailedPrecondition,
    FlyteUnifiedError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
)
from flyte_unified.triggers.catchup import CatchUp
from flyte_unified.triggers.model import Automation, Trigger, TriggerKey
from flyte_unified.triggers.offers import Offers
from flyte_unified.triggers.service import Triggers

_log = structlog.get_logger(__name__)

CreateRun = Callable[[run_service_pb2.CreateRunRequest, CallContext], Awaitable[object]]

_LOOK = 30.0
"""Seconds."""
_AT_ONCE = 16
"""Fires under way: at midnight all come together, and clients want the server too."""
_FIRST_RETRY, _LAST_RETRY = 1.0, 300.0
"""Seconds between tries of a fire that failed: twice as long each time."""
_REFUSED = (InvalidArgument, NotFound, FailedPrecondition, PermissionDenied)
"""What another try would not mend: a project is archived, an input is missing."""
_NAME_BYTES = 12


class _Retry(NamedTuple):
    failures: int
    at: Micros


class Standing(NamedTuple):
    """How it is with all triggers."""

    planned: int
    next: Micros | None
    failing: int
    """Could not fire when they should have, and are tried again."""


class Scheduler:
    """For the server that leads. ``create`` is CreateRun."""

    def __init__(self, *, triggers: Triggers, offers: Offers, create: CreateRun, clock: Clock, catch_up: CatchUp) -> None:
        self._triggers = triggers
        self._offers = offers
        self._create = create
        self._clock = clock
        self._catch_up = catch_up
        self._heap: list[tuple[Micros, TriggerKey]] = []
        self._at: dict[TriggerKey, Micros] = {}
        """Which entry of the heap counts."""
        self._firing: dict[TriggerKey, asyncio.Task[None]] = {}
        self._retries: dict[TriggerKey, _Retry] = {}
        self._stale: set[TriggerKey | None] = set()
        """What has to be read again; None: everything."""
        self._wake = asyncio.Event()
        self._leave: Callable[[], None] | None = None
        self._loop: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Goes on where the last one ended: what came due meanwhile is caught up."""
        self._leave = self._triggers.subscribe(self._told)
        self._told(None)
        self._loop = asyncio.create_task(self._run(), name="trigger scheduler")

    async def close(self) -> None:
        """At once. A fire under way is begun again by the next one, under the same name."""
        if self._loop is None or self._leave is None:
            return
        self._leave()
        tasks = [self._loop, *self._firing.values()]
        self._loop = self._leave = None
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        self._heap.clear()
        self._at.clear()
        self._retries.clear()

    @property
    def standing(self) -> Standing:
        """By what is known; of nothing while another server leads."""
        return Standing(len(self._at) + len(self._firing), self._next(), len(self._retries))

    def _told(self, key: TriggerKey | None) -> None:
        """A change may mend what kept a fire from being a run, so it is tried at once."""
        if key is not None:
            self._retries.pop(key, None)
        self._look_again(key)

    def _look_again(self, key: TriggerKey | None) -> None:
        self._stale.add(key)
        self._wake.set()

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            await self._read()
            self._launch()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._patience()):
                    await self._wake.wait()

    async def _read(self) -> None:
        """What is stale is known again."""
        while self._stale:
            key = self._stale.pop()
            try:
                await self._read_one(key) if key is not None else await self._read_all()
            except Exception as error:
                self._stale.add(key)
                _log.warning("triggers could not be read; they are read again", error=str(error), exc_info=_accident(error))
                return

    async def _read_all(self) -> None:
        due = await self._triggers.scheduled()
        self._at.clear()
        self._heap.clear()
        for key, at in due:
            self._plan(key, at)

    async def _read_one(self, key: TriggerKey) -> None:
        trigger = await self._triggers.latest(key)
        self._plan(key, trigger.due(self._clock.now()) if trigger is not None else None)

    def _plan(self, key: TriggerKey, at: Micros | None) -> None:
        if key in self._firing:
            return  # it is read again when that is over
        if at is None:
            self._at.pop(key, None)
            return
        retry = self._retries.get(key)
        at = max(at, retry.at) if retry is not None else at
        if self._at.get(key) == at:
            return
        self._at[key] = at
        heapq.heappush(self._heap, (at, key))
        if len(self._heap) > 2 * len(self._at) + 64:  # mostly what changes left behind
            self._heap = [(at, key) for key, at in self._at.items()]
            heapq.heapify(self._heap)

    def _next(self) -> Micros | None:
        """When the next one is due, by what is known."""
        while self._heap:
            at, key = self._heap[0]
            if self._at.get(key) == at:
                return at
            heapq.heappop(self._heap)
        return None

    def _launch(self) -> None:
        """Begins what is due."""
        now = self._clock.now()
        while len(self._firing) < _AT_ONCE and (at := self._next()) is not None and at <= now:
            _, key = heapq.heappop(self._heap)
            del self._at[key]
            task = asyncio.create_task(self._fire(key), name=f"trigger {key}")
            self._firing[key] = task
            task.add_done_callback(lambda _, key=key: self._ended(key))  # type: ignore[misc]  # mypy can't type its default

    def _ended(self, key: TriggerKey) -> None:
        del self._firing[key]
        self._look_again(key)

    def _patience(self) -> float | None:
        """Seconds until there is something to do; None if a word will come first."""
        if self._stale:  # they could not be read
            return _FIRST_RETRY
        at = self._next()
        if at is None or len(self._firing) >= _AT_ONCE:
            return None
        return min(_LOOK, max(0.0, (at - self._clock.now()) / SECOND))

    async def _fire(self, key: TriggerKey) -> None:
        """One step of a trigger that is due, or a note of when to try again."""
        try:
            await self._step(key)
        except Exception as error:
            self._try_again(key, error)
        else:
            self._retries.pop(key, None)

    def _try_again(self, key: TriggerKey, error: Exception) -> None:
        known = self._retries.get(key)
        failures = known.failures + 1 if known is not None else 1
        delay = min(_LAST_RETRY, _FIRST_RETRY * 2.0 ** min(failures - 1, 16))
        self._retries[key] = _Retry(failures, Micros(self._clock.now() + round(delay * SECOND)))
        _log.warning(
            "a trigger could not fire; it is tried again",
            trigger=str(key),
            error=str(error),
            failures=failures,
            wait=delay,
            exc_info=_accident(error),
        )

    async def _step(self, key: TriggerKey) -> None:
        trigger = await self._triggers.latest(key)
        now = self._clock.now()
        if trigger is None or (due := trigger.due(now)) is None or due > now:
            return
        if trigger.automation_type is Automation.TYPE_ARTIFACT:
            await self._fire_for_artifact(trigger)
            return
        schedule = trigger.schedule
        if schedule is None:
            await self._triggers.advance(trigger, None)
            return
        at = self._catch_up.choose(schedule, trigger.spec_message().run_spec, due=due, now=now)
        if at != due:
            _log.warning("a trigger was not fired in time, and not all of it is caught up", trigger=str(key))
        if at is not None:
            await self._start(trigger, at)
        last = at if at is not None else due
        await self._triggers.advance(trigger, schedule.after(at if at is not None else now, last=last))

    async def _fire_for_artifact(self, trigger: Trigger) -> None:
        offer = await self._triggers.offer(trigger.key)
        if offer is not None:
            message = await self._offers.request(trigger, offer)
            if message is None:
                _log.warning(
                    "an artifact was deleted before its trigger fired", trigger=str(trigger.key), artifact=offer.artifact
                )
            else:
                message.MergeFrom(_request(trigger, run_name(trigger.key, *offer)))
                await self._make(trigger, message)
        await self._triggers.offered(trigger.key, offer)

    async def _start(self, trigger: Trigger, at: Micros) -> None:
        message = _request(trigger, run_name(trigger.key, at))
        message.run_start_time.CopyFrom(timestamp(at))
        message.source = run_definition_pb2.RUN_SOURCE_SCHEDULE_TRIGGER
        await self._make(trigger, message)

    async def _make(self, trigger: Trigger, message: run_service_pb2.CreateRunRequest) -> None:
        ctx = CallContext(procedure="trigger", identity=Identity(subject=trigger.deployed_by))
        try:
            await self._create(message, ctx)
        except AlreadyExists:  # made before the trigger was deployed anew, by a server that could not say so any more
            _log.info("a fire was a run already", trigger=str(trigger.key), run=message.run_id.name)
        except _REFUSED as error:
            _log.error("a fire was refused, and is dropped", trigger=str(trigger.key), error=error.message)


def _request(trigger: Trigger, run: str) -> run_service_pb2.CreateRunRequest:
    project, domain, task, name = trigger.key
    return run_service_pb2.CreateRunRequest(
        run_id=identifier_pb2.RunIdentifier(project=project, domain=domain, name=run),
        trigger_name=identifier_pb2.TriggerName(project=project, domain=domain, task_name=task, name=name),
    )


def _accident(error: Exception) -> bool:
    """Whether nobody raised it on purpose."""
    return not isinstance(error, FlyteUnifiedError)


def run_name(key: TriggerKey, at: Micros, *what: str) -> str:
    """The name of the run of one fire: the same whoever makes it, as long as one that is drawn by lot."""
    text = "\0".join((*key, str(at), *what)).encode()
    digest = hashlib.blake2b(text, digest_size=_NAME_BYTES).digest()
    return "r" + base64.b32encode(digest).decode().lower()[:19]
