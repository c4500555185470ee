"""Objects of one kind, each an attempt: created, followed, ended, let go of.

Level-triggered: ``_next`` looks at an item and says the one step that brings it on, or when to look again. Whatever happens
(news of the object, a request of the executor, a time that comes) only makes it look. An item has a task while a step is
under way and nothing but a timer otherwise, so ten thousand that run cost their memory.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

import structlog
from flyteidl2.workflow import run_definition_pb2

from flyte_unified.core.clock import SECOND, Clock, Micros
from flyte_unified.core.errors import FlyteUnifiedError, Unavailable
from flyte_unified.core.ids import ActionKey
from flyte_unified.core.names import object_name
from flyte_unified.core.phases import Phase
from flyte_unified.kube.cache import Trim
from flyte_unified.kube.client import JSON_PATCH, Kube
from flyte_unified.kube.errors import Away, Conflict, Exists, Invalid, KubeError, Missing
from flyte_unified.kube.informer import Informer, pause
from flyte_unified.kube.kinds import Kind, Object
from flyte_unified.launchers.api import Ended, Event, Progress, Started, WorkId
from flyte_unified.launchers.objects import identity, refusals
from flyte_unified.launchers.objects.item import Item, Reader
from flyte_unified.launchers.objects.logs import LogKeeper
from flyte_unified.launchers.objects.room import Room
from flyte_unified.plugins.api import Exit, Fault, State

_log = structlog.get_logger(__name__)

_SOON = 0.1
"""Seconds at least until an object is looked at again that nothing has changed in."""

Owner = Callable[[ActionKey], Mapping[str, Any] | None]
"""From an action to the owner reference to its TaskAction; None where there is none."""
Step = Callable[[Item], Awaitable[None]]


class _Plan(NamedTuple):
    """What to do from ``at`` on, and when to look again though nothing happened; by the loop's clock."""

    step: Step | None
    at: float = 0.0
    look: float = math.inf


class Objects:
    """``namespace`` empty: all of them. ``limit`` bounds names. Cluster events are told along with what follows them, or
    after ``quiet`` seconds without.
    """

    def __init__(
        self,
        *,
        kube: Kube,
        kind: Kind,
        namespace: str,
        reader: Reader,
        owner: Owner,
        logs: LogKeeper,
        clock: Clock,
        limit: int = 63,
        quiet: float = 10.0,
        trim: Trim | None = None,
    ) -> None:
        self._kube = kube
        self._kind = kind
        self._reader = reader
        self._owner = owner
        self._logs = logs
        self._clock = clock
        self._on_event: Callable[[Event], None] = lambda _: None
        self._limit = limit
        self._quiet = quiet
        self._trim = trim or _as_it_is
        self._items: dict[WorkId, Item] = {}
        self._informer = Informer(kube, kind, namespace=namespace, labels=identity.SELECTOR, on_event=self._changed, trim=trim)
        self._room = Room(kube, namespace=namespace, let=self._let)
        self._closed = False

    def __contains__(self, work: WorkId) -> bool:
        return work in self._items

    def __len__(self) -> int:
        return len(self._items)

    def item(self, work: WorkId) -> Item | None:
        return self._items.get(work)

    def object(self, name: str, namespace: str) -> Object | None:
        """As the informer knows it."""
        return self._informer.get(name, namespace)

    async def start(self, on_event: Callable[[Event], None]) -> list[Event]:
        """What is told of those whose end is still to be told. Raises KubeError for what waiting does not mend."""
        found: list[Event] = []
        self._on_event = found.append
        await self._informer.start()
        self._on_event = on_event
        return found

    async def close(self) -> None:
        self._closed = True
        self._on_event = lambda _: None
        await self._informer.stop()
        await self._room.close()
        tasks = []
        for item in self._items.values():
            if item.timer is not None:
                item.timer.cancel()
                item.timer = None
            tasks += [item.worker] if item.worker is not None else []
            tasks += [item.early.reading] if item.early is not None else []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def launch(
        self, work: WorkId, manifest: Mapping[str, Any], *, namespace: str, annotations: Mapping[str, str] | None = None
    ) -> None:
        """Creates it, unless it is there; what becomes of that is told as an event. Raises Unavailable when closed."""
        if self._closed:
            raise Unavailable("the server is stopping")
        if work in self._items:
            return
        name = object_name(work.action, work.attempt, limit=self._limit)
        made = identity.dressed(
            manifest, work, name=name, namespace=namespace, owner=self._owner(work.action), annotations=annotations or {}
        )
        item = self._items[work] = Item(work, namespace, name, manifest=made)
        if (there := self._informer.get(name, namespace)) is not None and identity.held(there):
            self._have(item, there)
        self._poke(item)

    def kill(self, work: WorkId, grace: float) -> None:
        """In ``grace`` seconds, or sooner where that was asked before. Its Ended follows."""
        item = self._items.get(work)
        if item is None or item.ended or (item.grace is not None and item.grace <= grace):
            return
        item.grace, item.deleted, item.not_before = grace, False, 0.0
        self._poke(item)

    def forget(self, work: WorkId) -> None:
        if (item := self._items.get(work)) is not None:
            item.forgotten, item.not_before = True, 0.0
            self._poke(item)

    def hear(self, item: Item, event: run_definition_pb2.ClusterEvent) -> None:
        """The cluster tells something of an attempt."""
        if not item.ended and item.hear(event):
            item.tell_at = item.tell_at or self._now() + self._quiet
            self._poke(item)

    def look(self, namespace: str, name: str) -> None:
        """What another object tells of this one has changed."""
        if (obj := self._informer.get(name, namespace)) is not None:
            self._changed("MODIFIED", obj)

    # What happens

    def _changed(self, change: str, obj: Object) -> None:
        work = identity.work_of(obj, limit=self._limit)
        if work is None:
            return
        item = self._items.get(work)
        if change == "DELETED":
            if item is not None and item.uid == obj["metadata"]["uid"]:
                item.obj, item.gone = obj, True
                if item.released:
                    del self._items[work]
                self._poke(item)
            self._room.freed(obj["metadata"].get("namespace", ""))
            return
        if item is None:
            self._adopt(work, obj)
        elif not item.uid and identity.held(obj):
            self._have(item, obj)
            self._poke(item)
        elif item.uid == obj["metadata"]["uid"]:
            item.obj, item.locate_at = obj, 0.0
            self._poke(item)

    def _adopt(self, work: WorkId, obj: Object) -> None:
        """An object that an earlier leader made, or one of ours whose creation was given up too soon."""
        if not identity.held(obj) or self._closed:
            return
        metadata = obj["metadata"]
        item = self._items[work] = Item(work, metadata["namespace"], metadata["name"])
        self._have(item, obj)
        now = self._clock.now()
        state = self._reader.state(obj, now)
        if state.phase is Phase.RUNNING:
            self._begin(item, state, now)
        else:
            item.told = state.phase
            self._progress(item, state, state.since or now)
        self._poke(item)

    def _have(self, item: Item, obj: Object) -> None:
        """The object that is this attempt's is there."""
        if not item.uid:
            item.uid = obj["metadata"]["uid"]
            item.obj = obj
        item.manifest = None
        item.failures, item.not_before = 0, 0.0
        self._room.leave(item.namespace, item.work)

    def _let(self, work: WorkId) -> None:
        if (item := self._items.get(work)) is not None:
            item.not_before = 0.0
            self._poke(item)

    def _poke(self, item: Item) -> None:
        if item.worker is not None or self._closed:
            return
        if item.timer is not None:
            item.timer.cancel()
            item.timer = None
        if (step := self._next(item)) is not None:
            item.worker = asyncio.create_task(self._advance(item, step), name=f"{self._kind.kind} of {item.work}")

    async def _advance(self, item: Item, step: Step) -> None:
        following: Step | None = step
        try:
            while following is not None:
                await following(item)
                following = self._next(item)
        except Exception as error:
            if not isinstance(error, FlyteUnifiedError):
                _log.exception("a step failed", kind=self._kind.kind, work=str(item.work))
            self._later(item, error)
        finally:
            item.worker = None
        if following is not None:
            self._poke(item)

    def _later(self, item: Item, error: Exception) -> None:
        """The next step is not taken for a while."""
        item.failures += 1
        if item.failures == 1:
            _log.info("tried again later", kind=self._kind.kind, name=f"{item.namespace}/{item.name}", why=str(error))
        told = error.retry_after if isinstance(error, KubeError) else None
        item.not_before = self._now() + max(told or 0.0, pause(item.failures))

    # What is next

    def _next(self, item: Item) -> Step | None:
        """The step that is due; otherwise all is looked at again when it is, or something else is."""
        if self._items.get(item.work) is not item:
            return None
        plan = self._plan(item)
        due = math.inf if plan.step is None else plan.at
        if due <= self._now():
            return plan.step
        if (at := min(due, plan.look)) < math.inf:
            item.timer = asyncio.get_running_loop().call_at(at, self._poke, item)
        return None

    def _plan(self, item: Item) -> _Plan:
        if item.ended:
            return _Plan(self._release if item.forgotten and not item.released else None, item.not_before)
        if item.manifest is not None:
            return _Plan(self._create if item.grace is None else self._give_up, item.not_before)
        if item.obj is None:
            return _Plan(None)
        now = self._clock.now()
        state = self._state(item, item.obj, now)
        cascade = self._cascades(item)
        if state.exit is not None and not cascade:
            return _Plan(self._finish, item.not_before)
        self._tell(item, state, now)
        item.place = item.place or self._reader.place(item.obj)
        if item.early is None and item.place is not None and (item.grace is not None or item.dying):
            item.early = self._logs.begin(item.place)
        wall = math.inf if state.again is None else self._now() + max(_SOON, (state.again - now) / SECOND)
        look = min(wall, item.tell_at or math.inf)
        if cascade or ((item.grace is not None or item.verdict is not None) and not item.deleted):
            return _Plan(self._delete, item.not_before, look)
        if item.started and item.place is None:
            return _Plan(self._locate, item.locate_at, look)
        return _Plan(None, look=look)

    def _state(self, item: Item, obj: Object, now: Micros) -> State:
        state = self._reader.state(obj, now)
        if item.gone:
            return state if state.exit is not None else self._reader.gone(obj, now)
        if item.dying and item.stale == obj["metadata"]["resourceVersion"]:
            return replace(state, exit=None)
        if state.exit is not None and state.exit.fault is not None:
            until = self._reader.lingers(obj, now)
            if until is not None:
                item.verdict = item.verdict or state.exit
                return replace(state, exit=None, again=until)
        return state

    def _cascades(self, item: Item) -> bool:
        """Whether somebody else's deletion is to be made one that waits for what the object made."""
        return item.dying and not item.gone and not item.deleted and self._abandons(item)

    def _abandons(self, item: Item) -> bool:
        """Whether what the object made would be left to run when it is deleted, as things stand."""
        if self._reader.propagation != "Foreground" or item.obj is None:
            return False
        return "foregroundDeletion" not in (item.obj["metadata"].get("finalizers") or ())

    # What is told

    def _tell(self, item: Item, state: State, now: Micros) -> None:
        """One event for each transition, and one for what was left to tell when nothing follows it."""
        if state.reason and not item.started:
            item.say(state.reason, state.since or now)
        if state.phase is Phase.RUNNING:
            if not item.started:
                self._begin(item, state, now)
        elif not item.started and state.phase not in (item.told, Phase.QUEUED):
            item.told = state.phase
            self._progress(item, state, state.since or now)
        if not (item.pending or (state.links and state.links != item.links)):
            return
        if not item.tell_at:
            item.tell_at = self._now() + self._quiet
        elif item.tell_at <= self._now():
            self._progress(item, state, now)

    def _progress(self, item: Item, state: State, at: Micros) -> None:
        self._on_event(Progress(id=item.work, at=at, phase=item.told, details=self._details(item, state)))

    def _begin(self, item: Item, state: State, now: Micros) -> None:
        assert item.obj is not None
        item.started, item.told = True, Phase.RUNNING
        at = self._reader.started(item.obj) or (state.since if state.exit is None else None) or now
        details = self._details(item, state)
        self._on_event(Started(id=item.work, at=at, where=self._reader.where(item.obj), details=details))

    def _end(self, item: Item, exit: Exit, at: Micros, details: run_definition_pb2.ActionAttempt | None = None) -> None:  # noqa: A002
        item.ended, item.manifest, item.early = True, None, None
        item.failures, item.not_before = 0, 0.0
        item.faulty = exit.fault is not None
        self._on_event(Ended(id=item.work, at=at, exit=exit, details=details))
        self._room.freed(item.namespace)

    def _details(self, item: Item, state: State) -> run_definition_pb2.ActionAttempt | None:
        details = self._reader.details(item.obj) if item.started and item.obj is not None else None
        told = run_definition_pb2.ActionAttempt() if details is None else details
        told.cluster_events.extend(item.pending or ())
        if state.links != item.links:
            told.log_info.extend(state.links)
        item.pending, item.tell_at, item.links = None, 0.0, state.links
        return told if told.ByteSize() else None

    # Steps

    async def _create(self, item: Item) -> None:
        manifest = item.manifest
        if manifest is None:
            return
        try:
            made = await self._kube.create(self._kind, manifest)
        except Exists as error:
            await self._name_taken(item, error)
        except KubeError as error:
            if item.manifest is not None:  # else the informer told of it meanwhile
                item.unsure |= isinstance(error, Away)
                self._refused(item, error)
        else:
            self._have(item, self._trim(made))

    async def _name_taken(self, item: Item, error: Exists) -> None:
        """By an earlier try of ours, most often: then it is what was wanted."""
        there = await self._there(item)
        if there is not None and identity.work_of(there, limit=self._limit) == item.work and identity.held(there):
            self._have(item, self._trim(there))
        elif there is None or "deletionTimestamp" in there["metadata"]:
            self._later(item, error)
        elif item.manifest is not None:
            self._end(item, Exit(fault=refusals.taken(item.name, self._kind)), self._clock.now())

    def _refused(self, item: Item, error: KubeError) -> None:
        meaning = refusals.meaning(error, self._kind)
        now = self._clock.now()
        if isinstance(meaning, Fault):
            self._room.leave(item.namespace, item.work)
            self._end(item, Exit(fault=meaning), now)
            return
        if isinstance(meaning, refusals.Full):
            item.not_before = math.inf
            self._room.join(item.namespace, item.work)
        else:
            self._later(item, error)
        if meaning.reason and item.told is not Phase.WAITING_FOR_RESOURCES:
            item.told = Phase.WAITING_FOR_RESOURCES
            item.say(meaning.reason, now)
            self._progress(item, State(phase=item.told), now)

    async def _give_up(self, item: Item) -> None:
        """It is to be killed before it was created, as far as we know."""
        there = await self._there(item) if item.unsure else None
        if there is not None and identity.work_of(there, limit=self._limit) == item.work and identity.held(there):
            self._have(item, self._trim(there))
        elif item.manifest is not None:
            self._room.leave(item.namespace, item.work)
            self._end(item, Exit(), self._clock.now())

    async def _delete(self, item: Item) -> None:
        assert item.obj is not None
        grace = item.grace
        item.stale = item.obj["metadata"]["resourceVersion"] if self._abandons(item) else ""
        await self._gone(item, None if grace is None else max(1, math.ceil(grace)))
        item.deleted = item.grace == grace
        item.failures, item.not_before = 0, 0.0

    async def _gone(self, item: Item, grace: int | None) -> None:
        foreground = self._reader.propagation == "Foreground"
        try:
            await self._kube.delete(
                self._kind,
                item.name,
                namespace=item.namespace,
                uid=item.uid,
                grace=None if foreground else grace,
                propagation=self._reader.propagation,
            )
        except (Missing, Conflict):
            item.gone = True

    async def _locate(self, item: Item) -> None:
        """Where the log is, when it is another object's; asked again, less and less often, until there is one."""
        assert item.obj is not None
        found = None
        with suppress(KubeError):
            found = await self._reader.locate(item.obj)
        if found is None:
            item.searches += 1
            item.locate_at = self._now() + pause(item.searches)
            return
        item.place, details = found
        if not item.ended:
            self._on_event(Progress(id=item.work, at=self._clock.now(), phase=item.told, details=details))

    async def _finish(self, item: Item) -> None:
        """Its Ended is told when its log is kept."""
        assert item.obj is not None
        place = item.place or self._reader.place(item.obj)
        if place is None and item.started:
            await self._locate(item)
            place = item.place
        if place is not None:
            await self._logs.keep(item.work, place, item.early)
        now = self._clock.now()
        state = self._state(item, item.obj, now)
        if state.phase is Phase.RUNNING and not item.started:
            self._begin(item, state, now)
        ending = item.verdict or state.exit or Exit()
        if item.grace is not None:  # whoever had it killed knows why it ended
            ending = replace(ending, fault=None)
        self._end(item, ending, state.since or now, self._details(item, state))

    async def _release(self, item: Item) -> None:
        """Nothing of it holds the object any more, and we follow it no longer."""
        obj = item.obj
        if obj is not None and not item.gone:
            grace = self._reader.remains(obj, faulty=item.faulty)
            if grace is not None:
                await self._gone(item, grace)
            try:
                await self._kube.patch(
                    self._kind, item.name, identity.release(obj), namespace=item.namespace, content_type=JSON_PATCH
                )
            except Missing:
                pass
            except (Invalid, Conflict) as error:  # its finalizers are others by now
                there = await self._there(item)
                if there is not None and there["metadata"]["uid"] == item.uid and identity.held(there):
                    item.obj = self._trim(there)
                    self._later(item, error)
                    return
        if obj is None or item.gone:
            del self._items[item.work]
        item.released = True  # what is told of it until it is told to be gone is old news

    async def _there(self, item: Item) -> Object | None:
        try:
            return await self._kube.get(self._kind, item.name, namespace=item.namespace)
        except Missing:
            return None

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _as_it_is(obj: Object) -> Object:
    return obj
