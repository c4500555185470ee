"""Clients that nobody here wrote: the SDK's Connect library in its three protocols, grpcio, curl."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest
from connectrpc.client import ConnectClient
from connectrpc.code import Code
from connectrpc.codec import proto_json_codec
from connectrpc.errors import ConnectError
from connectrpc.method import IdempotencyLevel, MethodInfo
from connectrpc.protocol import ProtocolType
from flyteidl2.project import project_service_pb2
from flyteidl2.project.project_service_connect import ProjectServiceClient
from flyteidl2.workflow import internal_run_service_pb2, run_service_pb2
from flyteidl2.workflow.internal_run_service_connect import InternalRunServiceClient
from flyteidl2.workflow.run_service_connect import RunServiceClient
from google.protobuf.duration_pb2 import Duration
from google.rpc.status_pb2 import Status
from pyqwest import Client, HTTPTransport, HTTPVersion

from tests.edge.service import BIDI, CREATE_PROJECT, GET_PROJECT, WATCH, Service, curl

WAYS = [
    pytest.param({"protocol": ProtocolType.CONNECT}, HTTPVersion.HTTP1, id="connect-http1"),
    pytest.param({"protocol": ProtocolType.CONNECT}, HTTPVersion.HTTP2, id="connect-http2"),
    pytest.param({"protocol": ProtocolType.CONNECT, "send_compression": None}, HTTPVersion.HTTP1, id="connect-plain"),
    pytest.param({"protocol": ProtocolType.GRPC}, HTTPVersion.HTTP2, id="grpc-gzip"),
    pytest.param({"protocol": ProtocolType.GRPC, "send_compression": None}, HTTPVersion.HTTP2, id="grpc-plain"),
    pytest.param({"protocol": ProtocolType.GRPC_WEB}, HTTPVersion.HTTP1, id="grpcweb-http1"),
    pytest.param({"protocol": ProtocolType.GRPC_WEB}, HTTPVersion.HTTP2, id="grpcweb-http2"),
]


def client(kind: type[ConnectClient], service: Service, options: dict[str, Any], http: HTTPVersion) -> Any:
    return kind(service.url, http_client=Client(HTTPTransport(http_version=http)), **options)


def get(name: str) -> project_service_pb2.GetProjectRequest:
    return project_service_pb2.GetProjectRequest(id=name)


def watch(name: str) -> run_service_pb2.WatchRunDetailsRequest:
    return run_service_pb2.WatchRunDetailsRequest(run_id={"name": name})


@pytest.mark.parametrize(("options", "http"), WAYS)
async def test_unary(service: Service, options: dict[str, Any], http: HTTPVersion) -> None:
    """A message goes there and back; so does one of 20 MB."""
    projects = client(ProjectServiceClient, service, options, http)
    assert (await projects.get_project(get("flytesnacks"))).project.id == "flytesnacks"
    large = await projects.get_project(get("x" * 20_000_000))
    assert len(large.project.description) == 20_000_000


@pytest.mark.parametrize(("options", "http"), WAYS)
async def test_error(service: Service, options: dict[str, Any], http: HTTPVersion) -> None:
    """An error arrives with its code, its words and its details."""
    with pytest.raises(ConnectError) as caught:
        await client(ProjectServiceClient, service, options, http).get_project(get("wrong"))
    assert caught.value.code is Code.FAILED_PRECONDITION
    assert caught.value.message == "id: 100 % wröng"
    (detail,) = caught.value.details
    duration = Duration()
    assert detail.Unpack(duration)
    assert duration.seconds == 7


@pytest.mark.parametrize(("options", "http"), WAYS)
async def test_server_stream(service: Service, options: dict[str, Any], http: HTTPVersion) -> None:
    """Messages arrive in order; an error after them ends the stream with its code."""
    runs = client(RunServiceClient, service, options, http)
    seen = [message.details.run_spec.cluster_pool async for message in runs.watch_run_details(watch("4"))]
    assert seen == ["0", "1", "2", "3"]
    assert [message async for message in runs.watch_run_details(watch("0"))] == []
    seen = []
    with pytest.raises(ConnectError, match="three") as caught:
        async for message in runs.watch_run_details(watch("3")):
            seen.append(message.details.run_spec.cluster_pool)
    assert seen == ["0", "1", "2"]
    assert caught.value.code is Code.FAILED_PRECONDITION


@pytest.mark.parametrize(("options", "http"), [way for way in WAYS if "http1" not in str(way.id) and way.id != "connect-plain"])
async def test_full_duplex(service: Service, options: dict[str, Any], http: HTTPVersion) -> None:
    """Over HTTP/2 each message of a bidi stream is answered before the next one is sent."""
    answers: list[str] = []
    turn = asyncio.Semaphore(1)

    async def requests() -> AsyncIterator[Any]:
        for name in ("a", "b", "c"):
            await turn.acquire()
            yield internal_run_service_pb2.RecordActionStreamRequest(request={"action_id": {"name": name}})

    runs = client(InternalRunServiceClient, service, options, http)
    async for answer in runs.record_action_stream(requests(), timeout_ms=10_000):
        answers.append(answer.response.action_id.name)
        turn.release()
    assert answers == ["a", "b", "c"]


@pytest.mark.parametrize(("options", "http"), WAYS)
async def test_not_built(service: Service, options: dict[str, Any], http: HTTPVersion) -> None:
    """An RPC without a handler says which one it is."""
    with pytest.raises(ConnectError, match="ProjectService/CreateProject is not built in this server") as caught:
        await client(ProjectServiceClient, service, options, http).create_project(project_service_pb2.CreateProjectRequest())
    assert caught.value.code is Code.UNIMPLEMENTED


@pytest.mark.parametrize(("options", "http"), WAYS)
async def test_unknown_service(service: Service, options: dict[str, Any], http: HTTPVersion) -> None:
    """A service that Flyte does not have is Unimplemented in every protocol."""
    method = MethodInfo(
        name="Do",
        service_name="acme.Service",
        input=project_service_pb2.GetProjectRequest,
        output=project_service_pb2.GetProjectResponse,
        idempotency_level=IdempotencyLevel.UNKNOWN,
    )
    with pytest.raises(ConnectError) as caught:
        await client(ConnectClient, service, options, http).execute_unary(request=get("x"), method=method)
    assert caught.value.code is Code.UNIMPLEMENTED


@pytest.mark.parametrize(("options", "http"), WAYS)
async def test_deadline(service: Service, options: dict[str, Any], http: HTTPVersion) -> None:
    """A handler that outlives the caller's timeout is cancelled, and the call counted as DEADLINE_EXCEEDED."""
    with pytest.raises(ConnectError) as caught:
        await client(ProjectServiceClient, service, options, http).get_project(get("wait"), timeout_ms=100)
    assert caught.value.code is Code.DEADLINE_EXCEEDED
    await service.projects.cancelled.wait()


@pytest.mark.parametrize(("options", "http"), WAYS)
async def test_foreign_exception(service: Service, options: dict[str, Any], http: HTTPVersion) -> None:
    """What nobody foresaw is INTERNAL and tells nothing of the inside; so is a stray cancellation."""
    projects = client(ProjectServiceClient, service, options, http)
    for name in ("crash", "cancel"):
        with pytest.raises(ConnectError) as caught:
            await projects.get_project(get(name))
        assert caught.value.code is Code.INTERNAL
        assert "secret" not in caught.value.message
    assert service.outcomes == ["internal", "internal"]
    errors = [event for event in service.logged if event["level"] == "error"]
    assert ["a secret of the inside" in event["exc_info"] for event in errors] == [True, False]


async def test_json_and_get(service: Service) -> None:
    """Connect with JSON, by POST and, for an RPC without side effects, by GET."""
    projects = ProjectServiceClient(service.url, codec=proto_json_codec())
    assert (await projects.get_project(get("j"))).project.id == "j"
    with pytest.raises(ConnectError, match="wröng"):
        await projects.get_project(get("wrong"))
    method = MethodInfo(
        name="GetProject",
        service_name="flyteidl2.project.ProjectService",
        input=project_service_pb2.GetProjectRequest,
        output=project_service_pb2.GetProjectResponse,
        idempotency_level=IdempotencyLevel.NO_SIDE_EFFECTS,
    )
    for codec in (None, proto_json_codec()):
        reply = await ConnectClient(service.url, codec=codec).execute_unary(request=get("g"), method=method, use_get=True)
        assert reply.project.id == "g"
        assert service.projects.context is not None
        assert service.projects.context.http_method == "GET"


async def test_grpcio_calls(service: Service) -> None:
    """grpcio: unary with metadata both ways, gzip, a server stream, a bidi stream, an unbuilt RPC."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        call = channel.unary_unary(GET_PROJECT)(get("headers").SerializeToString(), metadata=(("x-a", "b"),))
        reply = project_service_pb2.GetProjectResponse.FromString(await call)
        assert reply.project.id == "headers"
        assert ("x-head", "1") in tuple(await call.initial_metadata())
        assert ("x-tail", "2") in tuple(await call.trailing_metadata())
        assert service.projects.context is not None
        assert service.projects.context.header("x-a") == "b"
        zipped = channel.unary_unary(GET_PROJECT)(get("z" * 100_000).SerializeToString(), compression=grpc.Compression.Gzip)
        assert len(project_service_pb2.GetProjectResponse.FromString(await zipped).project.description) == 100_000
        assert len([m async for m in channel.unary_stream(WATCH)(watch("5").SerializeToString())]) == 5
        bidi = channel.stream_stream(BIDI)()
        for name in ("a", "b"):
            request = internal_run_service_pb2.RecordActionStreamRequest(request={"action_id": {"name": name}})
            await bidi.write(request.SerializeToString())
            answer = internal_run_service_pb2.RecordActionStreamResponse.FromString(await bidi.read())
            assert answer.response.action_id.name == name
        await bidi.done_writing()
        assert await bidi.read() is grpc.aio.EOF
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(CREATE_PROJECT)(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_grpcio_errors(service: Service) -> None:
    """grpcio: the message, the details in grpc-status-details-bin, the deadline, bytes that are no message."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        call = channel.unary_unary(GET_PROJECT)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(get("wrong").SerializeToString())
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert caught.value.details() == "id: 100 % wröng"
        packed = dict(caught.value.trailing_metadata())["grpc-status-details-bin"]
        status = Status.FromString(packed)
        assert (status.code, status.message) == (9, "id: 100 % wröng")
        duration = Duration()
        assert status.details[0].Unpack(duration)
        assert duration.seconds == 7
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(get("wait").SerializeToString(), timeout=0.1)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await service.projects.cancelled.wait()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"\xff\xff\xff")
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_long_error_fits_into_trailers(service: Service) -> None:
    """gRPC clients bound the size of trailers: a very long message is cut rather than lost with the whole status."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(GET_PROJECT)(get("long error").SerializeToString())
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert len(caught.value.details() or "") > 1000


@pytest.mark.parametrize("http", ["--http1.1", "--http2-prior-knowledge", "--http2"])
async def test_curl(service: Service, http: str) -> None:
    """curl speaks Connect's JSON over HTTP/1.1, over HTTP/2, and when it asks in vain for an upgrade."""
    status, head, body = await curl(
        http, service.url + GET_PROJECT, "-H", "content-type: application/json", "-d", '{"id": "c", "unknown": 1}'
    )
    assert (status, json.loads(body)["project"]["id"]) == (200, "c")
    assert "content-type: application/json" in head
    status, _, body = await curl(
        http, service.url + GET_PROJECT, "-H", "content-type: application/json", "-d", '{"id": "wrong"}'
    )
    assert status == 400
    assert json.loads(body)["code"] == "failed_precondition"
