"""Our own service, ``flyte_unified.v1.ManagerService``, on the same port: in gRPC by its stub, and in JSON by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import pytest

from flyte_unified import __version__
from flyte_unified.core.errors import Code, FlyteUnifiedError
from flyte_unified.core.ids import RunKey
from flyte_unified.manager import Manager
from flyte_unified.net.grpc import channel
from flyte_unified.operations import admission
from flyte_unified.operations.messages import DrainRequest, ManagerServiceStub, Role, State
from flyte_unified.rpc.sockets import listen
from flyte_unified.rpc.tokens import RunTokens
from flyte_unified.storage.signing import load_key, read_key
from flyte_unified.testing import Backend
from flyte_unified.testing.backend import running, settings_in
from tests.edge.wire.raw import Raw
from tests.edge.wire.world import DOMAIN, PROJECT

_SERVICE = "/flyte_unified.v1.ManagerService"


async def readiness(address: str) -> int:
    async with aiohttp.ClientSession() as session, session.get(f"{address}/readyz") as response:
        return response.status


async def refusal(address: str, headers: Mapping[str, str]) -> Code | None:
    """How a server takes an operator's call."""
    try:
        async with channel(address) as opened:
            assert (await ManagerServiceStub(opened, metadata=headers).get_config()).settings
    except FlyteUnifiedError as error:
        return error.code
    return None


async def test_the_stub_asks_a_server_how_it_is(server: Backend, directory: Path) -> None:
    """Version, state, place and parts; the settings that hold."""
    async with channel(server.address) as opened:
        manager = ManagerServiceStub(opened)
        status = await manager.get_status()
        components = (await manager.list_components()).components
        config = await manager.get_config()
        queues = (await manager.list_queues()).queues
    assert (status.version, status.state, status.role) == (__version__, State.READY, Role.LEADER)
    assert (status.address, status.data_dir, status.launcher) == (server.address, str(directory), "processes")
    assert status.actions.slots == 64
    assert status.storage.free_bytes > 0
    assert all(part.healthy for part in components)
    told = {part.name: part.detail for part in components}
    assert told.keys() == {"database", "storage", "executor", "scheduler", "apps"}
    assert (told["executor"], "triggers that are to fire" in told["scheduler"]) == ("carries out runs", True)
    assert ("database writes", 10_000) in {(queue.name, queue.limit) for queue in queues}
    assert {setting.key: setting.value for setting in config.settings}["execution.slots"] == "64"


async def test_json_without_any_stub(raw: Raw) -> None:
    """As ``curl`` asks; what is no request is told as such."""
    answer = await raw.call(f"{_SERVICE}/GetStatus", b"{}", codec="json")
    assert json.loads(answer.bodies[0])["state"] == "STATE_READY"
    answer = await raw.call(f"{_SERVICE}/GetStatus", b"", codec="json")
    assert answer.code == "ok"
    for codec, body in (("json", b'{"off": "maybe"}'), ("json", b"[]"), ("proto", b"\x08")):
        answer = await raw.call(f"{_SERVICE}/Drain", body, codec=codec, streams=True)
        assert (answer.code, "DrainRequest" in answer.message) == ("invalid_argument", True), answer


async def test_a_drained_server_says_so_until_it_begins_again() -> None:
    """To whoever asks, and to what balances load; calls are answered all the while."""
    async with running() as manager, channel(manager.address) as opened:
        stub = ManagerServiceStub(opened)
        assert [(told.state, told.live) async for told in stub.drain(DrainRequest(wait=True))] == [(State.DRAINING, 0)]
        assert await readiness(manager.address) == 503
        assert (await stub.get_status()).state is State.DRAINING
        assert [told.state async for told in stub.drain(DrainRequest(off=True))] == [State.READY]
        assert await readiness(manager.address) == 200


@pytest.mark.parametrize(
    "settings",
    [
        {"server.host": "127.0.0.1", "server.public_url": "https://flyte.example"},
        {"server.key": "c2l4dGVlbiBieXRlcyBhbmQgc2l4dGVlbiBieXRlcyE="},
        {"server.host": "0.0.0.0", "server.insecure_public": True},
    ],
    ids=["behind a proxy", "in a cluster", "public"],
)
async def test_who_operates_a_server_that_others_reach(tmp_path: Path, settings: Mapping[str, object]) -> None:
    """Only who has its key: another is refused, with a wrong token too, and nothing is told or changed."""
    loaded = settings_in(tmp_path, settings)
    sockets = listen(loaded.server.host, 0)
    manager = Manager(loaded, sockets=sockets)
    address = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    try:
        await manager.start()
        for headers in ({}, {"authorization": "Bearer wrong"}, admission.headers(b"another key")):
            assert await refusal(address, headers) is Code.PERMISSION_DENIED
        key = read_key(loaded.server.key) if loaded.server.key else load_key(tmp_path / "key")
        assert await refusal(address, admission.headers(key)) is None
    finally:
        await manager.stop()


async def test_a_task_is_no_operator(server: Backend, directory: Path, raw: Raw) -> None:
    """Even where everybody else is one."""
    token = RunTokens(load_key(directory / "key")).token(RunKey(PROJECT, DOMAIN, "spare"))
    assert (await raw.call(f"{_SERVICE}/Drain", b"{}", codec="json", streams=True, token=token)).code == "permission_denied"
    assert await readiness(server.address) == 200
