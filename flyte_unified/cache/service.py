"""Results by key, and who is about to compute one.

An entry names where outputs are; their bytes belong to the action that wrote them and are never touched from here. Who waits
for another's result is woken by what happens (a release, a result), and by a timer only for a holder that is heard of no more.
"""

from __future__ import annotations

import asyncio
import hashlib

from flyteidl2.cacheservice import cacheservice_pb2
from flyteidl2.task import run_pb2

from flyte_unified.cache import store
from flyte_unified.cache.store import Entry, Reservation
from flyte_unified.core.clock import SECOND, Clock, Micros
from flyte_unified.core.errors import AlreadyExists
from flyte_unified.core.ids import ActionKey
from flyte_unified.db.api import Database, Notice
from flyte_unified.executor.api import Found

_MAX_KEY = 512
_TOPIC = "cache"
_NEVER, _ALWAYS = -1, 2**63 - 1
_PROJECT, _DOMAIN, _RUN, _ACTION, _ATTEMPT = "exec-project", "exec-domain", "execution-name", "exec-node", "exec-attempt"
"""Under these names the cache's other clients (Flyte's own executors) note in an entry's metadata who computed it."""


def scoped_key(key: str, scope: int, *, project: str, domain: str) -> str:
    """``key`` within its scope (flyteidl2.task.CacheLookupScope): of one project and domain, else of all.

    Keys of different scopes never meet: no project's name is empty or holds a slash.
    """
    of_project = scope == run_pb2.CACHE_LOOKUP_SCOPE_PROJECT_DOMAIN
    scoped = f"{project}/{domain}/{key}" if of_project else f"//{key}"
    if len(scoped) <= _MAX_KEY:
        return scoped
    return scoped.removesuffix(key) + "sha256/" + hashlib.sha256(key.encode()).hexdigest()


class Cache:
    """One for a server; what the executor asks (``executor.caching.Catalog``) and CacheService serves.

    ``heartbeat`` (seconds) is the longest time between renewals of a reservation, ``grace`` how many of them may be missed.
    """

    def __init__(self, *, database: Database, clock: Clock, heartbeat: float = 10.0, grace: float = 3.0) -> None:
        self._database = database
        self._clock = clock
        self._heartbeat = heartbeat
        self._grace = grace
        self._waiting: dict[str, set[asyncio.Event]] = {}

    async def start(self) -> None:
        """Forgets the reservations that expired while no server ran."""
        now = self._clock.now()
        await self._database.write(lambda: store.sweep(now))

    def scoped(self, key: str, scope: int, *, project: str, domain: str) -> str:
        return scoped_key(key, scope, project=project, domain=domain)

    async def lookup(self, key: str, *, max_age: float | None = None) -> Found | None:
        """The result under ``key``, unless it is older than ``max_age`` seconds."""
        entry = await self.get(key)
        if entry is None or (max_age is not None and self._clock.now() - entry.updated_at > max_age * SECOND):
            return None
        source, attempt = _source(entry.metadata)
        return Found(output_uri=entry.output_uri, source=source, attempt=attempt)

    async def store(self, key: str, output_uri: str, *, source: ActionKey, attempt: int, overwrite: bool) -> None:
        """Keeps the result of an attempt. One that is there already stays, unless ``overwrite``: any is as good."""
        noted = {_PROJECT: source.project, _DOMAIN: source.domain, _RUN: source.run, _ACTION: source.name}
        values = {**noted, _ATTEMPT: str(attempt)}
        metadata = cacheservice_pb2.Metadata(key_map=cacheservice_pb2.KeyMapMetadata(values=values))
        await self._put(key, output_uri, metadata.SerializeToString(), overwrite=overwrite)

    async def get(self, key: str) -> Entry | None:
        return await self._database.read(lambda: store.get(key))

    async def put(self, key: str, output_uri: str, metadata: bytes, *, overwrite: bool, max_age: float | None) -> None:
        """Keeps a result; where there is another, only with ``overwrite`` or when it is older than ``max_age`` seconds.

        Raises AlreadyExists.
        """
        if not await self._put(key, output_uri, metadata, overwrite=overwrite, max_age=max_age):
            raise AlreadyExists("key: there is a result of it already; overwrite.overwrite replaces it")

    async def remove(self, key: str) -> bool:
        """False when there is nothing under ``key``."""
        return await self._database.write(lambda: store.remove(key))

    async def reserve(self, key: str, owner: str, *, heartbeat: float) -> str:
        """Who holds the reservation now: ``owner`` where it was free, expired, or theirs already."""
        return (await self.reservation(key, owner, heartbeat=heartbeat)).owner

    async def reservation(self, key: str, owner: str, *, heartbeat: float) -> Reservation:
        """As ``reserve``, with all that is known of it. ``heartbeat`` (seconds) 0: as long as may be."""
        now = self._clock.now()
        beat = round(min(heartbeat or self._heartbeat, self._heartbeat) * SECOND)
        wanted = Reservation(key=key, owner=owner, heartbeat=beat, expires_at=Micros(now + round(self._grace * beat)))
        return await self._database.write(lambda: store.reserve(wanted, now=now))

    async def release(self, key: str, owner: str) -> None:
        """Gives a reservation back; one of another owner, or none, stays as it is."""
        notice = Notice(_TOPIC, key)
        await self._database.write(
            lambda: store.release(key, owner),
            then=lambda done: self.noticed(notice) if done else None,
            changed=lambda done: [notice] if done else [],
        )

    def noticed(self, notice: Notice | None) -> None:
        """A release or a result, here or on another replica; None: any key may have one. Wakes who waits for it."""
        if notice is None:
            for key in self._waiting:
                self._wake(key)
        elif notice.topic == _TOPIC:
            self._wake(notice.key)

    async def freed(self, key: str) -> None:
        """Returns when a result or a free reservation may be there: at a release, a result, an expiry."""
        event = asyncio.Event()
        waiting = self._waiting.setdefault(key, set())
        waiting.add(event)
        try:
            while not event.is_set() and (left := await self._left(key)) > 0:
                await _wait(event, left)
        finally:
            waiting.discard(event)
            if not waiting:
                self._waiting.pop(key, None)

    async def _left(self, key: str) -> float:
        """Seconds until the reservation of ``key`` expires; 0 where there is none."""
        held = await self._database.read(lambda: store.holder(key))
        return max(0.0, (held.expires_at - self._clock.now()) / SECOND) if held is not None else 0.0

    async def _put(self, key: str, output_uri: str, metadata: bytes, *, overwrite: bool, max_age: float | None = None) -> bool:
        now = self._clock.now()
        entry = Entry(key=key, output_uri=output_uri, metadata=metadata, created_at=now, updated_at=now)
        old = now - round(max_age * SECOND) if max_age is not None else _NEVER
        stale = _ALWAYS if overwrite else old
        notice = Notice(_TOPIC, key)
        return await self._database.write(
            lambda: store.put(entry, stale=stale), then=lambda _: self.noticed(notice), changed=lambda _: [notice]
        )

    def _wake(self, key: str) -> None:
        for event in self._waiting.get(key, ()):
            event.set()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return  # the holder may have renewed meanwhile


def _source(metadata: bytes) -> tuple[ActionKey | None, int]:
    """Who computed an entry, where its metadata says so."""
    values = cacheservice_pb2.Metadata.FromString(metadata).key_map.values
    if not all(values.get(name) for name in (_PROJECT, _DOMAIN, _RUN, _ACTION)):
        return None, 0
    attempt = values.get(_ATTEMPT, "")
    key = ActionKey(values[_PROJECT], values[_DOMAIN], values[_RUN], values[_ACTION])
    return key, int(attempt) if attempt.isdecimal() else 0
