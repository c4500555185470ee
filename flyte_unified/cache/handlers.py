"""CacheService, both versions (flyteidl2/cacheservice): the older one's keys are everyone's, the newer one's a project's."""

from __future__ import annotations

from typing import Any

from flyteidl2.cacheservice import cacheservice_pb2 as idl
from flyteidl2.cacheservice.v2 import cacheservice_pb2 as v2
from flyteidl2.task import run_pb2
from google.protobuf.duration_pb2 import Duration

from flyte_unified.cache.service import Cache, scoped_key
from flyte_unified.cache.store import Entry
from flyte_unified.core.clock import SECOND, seconds, timestamp
from flyte_unified.core.context import CallContext
from flyte_unified.core.errors import InvalidArgument, NotFound
from flyte_unified.core.ids import scope_part

_LONGEST = 1_000_000_000
"""Seconds, some 30 years."""


class CacheHandlers:
    """flyteidl2.cacheservice.CacheService."""

    def __init__(self, *, cache: Cache) -> None:
        self._cache = cache

    async def get(self, message: idl.GetCacheRequest | v2.GetCacheRequest, ctx: CallContext) -> idl.GetCacheResponse:
        _, key = self._open(message)
        entry = await self._cache.get(key)
        if entry is None:
            raise NotFound("key: there is no result of it")
        return idl.GetCacheResponse(output=_output(entry))

    async def put(self, message: idl.PutCacheRequest | v2.PutCacheRequest, ctx: CallContext) -> idl.PutCacheResponse:
        """Outputs that are replaced stay where they are: other actions may show them (``delete_blob`` is not followed)."""
        request, key = self._open(message)
        if not request.output.output_uri:
            raise InvalidArgument("output.output_uri is empty; results are kept by their URI, not as output_literals")
        overwrite = request.overwrite
        await self._cache.put(
            key,
            request.output.output_uri,
            request.output.metadata.SerializeToString(),
            overwrite=overwrite.overwrite,
            max_age=_span(overwrite.max_age, "overwrite.max_age") if overwrite.HasField("max_age") else None,
        )
        return idl.PutCacheResponse()

    async def delete(
        self, message: idl.DeleteCacheRequest | v2.DeleteCacheRequest, ctx: CallContext
    ) -> idl.DeleteCacheResponse:
        _, key = self._open(message)
        if not await self._cache.remove(key):
            raise NotFound("key: there is no result of it")
        return idl.DeleteCacheResponse()

    async def get_or_extend_reservation(
        self, message: idl.GetOrExtendReservationRequest | v2.GetOrExtendReservationRequest, ctx: CallContext
    ) -> idl.GetOrExtendReservationResponse:
        request, key = self._open(message)
        held = await self._cache.reservation(
            key, _owner(request), heartbeat=_span(request.heartbeat_interval, "heartbeat_interval")
        )
        return idl.GetOrExtendReservationResponse(
            reservation=idl.Reservation(
                key=request.key,
                owner_id=held.owner,
                heartbeat_interval=Duration(seconds=held.heartbeat // SECOND, nanos=held.heartbeat % SECOND * 1000),
                expires_at=timestamp(held.expires_at),
            )
        )

    async def release_reservation(
        self, message: idl.ReleaseReservationRequest | v2.ReleaseReservationRequest, ctx: CallContext
    ) -> idl.ReleaseReservationResponse:
        request, key = self._open(message)
        await self._cache.release(key, _owner(request))
        return idl.ReleaseReservationResponse()

    def _open(self, message: Any) -> tuple[Any, str]:
        """The request proper, and its key within its scope. Raises InvalidArgument."""
        scope = run_pb2.CACHE_LOOKUP_SCOPE_GLOBAL
        return message, scoped_key(_key(message, "key"), scope, project="", domain="")


class ScopedCacheHandlers(CacheHandlers):
    """flyteidl2.cacheservice.v2.CacheService."""

    def _open(self, message: Any) -> tuple[Any, str]:
        base = message.base_request
        project = scope_part(message.identifier.project, field="identifier.project")
        domain = scope_part(message.identifier.domain, field="identifier.domain")
        scope = run_pb2.CACHE_LOOKUP_SCOPE_PROJECT_DOMAIN
        return base, scoped_key(_key(base, "base_request.key"), scope, project=project, domain=domain)


def _key(request: Any, field: str) -> str:
    if not request.key:
        raise InvalidArgument(f"{field} is empty")
    return str(request.key)


def _owner(request: Any) -> str:
    if not request.owner_id:
        raise InvalidArgument("owner_id is empty")
    return str(request.owner_id)


def _span(message: Duration, field: str) -> float:
    told = seconds(message)
    if not 0 <= told <= _LONGEST:
        raise InvalidArgument(f"{field} is {told:g} s; from 0 to {_LONGEST} s are allowed")
    return told


def _output(entry: Entry) -> idl.CachedOutput:
    metadata = idl.Metadata.FromString(entry.metadata)
    metadata.created_at.CopyFrom(timestamp(entry.created_at))
    metadata.last_updated_at.CopyFrom(timestamp(entry.updated_at))
    return idl.CachedOutput(output_uri=entry.output_uri, metadata=metadata)
