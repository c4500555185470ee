"""``flyte_unified.v1.ManagerService``: how the server is, what waits in it, what holds for it; and its drain.

Imported at the first call: a server that nobody asks needs none of it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass

from flyte_unified import __version__, settings
from flyte_unified.core.clock import Clock, timestamp
from flyte_unified.core.context import CallContext
from flyte_unified.core.errors import FlyteUnifiedError, Unavailable
from flyte_unified.db.api import Database
from flyte_unified.operations import messages, store
from flyte_unified.operations.admission import Admission
from flyte_unified.operations.drain import Drain
from flyte_unified.planes.api import Plane
from flyte_unified.settings import Settings
from flyte_unified.storage.adapters import DATA
from flyte_unified.storage.api import DataStore

_PATIENCE = 5.0
"""Seconds that a part has to say how it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What there is to ask."""

    settings: Settings
    address: str
    interpreter: str
    database: Database
    store: DataStore
    plane: Plane
    drain: Drain
    apps: Callable[[], Awaitable[Mapping[str, int]]]
    """How many there are, by how they are."""
    clock: Clock
    began: float
    """On the monotonic clock."""
    ready: Callable[[], bool]


class ManagerHandlers:
    """Each call is for operators."""

    def __init__(self, server: Server, *, admission: Admission) -> None:
        self._server = server
        self._admission = admission

    async def get_status(self, _: messages.GetStatusRequest, ctx: CallContext) -> messages.GetStatusResponse:
        self._admission.check(ctx)
        server, loaded = self._server, self._server.settings
        return messages.GetStatusResponse(
            version=__version__,
            state=self._state(),
            role=messages.Role.LEADER if server.plane.controller is not None else messages.Role.REPLICA,
            address=server.address,
            uptime=server.clock.monotonic() - server.began,
            pid=os.getpid(),
            data_dir=str(loaded.data.dir),
            launcher=loaded.execution.launcher,
            interpreter=server.interpreter,
            actions=self._actions(),
            components=await self._components(),
            queues=self._queues(),
            database=_database(loaded),
            storage=_storage(loaded),
        )

    async def list_components(self, _: messages.ListComponentsRequest, ctx: CallContext) -> messages.ListComponentsResponse:
        self._admission.check(ctx)
        return messages.ListComponentsResponse(components=await self._components())

    async def list_queues(self, _: messages.ListQueuesRequest, ctx: CallContext) -> messages.ListQueuesResponse:
        self._admission.check(ctx)
        return messages.ListQueuesResponse(queues=self._queues())

    async def drain(self, message: messages.DrainRequest, ctx: CallContext) -> AsyncIterator[messages.DrainResponse]:
        self._admission.check(ctx)
        await self._server.drain.set(not message.off)
        async with aclosing(self._server.drain.left()) as counts:
            async for left in counts:
                yield messages.DrainResponse(state=self._state(), live=left)
                if message.off or not message.wait:
                    return

    async def get_config(self, _: messages.GetConfigRequest, ctx: CallContext) -> messages.GetConfigResponse:
        self._admission.check(ctx)
        loaded = self._server.settings
        rows = [
            messages.Setting(key=key, value=settings.shown(key, value), source=source) for key, value, source in loaded.values()
        ]
        return messages.GetConfigResponse(settings=rows, file=str(loaded.file or ""))

    def _state(self) -> messages.State:
        if not self._server.ready():
            return messages.State.NOT_READY
        return messages.State.DRAINING if self._server.drain.on else messages.State.READY

    def _actions(self) -> messages.Actions:
        controller = self._server.plane.controller
        if controller is None:
            return messages.Actions()
        slots = controller.slots
        pods = self._server.settings.execution.launcher == "pods"
        return messages.Actions(
            live=controller.live,
            computing=slots.active,
            waiting=slots.waiting,
            slots=0.0 if pods else slots.capacity.cpu,
        )

    def _queues(self) -> list[messages.Queue]:
        server, controller = self._server, self._server.plane.controller
        actions = controller.slots.queues if controller is not None else {}
        limit = server.settings.database.queue_limit
        return [
            messages.Queue(name="database writes", waiting=server.database.waiting, limit=limit),
            *(
                messages.Queue(name=name, waiting=queue.waiting, limit=queue.bound, computing=queue.computing)
                for name, queue in actions.items()
            ),
        ]

    async def _components(self) -> list[messages.Component]:
        asked = {
            "database": self._ask_database,
            "storage": self._ask_storage,
            "executor": self._ask_executor,
            "scheduler": self._ask_scheduler,
            "apps": self._ask_apps,
        }
        return list(await asyncio.gather(*(_component(name, ask) for name, ask in asked.items())))

    async def _ask_database(self) -> str:
        return f"schema {await self._server.database.read(store.revision)}"

    async def _ask_storage(self) -> str:
        data = self._server.store
        await data.check_room()
        await data.head(f"{data.base(DATA)}/_status")
        return data.base(DATA)

    async def _ask_executor(self) -> str:
        if self._server.drain.on:
            return "drained: begins no runs"
        plane = self._server.plane
        if plane.controller is None:
            return f"{plane.leader or 'nobody yet'} carries out runs"
        return f"carries out runs, as {plane.leader}" if plane.leader else "carries out runs"

    async def _ask_scheduler(self) -> str:
        if self._server.plane.controller is None:
            return "at work where runs are carried out"
        planned, following, failing = self._server.plane.scheduler.standing
        if failing:
            raise Unavailable(f"triggers that could not fire in time, and are tried again: {failing}; the log says why")
        at = f", the next at {timestamp(following).ToJsonString()}" if following is not None else ""
        return f"triggers that are to fire: {planned}{at}"

    async def _ask_apps(self) -> str:
        counts = sorted((await self._server.apps()).items())
        return ", ".join(f"{count} {state}" for state, count in counts) or "none"


async def _component(name: str, ask: Callable[[], Awaitable[str]]) -> messages.Component:
    try:
        async with asyncio.timeout(_PATIENCE):
            detail, healthy = await ask(), True
    except TimeoutError:
        detail, healthy = f"no answer within {_PATIENCE:g} s", False
    except FlyteUnifiedError as error:
        detail, healthy = error.message, False
    return messages.Component(name=name, healthy=healthy, detail=detail)


def _database(loaded: Settings) -> messages.Database:
    url = settings.shown("database.url", loaded.database.url) if loaded.database.url else ""
    kind = "postgresql" if url else "sqlite"
    return messages.Database(kind=kind, location=url or str(loaded.database_file))


def _storage(loaded: Settings) -> messages.Storage:
    root, bundles = loaded.storage.root, loaded.storage.bundles
    free = None if settings.scheme(root) else shutil.disk_usage(root).free
    return messages.Storage(root=root, bundles=bundles, free_bytes=free)
