"""The launcher port over operators' custom resources: a set of objects for each kind, followed from when it is first needed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog

from flyte_unified.core.clock import Clock
from flyte_unified.core.errors import Unavailable
from flyte_unified.core.ids import ActionKey
from flyte_unified.core.names import object_name
from flyte_unified.kube.client import Kube
from flyte_unified.kube.errors import Away, KubeError, Missing, Throttled
from flyte_unified.kube.informer import pause
from flyte_unified.kube.kinds import Kind, Object
from flyte_unified.launchers.api import Attempt, Ended, Event, WorkId
from flyte_unified.launchers.objects import refusals
from flyte_unified.launchers.objects.engine import Objects, Owner
from flyte_unified.launchers.objects.events import ClusterEvents
from flyte_unified.launchers.objects.identity import SELECTOR, work_of
from flyte_unified.launchers.objects.logs import LogKeeper
from flyte_unified.launchers.resources.leaders import Leaders
from flyte_unified.launchers.resources.reader import ResourceReader, notes
from flyte_unified.ledger.api import Failure
from flyte_unified.plugins.api import Exit, Fault, Resource, State
from flyte_unified.plugins.operators.kinds import CREATORS, RESOURCE_NAME_LIMIT
from flyte_unified.plugins.pods import records
from flyte_unified.plugins.pods.config import Patience

_log = structlog.get_logger(__name__)


Told = Callable[[Mapping[str, Any]], State]
"""From a whole object to what it tells."""


@dataclass(slots=True)
class _Followed:
    """``waiting`` are those whose kind is not followed yet."""

    objects: Objects
    events: tuple[ClusterEvents, ...] = ()
    ready: bool = False
    starting: asyncio.Task[None] | None = None
    waiting: dict[WorkId, Resource] = field(default_factory=dict)


class ResourceLauncher:
    """``readers`` says of each kind what its objects tell, also of those that an earlier leader made.

    ``namespace`` is where an action's resource is, ``scope`` the one namespace of all of them, or empty for any. ``patience``
    is with pods that don't start, and with what a deleted resource made. Resources outlive this process: ``stop`` ends none.
    """

    def __init__(
        self,
        *,
        kube: Kube,
        namespace: Callable[[ActionKey], str],
        scope: str,
        owner: Owner,
        logs: LogKeeper,
        clock: Clock,
        readers: Mapping[Kind, Told],
        patience: Patience,
        quiet: float = 10.0,
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._scope = scope
        self._owner = owner
        self._logs = logs
        self._clock = clock
        self._readers = readers
        self._patience = patience
        self._leaders = Leaders(kube, namespace=scope, patience=patience, on_change=self._look)
        self._quiet = quiet
        self._on_event: Callable[[Event], None] = lambda _: None
        self._kinds: dict[Kind, _Followed] = {}
        self._closed = False

    async def start(self, on_event: Callable[[Event], None]) -> list[Event]:
        self._on_event = on_event
        await self._leaders.start()
        found = await asyncio.gather(*(self._take_up(kind) for kind in self._readers))
        return [event for events in found for event in events]

    async def launch(self, attempt: Attempt) -> None:
        """What keeps a resource from being created is told as an event."""
        work = attempt.work
        if not isinstance(work, Resource):
            raise TypeError(f"{attempt.id} is no operator's resource")
        if self._closed:
            raise Unavailable("the server is stopping")
        kind = kind_of(work)
        followed = self._followed(kind, work.state)
        if followed.ready:
            self._create(followed, attempt.id, work)
            return
        followed.waiting[attempt.id] = work
        if followed.starting is None:
            followed.starting = asyncio.create_task(self._begin(kind, followed), name=f"begin to follow {kind.plural}")

    async def kill(self, work: WorkId, *, grace: float) -> None:
        for followed in self._kinds.values():
            if followed.waiting.pop(work, None) is not None:
                self._on_event(Ended(id=work, at=self._clock.now(), exit=Exit()))
            followed.objects.kill(work, grace)

    async def forget(self, work: WorkId) -> None:
        self._leaders.forget(self._namespace(work.action), _name(work))
        for followed in self._kinds.values():
            followed.objects.forget(work)

    async def clear(self, action: ActionKey, *, attempts: int) -> None:
        """Resources are removed with their TaskAction."""

    async def stop(self, *, grace: float) -> None:
        """Ends nothing."""

    async def close(self) -> None:
        self._closed = True
        self._on_event = lambda _: None
        starting = [followed.starting for followed in self._kinds.values() if followed.starting is not None]
        for task in starting:
            task.cancel()
        await asyncio.gather(*starting, return_exceptions=True)
        await self._leaders.close()
        await asyncio.gather(*(events.close() for followed in self._kinds.values() for events in followed.events))
        await asyncio.gather(*(followed.objects.close() for followed in self._kinds.values()))

    def _followed(self, kind: Kind, told: Told) -> _Followed:
        if (followed := self._kinds.get(kind)) is None:
            objects = Objects(
                kube=self._kube,
                kind=kind,
                namespace=self._scope,
                reader=ResourceReader(
                    kube=self._kube,
                    kind=kind,
                    told=self._readers.get(kind, told),
                    leaders=self._leaders,
                    lost=self._patience.lost,
                ),
                owner=self._owner,
                logs=self._logs,
                clock=self._clock,
                limit=RESOURCE_NAME_LIMIT,
                quiet=self._quiet,
            )
            followed = self._kinds[kind] = _Followed(objects)
        return followed

    async def _take_up(self, kind: Kind) -> list[Event]:
        """What an earlier leader made of this kind. A kind of which there is nothing is not followed."""
        if not await self._any(kind):
            return []
        followed = self._followed(kind, self._readers[kind])
        found = await followed.objects.start(self._on_event)
        self._listen(kind, followed)
        return found

    async def _any(self, kind: Kind) -> bool:
        failures = 0
        while True:
            try:
                async with aclosing(self._kube.pages(kind, namespace=self._scope, labels=SELECTOR, limit=1)) as pages:
                    items, _ = await anext(pages)
                    return bool(items)
            except (Away, Throttled) as error:
                failures += 1
                await asyncio.sleep(max(error.retry_after or 0.0, pause(failures)))
            except Missing:
                return False
            except KubeError as error:
                _log.warning("a kind can't be looked at", kind=kind.kind, error=error.message)
                return False

    async def _begin(self, kind: Kind, followed: _Followed) -> None:
        """Those that wait are created once their kind is followed, or told why it can't be."""
        try:
            for event in await followed.objects.start(self._on_event):
                self._on_event(event)
            self._listen(kind, followed)
        except KubeError as error:
            meaning = refusals.meaning(error, kind)
            fault = meaning if isinstance(meaning, Fault) else _not_followed(error)
            for work in followed.waiting:
                self._on_event(Ended(id=work, at=self._clock.now(), exit=Exit(fault=fault)))
        else:
            for work, resource in followed.waiting.items():
                self._create(followed, work, resource)
        finally:
            followed.starting = None
            followed.waiting.clear()

    def _create(self, followed: _Followed, work: WorkId, resource: Resource) -> None:
        followed.objects.launch(
            work, resource.manifest, namespace=self._namespace(work.action), annotations=notes(resource, _name(work))
        )

    def _listen(self, kind: Kind, followed: _Followed) -> None:
        """To what the cluster tells of its objects, and of those that make their pods."""
        followed.ready = True
        told = ((kind.kind, ""), *([CREATORS[kind]] if kind in CREATORS else ()))
        followed.events = tuple(
            ClusterEvents(
                self._kube, kind=of, namespace=self._scope, on_event=partial(self._heard, followed.objects, suffix=suffix)
            )
            for of, suffix in told
        )
        for events in followed.events:
            events.start()

    def _heard(self, objects: Objects, event: Object, *, new: bool, suffix: str) -> None:
        about = event.get("involvedObject") or {}
        namespace, name = about.get("namespace", ""), about.get("name", "").removesuffix(suffix)
        resource = objects.object(name, namespace)
        if resource is None or (not suffix and resource["metadata"]["uid"] != about.get("uid")):
            return
        work = work_of(resource, limit=RESOURCE_NAME_LIMIT)
        item = objects.item(work) if work is not None else None
        if item is None or (item.started and not new):  # told by whoever led when it started
            return
        if (told := records.cluster_event(event)) is None:
            return
        objects.hear(item, told)
        if not item.started and refusals.QUOTA in told.message:
            self._leaders.refused(namespace, name, told.message, self._clock.now())

    def _look(self, namespace: str, name: str) -> None:
        for followed in self._kinds.values():
            followed.objects.look(namespace, name)


def _name(work: WorkId) -> str:
    return object_name(work.action, work.attempt, limit=RESOURCE_NAME_LIMIT)


def kind_of(work: Resource) -> Kind:
    group, _, version = str(work.manifest["apiVersion"]).rpartition("/")
    return Kind(group, version, str(work.manifest["kind"]), work.plural)


def _not_followed(error: KubeError) -> Fault:
    return Fault(code="NotFollowed", message=error.message, failure=Failure.SYSTEM)
