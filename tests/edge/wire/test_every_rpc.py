"""Every RPC there is, called with nothing, with noise and in the wrong way: a code that is documented, at once."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import grpc.aio
import pytest

from flyte_unified.core.errors import Code
from flyte_unified.rpc.registry import Kind, Method, Registry
from flyte_unified.testing import Backend
from tests.edge.wire.examples import Example
from tests.edge.wire.raw import Raw, Stored

_METHODS = list(Registry().methods())
_SERVICES = sorted({method.service for method in _METHODS})
_SECONDS = 5.0
"""What is answered at once takes less, however busy the machine; what waits for something takes longer."""
_PATIENCE = 0.05

_WITHOUT_A_MESSAGE = {
    "/flyteidl2.app.AppService/List": "ok",
    "/flyteidl2.auth.AuthMetadataService/GetOAuth2Metadata": "unimplemented",
    "/flyteidl2.auth.AuthMetadataService/GetPublicClientConfig": "unimplemented",
    "/flyteidl2.auth.IdentityService/UserInfo": "ok",
    "/flyteidl2.cluster.ClusterService/SelectCluster": "ok",
    "/flyteidl2.org.DomainService/ListDomains": "ok",
    "/flyteidl2.project.ProjectService/ListProjects": "ok",
    "/flyteidl2.secret.SecretService/ListSecrets": "ok",
    "/flyteidl2.settings.SettingsService/GetSettings": "ok",
    "/flyteidl2.settings.SettingsService/GetSettingsForEdit": "ok",
    "/flyteidl2.task.TaskService/ListTasks": "ok",
    "/flyteidl2.trigger.TriggerService/ListTriggers": "ok",
    "/flyteidl2.workflow.RunService/ListRuns": "ok",
    "/flyteidl2.workflow.RunService/WatchRuns": "open",
    "/flyteidl2.workflow.TrackedRunService/ListRuns": "ok",
    "/flyteidl2.workflow.TrackedRunService/WatchRuns": "open",
    "/flyteidl2.workflow.TranslatorService/LiteralsToLaunchFormJson": "ok",
    "/flyteidl2.workflow.TranslatorService/TaskSpecToLaunchFormJson": "ok",
    # What is wrong with one report is told in its own answer.
    "/flyteidl2.workflow.InternalRunService/RecordAction": "ok",
    "/flyteidl2.workflow.InternalRunService/UpdateActionStatus": "ok",
    "/flyteidl2.workflow.InternalRunService/RecordActionEvents": "ok",
    "/flyteidl2.workflow.InternalRunService/RecordActionStream": "ok",
    "/flyteidl2.workflow.InternalRunService/UpdateActionStatusStream": "ok",
    "/flyteidl2.workflow.InternalRunService/RecordActionEventStream": "ok",
}
"""How an empty request ends; ``invalid_argument`` where nothing is said."""


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory, accidents: list[str]) -> Iterator[tuple[Backend, Path]]:
    """A server of this file's alone, and its directory: what others have begun goes on, and would look like our doing."""
    directory = tmp_path_factory.mktemp("quiet")
    with Backend({"storage.bundles": str(directory / "bundles")}, directory=directory) as backend:
        yield backend, directory


@pytest.fixture
def alone(quiet: tuple[Backend, Path]) -> Backend:
    return quiet[0]


@pytest.fixture
def stored(quiet: tuple[Backend, Path]) -> Stored:
    return Stored(quiet[1])


@pytest.fixture
async def raw(alone: Backend) -> AsyncIterator[Raw]:
    async with Raw(alone.address) as raw:
        yield raw


def of(service: str) -> list[Method]:
    return [method for method in _METHODS if method.service == service]


def built(server: Backend, method: Method) -> bool:
    found = server.manager.registry.find(method.procedure)
    return found is not None and found.handler is not None


def streams(method: Method) -> bool:
    return method.kind is not Kind.UNARY


@pytest.mark.parametrize("service", _SERVICES)
async def test_nothing(raw: Raw, alone: Backend, stored: Stored, service: str) -> None:
    """An empty message is answered where nothing is needed, else refused by the name of what is missing."""
    before = stored.now()
    for method in of(service):
        began = time.monotonic()
        answer = await raw.call(method.procedure, streams=streams(method), patience=_PATIENCE)
        assert time.monotonic() - began < _SECONDS, method.procedure
        expected = "unimplemented"
        if built(alone, method):
            expected = _WITHOUT_A_MESSAGE.get(method.procedure, "invalid_argument")
        assert answer.code == expected, (method.procedure, answer)
        if answer.code == "invalid_argument":
            assert any(word in answer.message for word in ("empty", "missing", "set", "expected")), answer
    assert stored.now() == before


@pytest.mark.parametrize(
    ("codec", "body"),
    [
        pytest.param("proto", bytes(range(255, 0, -1)), id="noise"),
        pytest.param("proto", b"\x0a\xff\xff\xff\xff\x0f", id="a field longer than the message"),
        pytest.param("proto", b"\x0b" * 5000, id="groups in groups"),
        pytest.param("json", b'{"a":', id="half an object"),
        pytest.param("json", b"[]", id="no object"),
        pytest.param("json", b'{"a":' * 5000, id="objects in objects"),
        pytest.param("json", b"\xff\xfe{}", id="no UTF-8"),
    ],
)
async def test_noise(raw: Raw, alone: Backend, stored: Stored, codec: str, body: bytes) -> None:
    """Bytes that are no message are InvalidArgument, told with the message's name."""
    before = stored.now()
    for method in _METHODS:
        began = time.monotonic()
        answer = await raw.call(method.procedure, body, streams=streams(method), codec=codec, patience=_PATIENCE)
        assert time.monotonic() - began < _SECONDS, method.procedure
        if not built(alone, method):
            assert answer.code == "unimplemented", (method.procedure, answer)
            continue
        assert answer.code == "invalid_argument", (method.procedure, answer)
        assert answer.message.startswith("the request is no flyteidl2."), answer
    assert stored.now() == before


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "application/grpc-web-text+thrift", ""])
async def test_a_wrong_content_type(raw: Raw, stored: Stored, content_type: str) -> None:
    """415, and what would be right."""
    before = stored.now()
    for method in _METHODS:
        answer = await raw.call(method.procedure, b"{}", headers={"content-type": content_type})
        assert answer.code == "http 415", (method.procedure, answer)
    assert stored.now() == before


async def test_a_stream_is_no_unary_call(raw: Raw) -> None:
    """Nor the other way round: 415."""
    for method in _METHODS:
        answer = await raw.call(method.procedure, streams=not streams(method))
        assert answer.code == "http 415", (method.procedure, answer)


async def test_noise_over_grpc(alone: Backend) -> None:
    """The same codes in gRPC's own words."""
    async with grpc.aio.insecure_channel(alone.endpoint) as channel:
        for method in _METHODS:
            call = channel.unary_stream(method.procedure)(bytes(range(255, 0, -1)), timeout=_SECONDS)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            expected = Code.INVALID_ARGUMENT if built(alone, method) else Code.UNIMPLEMENTED
            assert caught.value.code().value[0] == expected, (method.procedure, caught.value.details())


async def test_every_rpc_has_an_example(alone: Backend, valid: Mapping[str, list[Example]]) -> None:
    """So that no RPC escapes the tests with one field wrong."""
    shown = {example.procedure for examples in valid.values() for example in examples}
    assert shown == {method.procedure for method in _METHODS if built(alone, method)}
