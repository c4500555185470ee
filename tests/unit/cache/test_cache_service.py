"""CacheService as other executors see it."""

from __future__ import annotations

from typing import Any

import pytest
from flyteidl2.cacheservice import cacheservice_pb2 as idl
from flyteidl2.cacheservice.v2 import cacheservice_pb2 as v2
from flyteidl2.core import identifier_pb2, literals_pb2
from google.protobuf.duration_pb2 import Duration

from flyte_unified.cache.api import Cache
from flyte_unified.cache.handlers import CacheHandlers, ScopedCacheHandlers
from flyte_unified.core.clock import micros
from flyte_unified.core.context import CallContext
from flyte_unified.core.errors import AlreadyExists, InvalidArgument, NotFound
from flyte_unified.db.api import Database
from tests.unit.manual_clock import ManualClock

CTX = CallContext(procedure="/test")


class Client:
    """Calls one of the two services with requests of the older one; the newer wraps them."""

    def __init__(self, handlers: CacheHandlers, *, project: str | None = None) -> None:
        self._handlers = handlers
        self._project = project

    async def get(self, key: str) -> idl.CachedOutput:
        message = self._wrapped(idl.GetCacheRequest(key=key))
        return (await self._handlers.get(message, CTX)).output

    async def put(self, key: str, output_uri: str = "/out", **overwrite: Any) -> None:
        output = idl.CachedOutput(output_uri=output_uri, metadata=METADATA)
        request = idl.PutCacheRequest(key=key, output=output, overwrite=idl.OverwriteOutput(**overwrite) if overwrite else None)
        await self._handlers.put(self._wrapped(request), CTX)

    async def delete(self, key: str) -> None:
        await self._handlers.delete(self._wrapped(idl.DeleteCacheRequest(key=key)), CTX)

    async def reserve(self, key: str, owner: str, seconds: int = 0) -> idl.Reservation:
        request = idl.GetOrExtendReservationRequest(key=key, owner_id=owner, heartbeat_interval=Duration(seconds=seconds))
        return (await self._handlers.get_or_extend_reservation(self._wrapped(request), CTX)).reservation

    async def release(self, key: str, owner: str) -> None:
        request = idl.ReleaseReservationRequest(key=key, owner_id=owner)
        await self._handlers.release_reservation(self._wrapped(request), CTX)

    def _wrapped(self, request: Any) -> Any:
        if self._project is None:
            return request
        identifier = v2.Identifier(org="any", project=self._project, domain="development")
        return getattr(v2, type(request).__name__)(base_request=request, identifier=identifier)


METADATA = idl.Metadata(
    source_identifier=identifier_pb2.Identifier(name="env.task", version="v1"),
    key_map=idl.KeyMapMetadata(values={"execution-name": "r1"}),
)


@pytest.fixture
def cache(database: Database, clock: ManualClock) -> Cache:
    return Cache(database=database, clock=clock)


@pytest.fixture(params=["v1", "v2"])
def client(cache: Cache, request: pytest.FixtureRequest) -> Client:
    """Either service: they differ in whose keys are meant and in nothing else."""
    return (
        Client(CacheHandlers(cache=cache)) if request.param == "v1" else Client(ScopedCacheHandlers(cache=cache), project="p")
    )


async def test_what_is_put_is_got(client: Client, clock: ManualClock) -> None:
    """Address and metadata come back as they were put, with the times at which the cache wrote them."""
    put = clock.now()
    await client.put("k", "/out/1")
    replaced = clock.pass_by(60)
    await client.put("k", "/out/2", overwrite=True)
    output = await client.get("k")

    assert output.output_uri == "/out/2"
    assert output.metadata.source_identifier == METADATA.source_identifier
    assert output.metadata.key_map == METADATA.key_map
    assert (micros(output.metadata.created_at), micros(output.metadata.last_updated_at)) == (put, replaced)


async def test_another_result_is_refused_and_the_same_one_accepted(client: Client) -> None:
    """A repeated call is a success, as it was the first time; a result is replaced only by who says so."""
    await client.put("k", "/out/1")
    await client.put("k", "/out/1")
    with pytest.raises(AlreadyExists, match="overwrite"):
        await client.put("k", "/out/2")
    with pytest.raises(AlreadyExists):
        await client.put("k", "/out/2", overwrite=False)
    assert (await client.get("k")).output_uri == "/out/1"


async def test_a_result_past_its_age_is_replaced(client: Client, clock: ManualClock) -> None:
    """With an age in the request a younger result stays, an older one goes."""
    await client.put("k", "/out/1")
    clock.pass_by(59)
    with pytest.raises(AlreadyExists):
        await client.put("k", "/out/2", max_age=Duration(seconds=60))
    clock.pass_by(1)
    await client.put("k", "/out/2", max_age=Duration(seconds=60))
    assert (await client.get("k")).output_uri == "/out/2"


async def test_what_is_not_there_is_not_found(client: Client) -> None:
    """Get and delete say so; what was deleted is gone."""
    with pytest.raises(NotFound):
        await client.get("k")
    with pytest.raises(NotFound):
        await client.delete("k")
    await client.put("k")
    await client.delete("k")
    with pytest.raises(NotFound):
        await client.get("k")


async def test_a_reservation_is_told_whole(client: Client, clock: ManualClock) -> None:
    """Who holds the key, under the name that the caller used, how often to renew and until when it holds."""
    mine = await client.reserve("k", "a", seconds=5)
    assert (mine.key, mine.owner_id, mine.heartbeat_interval.seconds) == ("k", "a", 5)
    assert micros(mine.expires_at) == clock.now() + 15_000_000

    clock.pass_by(1)
    assert await client.reserve("k", "b") == mine
    await client.release("k", "b")
    assert (await client.reserve("k", "b")).owner_id == "a"
    await client.release("k", "a")
    assert (await client.reserve("k", "b")).owner_id == "b"
    await client.release("nothing", "b")


async def test_literals_are_refused(cache: Cache) -> None:
    """Outputs are kept where the task wrote them; the message names the field that is read."""
    output = idl.CachedOutput(output_literals=literals_pb2.LiteralMap())
    with pytest.raises(InvalidArgument, match=r"output\.output_uri"):
        await CacheHandlers(cache=cache).put(idl.PutCacheRequest(key="k", output=output), CTX)


async def test_an_empty_field_is_named(client: Client) -> None:
    """Key and owner are needed."""
    with pytest.raises(InvalidArgument, match="key is empty"):
        await client.get("")
    with pytest.raises(InvalidArgument, match="owner_id is empty"):
        await client.reserve("k", "")


async def test_projects_do_not_see_each_others_results(cache: Cache) -> None:
    """One key is another in every project, and another where no project is named."""
    one, other = (Client(ScopedCacheHandlers(cache=cache), project=project) for project in ("p", "q"))
    everyone = Client(CacheHandlers(cache=cache))
    for client, uri in ((one, "/one"), (other, "/other"), (everyone, "/all")):
        await client.put("k", uri)
    assert [(await client.get("k")).output_uri for client in (one, other, everyone)] == ["/one", "/other", "/all"]


@pytest.mark.parametrize("identifier", [None, {"project": "p"}, {"project": "a/b", "domain": "d"}])
async def test_the_newer_service_needs_a_project_and_a_domain(cache: Cache, identifier: dict[str, str] | None) -> None:
    """The org may be anything; what is part of the key may not."""
    request = v2.GetCacheRequest(
        base_request=idl.GetCacheRequest(key="k"), identifier=identifier and v2.Identifier(**identifier)
    )
    with pytest.raises(InvalidArgument, match="identifier"):
        await ScopedCacheHandlers(cache=cache).get(request, CTX)
