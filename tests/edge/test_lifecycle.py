"""Connections that end: by the client, by the server's stop, by a client that is slow or silent."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import grpc.aio
import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from flyteidl2.project.project_service_connect import ProjectServiceClient
from flyteidl2.workflow.run_service_connect import RunServiceClient
from grpclib.client import Channel
from grpclib.const import Cardinality
from grpclib.exceptions import StreamTerminatedError
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded, StreamReset, TrailersReceived
from pyqwest import HTTPVersion

from flyte_unified.rpc.edge import Patience
from flyte_unified.rpc.envelope import pack
from flyte_unified.rpc.listener import PREFACE
from tests.edge.raw import RawCodec
from tests.edge.service import GET_PROJECT, WATCH, Service, connected, curl, http1, rest, serving
from tests.edge.test_clients import WAYS, client, get, watch

UNARY = b"POST %s HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"


def unary(body: bytes) -> bytes:
    return UNARY % (GET_PROJECT.encode(), len(body), body)


@pytest.mark.parametrize(("options", "http"), WAYS)
async def test_stop_ends_streams(options: dict[str, Any], http: HTTPVersion) -> None:
    """When the server stops, an open stream ends cleanly with UNAVAILABLE, so that its client connects again."""
    async with serving() as service:
        messages = client(RunServiceClient, service, options, http).watch_run_details(watch("wait"))
        assert (await anext(messages)).details.run_spec.cluster_pool == "0"
        stopping = asyncio.create_task(service.edge.stop(5.0))
        with pytest.raises(ConnectError, match="server is shutting down") as caught:
            await anext(messages)
        assert caught.value.code is Code.UNAVAILABLE
        await stopping
        assert service.runs.ended.is_set()
        assert service.outcomes == ["unavailable"]


@pytest.mark.parametrize(("options", "http"), WAYS)
async def test_stop_waits_for_calls(options: dict[str, Any], http: HTTPVersion) -> None:
    """A unary call under way has the grace to finish."""
    async with serving() as service:
        call = asyncio.create_task(client(ProjectServiceClient, service, options, http).get_project(get("hold")))
        await service.projects.began.wait()
        stopping = asyncio.create_task(service.edge.stop(5.0))
        await asyncio.sleep(0)
        service.projects.release.set()
        assert (await call).project.id == "hold"
        await stopping


@pytest.mark.parametrize(("options", "http"), WAYS)
async def test_stop_is_bounded(options: dict[str, Any], http: HTTPVersion) -> None:
    """A unary call that outlives the grace is cancelled and told so."""
    async with serving() as service:
        call = asyncio.create_task(client(ProjectServiceClient, service, options, http).get_project(get("wait")))
        await service.projects.began.wait()
        await service.edge.stop(0.05)
        with pytest.raises(ConnectError, match="server is shutting down") as caught:
            await call
        assert caught.value.code is Code.UNAVAILABLE
        assert service.projects.cancelled.is_set()


async def test_stop_closes_everything() -> None:
    """After a stop there is no listener and no connection: idle, silent, or half-way through a request."""
    openings = (b"", b"POST / HT", PREFACE, b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n", unary(b"{}")[:-1])
    async with serving() as service, contextlib.AsyncExitStack() as stack:
        pairs = [await stack.enter_async_context(connected(service.port)) for _ in openings]
        for (_, writer), data in zip(pairs, openings, strict=True):
            writer.write(data)
        assert await pairs[3][0].readuntil(b"OK")
        await service.edge.stop(0.05)
        for reader, _ in pairs:
            await rest(reader)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", service.port)


async def test_http1_client_leaves(service: Service) -> None:
    """A handler is cancelled when its caller hangs up."""
    async with connected(service.port) as (_, writer):
        writer.write(unary(b'{"id": "wait"}'))
        await service.projects.began.wait()
    await service.projects.cancelled.wait()
    assert service.outcomes == ["canceled"]
    assert service.in_flight == 0


async def test_grpc_client_leaves(service: Service) -> None:
    """A handler is cancelled when its caller cancels the call, and when the whole channel goes."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        call = channel.unary_unary(GET_PROJECT)(get("wait").SerializeToString())
        await service.projects.began.wait()
        call.cancel()
        await service.projects.cancelled.wait()
        assert await call.code() is grpc.StatusCode.CANCELLED
        stream = channel.unary_stream(WATCH)(watch("wait").SerializeToString())
        await stream.read()
    await service.runs.ended.wait()
    assert await stream.code() is grpc.StatusCode.CANCELLED
    assert service.outcomes == ["canceled", "canceled"]
    if own := [task for task in asyncio.all_tasks() if type(task.get_coro()).__module__.startswith("_cython")]:
        await asyncio.wait(own, timeout=5)  # grpcio's, which end a moment after what they tell


async def test_connect_stream_client_leaves(service: Service) -> None:
    """A stream's handler is cancelled when the client stops reading it."""
    messages = RunServiceClient(service.url).watch_run_details(watch("wait"))
    await anext(messages)
    await messages.aclose()
    await service.runs.ended.wait()


@pytest.mark.parametrize("data", [b"", b"P", PREFACE[:20], b"POST / HTTP/1.1\r\nhost: local"])
async def test_slow_head(data: bytes) -> None:
    """A client that does not finish its first request's head is hung up on."""
    async with serving(patience=Patience(head=0.1)) as service:
        assert await http1(service.port, data) == b""
        assert (await curl(service.url + "/healthz"))[0] == 200


async def test_slow_second_head() -> None:
    """The bound on a head holds for later requests of a connection too, and not for the pause between them."""
    async with serving(patience=Patience(head=0.1)) as service, connected(service.port) as (reader, writer):
        for _ in range(2):
            writer.write(unary(b'{"id": "p"}'))
            await reader.readuntil(b"}}")
            await asyncio.sleep(0.2)
        writer.write(b"POST / HTTP/1.1\r\n")
        assert await rest(reader) == b""


async def test_slow_body() -> None:
    """A client that stops within a unary call's body is hung up on."""
    async with serving(patience=Patience(stall=0.1)) as service:
        assert await http1(service.port, unary(b'{"id": "p"}')[:-3]) == b""
        assert service.outcomes == ["canceled"]


async def test_http1_client_does_not_read() -> None:
    """A stream waits for its client, holds a bounded amount for it, and gives it up after a while."""
    message = watch("flood").SerializeToString()
    body = b"\0" + len(message).to_bytes(4, "big") + message
    head = f"POST {WATCH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/connect+proto\r\n"
    async with serving(patience=Patience(stall=0.2)) as service, connected(service.port) as (_, writer):
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        await service.runs.ended.wait()
        assert service.runs.sent < 500


async def test_http2_client_does_not_read() -> None:
    """The same over HTTP/2, where the window is what is full."""
    async with serving(patience=Patience(stall=0.2)) as service:
        async with Channel("127.0.0.1", service.port, codec=RawCodec()) as channel:
            with pytest.raises(StreamTerminatedError):
                await _flood(channel, service)
        assert service.runs.sent < 500


async def _flood(channel: Channel, service: Service) -> None:
    async with channel.request(WATCH, Cardinality.UNARY_STREAM, bytes, bytes) as stream:
        await stream.send_message(watch("flood").SerializeToString(), end=True)
        await service.runs.ended.wait()
        while await stream.recv_message() is not None:
            pass


async def test_deadline_within_a_message() -> None:
    """A deadline that passes while half a message is sent resets the stream: an ending would be taken for the rest."""
    h2 = H2Connection(H2Configuration(header_encoding="ascii"))
    h2.initiate_connection()
    head = {":method": "POST", ":scheme": "http", ":authority": "localhost", ":path": WATCH}
    h2.send_headers(1, [*head.items(), ("content-type", "application/grpc"), ("grpc-timeout", "200m")])
    h2.send_data(1, pack(watch("flood").SerializeToString()), end_stream=True)
    async with serving() as service, connected(service.port) as (reader, writer):
        writer.write(h2.data_to_send())
        seen: set[type] = set()
        while StreamReset not in seen:
            # The window is never opened again, so the second message is stuck.
            seen.update(type(event) for event in h2.receive_data(await reader.read(1024)))
        assert DataReceived in seen
        assert not seen & {StreamEnded, TrailersReceived}
        assert service.outcomes == ["deadline_exceeded"]


@pytest.mark.parametrize("data", [PREFACE + b"\0\0\0\4\0\0\0\0\0", b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"])
async def test_idle(data: bytes) -> None:
    """An idle connection is closed, HTTP/2's with a GOAWAY."""
    async with serving(patience=Patience(idle=0.1)) as service:
        answer = await http1(service.port, data)
        assert answer.endswith(b"OK") or answer[-17:-13] == b"\0\0\x08\x07"


async def test_too_many_connections() -> None:
    """Beyond its bound the server refuses connections, and takes new ones when old ones have gone."""
    async with serving(max_connections=2) as service:
        async with connected(service.port) as first, connected(service.port) as second:
            for reader, writer in (first, second):
                writer.write(unary(b'{"id": "p"}'))
                await reader.readuntil(b"}}")
            assert await http1(service.port, b"") == b""
        assert (await curl(service.url + "/healthz"))[0] == 200


async def test_small_messages_go_at_once(service: Service) -> None:
    """No message waits for the acknowledgement of the one before (Nagle): a hundred calls do not take 100 times 40 ms."""
    async with Channel("127.0.0.1", service.port, codec=RawCodec()) as channel, asyncio.timeout(3.5):
        for _ in range(100):
            async with channel.request(WATCH, Cardinality.UNARY_STREAM, bytes, bytes) as stream:
                await stream.send_message(watch("2").SerializeToString(), end=True)
                assert len([message async for message in stream]) == 2


async def test_many_streams_on_one_connection(service: Service) -> None:
    """Hundreds of open streams share a connection, and short calls pass between them."""
    async with Channel("127.0.0.1", service.port, codec=RawCodec()) as channel, contextlib.AsyncExitStack() as stack:
        for _ in range(300):
            stream = await stack.enter_async_context(channel.request(WATCH, Cardinality.UNARY_STREAM, bytes, bytes))
            await stream.send_message(watch("wait").SerializeToString(), end=True)
            assert await stream.recv_message()
            stack.push_async_callback(stream.cancel)
        async with channel.request(GET_PROJECT, Cardinality.UNARY_UNARY, bytes, bytes) as call:
            await call.send_message(get("p").SerializeToString(), end=True)
            assert await call.recv_message()
        assert service.in_flight == 300
