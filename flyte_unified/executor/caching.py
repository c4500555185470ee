"""The caching step of an action: reuse what was computed before, and let one compute what many want.

Keys come from the SDK (children) or from CreateRun (roots). An entry is used only if its outputs are still there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Protocol

import structlog
from flyteidl2.core import catalog_pb2, tasks_pb2
from flyteidl2.task import run_pb2
from flyteidl2.workflow import run_definition_pb2

from flyte_unified.core.clock import seconds
from flyte_unified.core.errors import FlyteUnifiedError
from flyte_unified.core.ids import ActionKey
from flyte_unified.core.phases import Phase
from flyte_unified.executor.reconcile import Cached
from flyte_unified.launchers.api import WorkId
from flyte_unified.ledger.api import Action, Ledger, Move
from flyte_unified.storage.api import DataStore

_log = structlog.get_logger(__name__)

HEARTBEAT = 10.0
"""Seconds between renewals of a reservation; three may be missed."""
_PAUSE = 1.0
"""Seconds before a catalog is asked again that gave no answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An entry: where the outputs are, and whose they are."""

    output_uri: str
    source: ActionKey | None = None
    attempt: int = 0


class Catalog(Protocol):
    """Results by key, and who is about to compute one."""

    async def lookup(self, key: str, *, max_age: float | None) -> Found | None:
        """``max_age`` in seconds; an older entry is none."""

    async def store(self, key: str, output_uri: str, *, source: ActionKey, attempt: int, overwrite: bool) -> None: ...

    async def reserve(self, key: str, owner: str, *, heartbeat: float) -> str:
        """Who holds the reservation now: ``owner`` where it was free, expired, or theirs already."""

    async def release(self, key: str, owner: str) -> None: ...

    async def freed(self, key: str) -> None:
        """Returns when a result or a free reservation may be there."""

    def scoped(self, key: str, scope: int, *, project: str, domain: str) -> str:
        """The key within its scope (flyteidl2.task.CacheLookupScope)."""


class Caching:
    """One for the controller."""

    def __init__(self, *, catalog: Catalog, ledger: Ledger, store: DataStore) -> None:
        self._catalog = catalog
        self._ledger = ledger
        self._store = store
        self._tasks: dict[ActionKey, asyncio.Task[None]] = {}
        self._held: dict[ActionKey, str] = {}

    async def ask(self, action: Action, *, woken: Callable[[], None]) -> Move | Cached:
        """The move to a hit; else MISS, or RESERVED when another computes the same: ``woken`` is called when it may be done."""
        metadata, run_spec = await self._settings(action)
        key = self._key(action, run_spec)
        if (hit := await self._reuse(action, metadata, run_spec, key)) is not None:
            return hit
        if not metadata.cache_serializable:
            return Cached.MISS
        owner = str(WorkId(action.key, 0))
        if await self._catalog.reserve(key, owner, heartbeat=HEARTBEAT) != owner:
            self._spawn(action.key, self._await_free(key, woken))
            return Cached.RESERVED
        self._held[action.key] = key
        # Its last holder may have stored its result after we looked.
        if (hit := await self._reuse(action, metadata, run_spec, key)) is not None:
            return hit
        self._spawn(action.key, self._keep(key, owner))
        return Cached.MISS

    async def put(self, action: Action, output_uri: str) -> int:
        """Keeps a result; the cache status that the attempt is to show."""
        _, run_spec = await self._settings(action)
        key = self._key(action, run_spec)
        try:
            await self._catalog.store(key, output_uri, source=action.key, attempt=action.attempt, overwrite=True)
        except FlyteUnifiedError:
            _log.exception("a result could not be cached", action=str(action.key))
            return int(catalog_pb2.CACHE_PUT_FAILURE)
        return int(catalog_pb2.CACHE_POPULATED)

    async def drop(self, action: ActionKey) -> None:
        """Gives back what an ended action reserved, and stops its waiting."""
        if (task := self._tasks.pop(action, None)) is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if (key := self._held.get(action)) is not None:
            await self._catalog.release(key, str(WorkId(action, 0)))
            self._held.pop(action, None)

    async def close(self) -> None:
        """Stops every wait and renewal. Reservations stay: their actions go on at the next start, or they expire."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _reuse(
        self, action: Action, metadata: tasks_pb2.TaskMetadata, run_spec: run_pb2.RunSpec, key: str
    ) -> Move | None:
        """The move to a hit. A cache that can't be asked is no reason not to compute."""
        if _overwrite(run_spec):
            return None
        try:
            return await self._hit(action, metadata, key)
        except FlyteUnifiedError:
            _log.exception("the cache could not be asked", action=str(action.key))
            return None

    async def _hit(self, action: Action, metadata: tasks_pb2.TaskMetadata, key: str) -> Move | None:
        age = seconds(metadata.cache_max_age) if metadata.HasField("cache_max_age") else None
        found = await self._catalog.lookup(key, max_age=age or None)
        if found is None or await self._store.head(f"{found.output_uri.rstrip('/')}/outputs.pb") is None:
            return None
        source = run_definition_pb2.ActionAttempt()
        if found.source is not None:
            origin = source.cache_metadata.source_action_attempt
            origin.action_id.CopyFrom(found.source.idl())
            origin.attempt = found.attempt
        return Move(
            to=Phase.SUCCEEDED,
            attempt=action.attempt,
            output_uri=found.output_uri,
            cache_status=int(catalog_pb2.CACHE_HIT),
            cache_source=source,
        )

    async def _settings(self, action: Action) -> tuple[tasks_pb2.TaskMetadata, run_pb2.RunSpec]:
        spec = await self._ledger.spec(action.spec_digest or "")
        _, run_spec = await self._ledger.run(action.key.run_key)
        return spec.task_template.metadata, run_spec

    def _key(self, action: Action, run_spec: run_pb2.RunSpec) -> str:
        scope = run_spec.cache_config.cache_lookup_scope
        return self._catalog.scoped(action.cache_key, scope, project=action.key.project, domain=action.key.domain)

    def _spawn(self, action: ActionKey, work: Coroutine[None, None, None]) -> None:
        if (before := self._tasks.pop(action, None)) is not None:
            before.cancel()
        self._tasks[action] = asyncio.create_task(work, name=f"cache {action}")

    async def _await_free(self, key: str, woken: Callable[[], None]) -> None:
        while True:
            try:
                await self._catalog.freed(key)
            except Exception:  # whatever it is: nobody else would wake the action
                _log.exception("a reservation could not be waited for; it will be", key=key)
                await asyncio.sleep(_PAUSE)
            else:
                return woken()

    async def _keep(self, key: str, owner: str) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT)
            try:
                await self._catalog.reserve(key, owner, heartbeat=HEARTBEAT)
            except Exception:  # without the next renewal another would compute the same
                _log.exception("a reservation could not be renewed", key=key)


def _overwrite(run_spec: run_pb2.RunSpec) -> bool:
    return bool(run_spec.cache_config.overwrite_cache or run_spec.overwrite_cache)
