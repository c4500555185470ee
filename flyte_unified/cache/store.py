"""The SQL of the cache, as pieces of work (see ``db.api``)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import bindparam, delete, or_, select

from flyte_unified.core.clock import Micros
from flyte_unified.db.api import Work
from flyte_unified.db.tables import cache_entries, cache_reservations
from flyte_unified.db.upsert import insert_or_update, new


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row of ``cache_entries``."""

    key: str
    output_uri: str
    metadata: bytes
    """flyteidl2.cacheservice.Metadata, as it came"""
    created_at: Micros
    updated_at: Micros


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """One row of ``cache_reservations``: ``owner`` computes ``key``, if it renews this before ``expires_at``."""

    key: str
    owner: str
    heartbeat: int
    """Microseconds between renewals."""
    expires_at: Micros


_GET = select(cache_entries).where(cache_entries.c.key == bindparam("_key"))
_DELETE = delete(cache_entries).where(cache_entries.c.key == bindparam("_key")).returning(cache_entries.c.key)
_PUT = insert_or_update(
    cache_entries,
    key="key",
    columns=("output_uri", "metadata", "updated_at"),
    where=or_(cache_entries.c.updated_at <= bindparam("_stale"), cache_entries.c.output_uri == new(cache_entries).c.output_uri),
).returning(cache_entries.c.key)

_HOLDER = select(cache_reservations).where(cache_reservations.c.key == bindparam("_key"))
_RESERVE = insert_or_update(
    cache_reservations,
    key="key",
    columns=("owner", "heartbeat", "expires_at"),
    where=or_(
        cache_reservations.c.owner == new(cache_reservations).c.owner, cache_reservations.c.expires_at <= bindparam("_now")
    ),
).returning(cache_reservations.c.key)
_RELEASE = (
    delete(cache_reservations)
    .where(cache_reservations.c.key == bindparam("_key"), cache_reservations.c.owner == bindparam("_owner"))
    .returning(cache_reservations.c.key)
)
_SWEEP = delete(cache_reservations).where(cache_reservations.c.expires_at <= bindparam("_now"))


def get(key: str) -> Work[Entry | None]:
    row = (yield _GET, {"_key": key}).one_or_none()
    return Entry(**row._mapping) if row is not None else None


def put(entry: Entry, *, stale: int) -> Work[bool]:
    """Keeps ``entry`` where there is none, one of the same outputs, or one last written at ``stale`` or before; else False."""
    return (yield _PUT, {**asdict(entry), "_stale": stale}).first() is not None


def remove(key: str) -> Work[bool]:
    return (yield _DELETE, {"_key": key}).first() is not None


def reserve(wanted: Reservation, *, now: Micros) -> Work[Reservation]:
    """``wanted`` where the key is free, expired or its owner's already; else who holds it."""
    values: dict[str, Any] = {**asdict(wanted), "_now": now}
    while (yield _RESERVE, values).first() is None:
        if (held := (yield from holder(wanted.key))) is not None:
            return held
    return wanted


def holder(key: str) -> Work[Reservation | None]:
    row = (yield _HOLDER, {"_key": key}).one_or_none()
    return Reservation(**row._mapping) if row is not None else None


def release(key: str, owner: str) -> Work[bool]:
    return (yield _RELEASE, {"_key": key, "_owner": owner}).first() is not None


def sweep(now: Micros) -> Work[None]:
    yield _SWEEP, {"_now": now}
