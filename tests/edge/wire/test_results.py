"""CacheService in both versions and TranslatorService, as their own clients use them."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from flyteidl2.cacheservice import cacheservice_pb2 as v1
from flyteidl2.cacheservice.cacheservice_connect import CacheServiceClient
from flyteidl2.cacheservice.v2 import cacheservice_pb2 as v2
from flyteidl2.cacheservice.v2.cacheservice_connect import CacheServiceClient as ScopedCacheServiceClient
from flyteidl2.workflow import run_service_pb2, translator_service_pb2
from flyteidl2.workflow.translator_service_connect import TranslatorServiceClient
from google.protobuf.json_format import MessageToDict

from tests.edge.wire import world as facts
from tests.edge.wire.world import DOMAIN, PROJECT, World, action_id


class Cache:
    """One cache, by the client of either version."""

    def __init__(self, address: str, version: int, *, domain: str = DOMAIN) -> None:
        self._client: Any = CacheServiceClient(address) if version == 1 else ScopedCacheServiceClient(address)
        self._identifier = {"project": PROJECT, "domain": domain}
        self._version = version

    async def call(self, rpc: str, kind: str, **fields: Any) -> Any:
        request = getattr(v1, kind)(**fields)
        if self._version == 2:
            request = getattr(v2, kind)(base_request=request, identifier=self._identifier)
        return await getattr(self._client, rpc)(request)

    async def get(self, key: str) -> str:
        return str((await self.call("get", "GetCacheRequest", key=key)).output.output_uri)

    async def put(self, key: str, uri: str, **fields: Any) -> None:
        output = {"output_uri": uri, "metadata": {"key_map": {"values": {"from": "far"}}}}
        await self.call("put", "PutCacheRequest", key=key, output=output, **fields)

    async def reserve(self, key: str, owner: str) -> Any:
        kind = "GetOrExtendReservationRequest"
        return (await self.call("get_or_extend_reservation", kind, key=key, owner_id=owner)).reservation


@pytest.fixture(params=[1, 2], ids=["everyone's", "of a project"])
def cache(request: pytest.FixtureRequest, address: str) -> Cache:
    return Cache(address, request.param)


async def refused(call: Any, code: Code) -> str:
    with pytest.raises(ConnectError) as caught:
        await call
    assert caught.value.code is code
    return str(caught.value.message)


async def test_a_result(cache: Cache) -> None:
    """It is there once it is put, is replaced only when that is asked for, and is gone when it is deleted."""
    key = facts.new_name("key")
    await refused(cache.get(key), Code.NOT_FOUND)
    await cache.put(key, "/first")
    assert await cache.get(key) == "/first"
    assert "overwrite" in await refused(cache.put(key, "/second"), Code.ALREADY_EXISTS)
    await cache.put(key, "/second", overwrite={"overwrite": True})
    response = await cache.call("get", "GetCacheRequest", key=key)
    assert (response.output.output_uri, dict(response.output.metadata.key_map.values)) == ("/second", {"from": "far"})
    assert response.output.metadata.last_updated_at.seconds > 0
    await cache.call("delete", "DeleteCacheRequest", key=key)
    await refused(cache.get(key), Code.NOT_FOUND)


async def test_a_reservation(cache: Cache) -> None:
    """The first owner holds it, another is told who does, and gets it once it is given back."""
    key = facts.new_name("key")
    held = await cache.reserve(key, "one")
    assert (held.owner_id, held.key, held.heartbeat_interval.seconds > 0) == ("one", key, True)
    assert (await cache.reserve(key, "two")).owner_id == "one"
    assert (await cache.reserve(key, "one")).expires_at.ToMicroseconds() >= held.expires_at.ToMicroseconds()
    await cache.call("release_reservation", "ReleaseReservationRequest", key=key, owner_id="two")
    assert (await cache.reserve(key, "two")).owner_id == "one"
    await cache.call("release_reservation", "ReleaseReservationRequest", key=key, owner_id="one")
    assert (await cache.reserve(key, "two")).owner_id == "two"
    kind = "GetOrExtendReservationRequest"
    wrong = cache.call("get_or_extend_reservation", kind, key=key, owner_id="x", heartbeat_interval=timedelta(seconds=-5))
    assert "heartbeat_interval is -5 s" in await refused(wrong, Code.INVALID_ARGUMENT)


async def test_one_of_many(cache: Cache) -> None:
    """Of those who ask at once for a reservation, one gets it."""
    key = facts.new_name("key")
    held = await asyncio.gather(*(cache.reserve(key, f"owner{number}") for number in range(20)))
    assert len({each.owner_id for each in held}) == 1


async def test_scopes(address: str) -> None:
    """The same key in another domain, or without one, is another key."""
    key = facts.new_name("key")
    await Cache(address, 2).put(key, "/mine")
    await refused(Cache(address, 2, domain="staging").get(key), Code.NOT_FOUND)
    await refused(Cache(address, 1).get(key), Code.NOT_FOUND)


async def test_forms(address: str, world: World) -> None:
    """A task's form, filled in, gives the literals that the task takes; literals give a form again, an action's inputs too."""
    client = TranslatorServiceClient(address)
    spec = facts.nap_spec()
    variables = spec.task_template.interface.inputs
    blank = await client.task_spec_to_launch_form_json(translator_service_pb2.TaskSpecToLaunchFormJsonRequest(task_spec=spec))
    assert MessageToDict(blank.json)["required"] == ["d"]
    literals = facts.nap_inputs(timedelta(days=1)).literals
    request = translator_service_pb2.LiteralsToLaunchFormJsonRequest(literals=literals, variables=variables)
    form = (await client.literals_to_launch_form_json(request)).json
    back = await client.launch_form_json_to_literals(translator_service_pb2.LaunchFormJsonToLiteralsRequest(json=form))
    assert list(back.literals) == list(literals)

    run = facts.new_name("formed")
    await world.create(run, timedelta(days=1))
    uris = await world.send(
        facts.RUNS + "GetActionDataURIs",
        run_service_pb2.GetActionDataURIsRequest(action_id=action_id(run)),
        run_service_pb2.GetActionDataURIsResponse,
    )
    stored = translator_service_pb2.LiteralsToLaunchFormJsonRequest(
        literals_uri=uris.inputs_uri, action_id=action_id(run), variables=variables
    )
    assert (await client.literals_to_launch_form_json(stored)).json == form
    stored.literals_uri = "/etc/passwd"
    assert "literals_uri" in await refused(client.literals_to_launch_form_json(stored), Code.INVALID_ARGUMENT)
    await world.abort(run)


async def test_values(address: str) -> None:
    """Plain JSON becomes literals by the task's own types, or is refused by the name of the input."""
    client = TranslatorServiceClient(address)
    request = translator_service_pb2.JsonValuesToLiteralsRequest(variables=facts.nap_spec().task_template.interface.inputs)
    request.values.update({"d": "P1D"})
    assert list((await client.json_values_to_literals(request)).literals) == list(facts.nap_inputs(timedelta(days=1)).literals)
    request.values.update({"d": "soon"})
    assert "d" in await refused(client.json_values_to_literals(request), Code.INVALID_ARGUMENT)
