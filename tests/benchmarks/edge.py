"""What one call costs the edge: CPU of the server process, microseconds.

    python tests/benchmarks/edge.py [seconds per row]

The server runs in a process of its own; its CPU time is read before and after each row. Requests are what the SDK
sends: 44 bytes of protobuf, gzip. Wall-clock rates are of this client and this machine, and mean little.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc.aio
from flyteidl2.project import project_service_pb2
from flyteidl2.workflow import run_service_pb2

from flyte_unified.core.context import CallContext, Identity
from flyte_unified.core.http import Request, Response, Route
from flyte_unified.rpc.edge import Edge
from flyte_unified.rpc.registry import Registry
from flyte_unified.rpc.sockets import listen

_UNARY = "/flyteidl2.project.ProjectService/GetProject"
_STREAM = "/flyteidl2.workflow.RunService/WatchRunDetails"
_MESSAGES = 500
_MESSAGE = project_service_pb2.GetProjectRequest(id="p" * 42).SerializeToString()


class Projects:
    async def get_project(self, message: Any, ctx: CallContext) -> Any:
        return project_service_pb2.GetProjectResponse(project={"id": message.id})


class Runs:
    async def watch_run_details(self, message: Any, ctx: CallContext) -> AsyncIterator[Any]:
        for _ in range(_MESSAGES):
            yield run_service_pb2.WatchRunDetailsResponse(details={"run_spec": {"raw_data_storage": {}}})


async def cpu(request: Request) -> Response:
    return Response(body=str(time.process_time_ns()).encode())


async def serve() -> None:
    registry = Registry()
    registry.add("flyteidl2.project.ProjectService", Projects())
    registry.add("flyteidl2.workflow.RunService", Runs())
    edge = Edge(registry=registry, routes=[Route("GET", "/cpu", cpu)], identify=lambda token, headers: Identity())
    await edge.start(listen("127.0.0.1", 0))
    sys.stdout.write(f"{edge.port}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    await edge.stop()


def connect_request(path: str, body: bytes, *, headers: str) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: connectrpc/0.10.1\r\nconnect-protocol-version: 1\r\n"
        f"x-request-id: 0123456789abcdef\r\n{headers}content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def unary_request() -> bytes:
    headers = "content-type: application/proto\r\ncontent-encoding: gzip\r\naccept-encoding: gzip,identity\r\n"
    return connect_request(_UNARY, gzip.compress(_MESSAGE), headers=headers)


def stream_request() -> bytes:
    headers = "content-type: application/connect+proto\r\nconnect-accept-encoding: gzip,identity\r\n"
    return connect_request(_STREAM, b"\0\0\0\0\0", headers=headers)


async def http1(port: int, request: bytes, until: float) -> int:
    """Calls over one connection, one after the other."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    calls = 0
    while time.monotonic() < until:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head.decode())
        if b"chunked" in head:
            await reader.readuntil(b"\r\n0\r\n\r\n")
        else:
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length))
        calls += 1
    writer.close()
    await writer.wait_closed()
    return calls


async def grpc_unary(channel: grpc.aio.Channel, until: float) -> int:
    call = channel.unary_unary(_UNARY)
    calls = 0
    while time.monotonic() < until:
        await call(_MESSAGE)
        calls += 1
    return calls


async def grpc_stream(channel: grpc.aio.Channel, until: float) -> int:
    call = channel.unary_stream(_STREAM)
    calls = 0
    while time.monotonic() < until:
        async for _ in call(b""):
            pass
        calls += 1
    return calls


async def row(name: str, port: int, seconds: float, workers: list[Callable[[float], Awaitable[int]]], per: int) -> None:
    for duration in (seconds / 4, seconds):  # the first warms up
        before, began = await server_cpu(port), time.monotonic()
        calls = sum(await asyncio.gather(*(worker(began + duration) for worker in workers)))
        spent, wall = await server_cpu(port) - before, time.monotonic() - began
    sys.stdout.write(f"{name:44} {spent / 1000 / calls / per:8.1f} us {calls * per / wall:9.0f}/s\n")


async def server_cpu(port: int) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /cpu HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return int(answer.rpartition(b"\r\n")[2])


async def measure(port: int, seconds: float) -> None:
    for width in (1, 16, 64):
        workers = [lambda until: http1(port, unary_request(), until)] * width
        await row(f"Connect unary, HTTP/1.1, {width} at once", port, seconds, workers, 1)
    await row(
        "Connect stream, HTTP/1.1, 4 at once, a message",
        port,
        seconds,
        [lambda until: http1(port, stream_request(), until)] * 4,
        _MESSAGES,
    )
    async with contextlib.AsyncExitStack() as stack:
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{port}"))
        for width in (1, 16, 64):
            await row(f"gRPC unary, {width} at once", port, seconds, [lambda until: grpc_unary(channel, until)] * width, 1)
        await row(
            "gRPC stream, 4 at once, a message",
            port,
            seconds,
            [lambda until: grpc_stream(channel, until)] * 4,
            _MESSAGES,
        )


async def main(seconds: float) -> None:
    server = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "serve", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout is not None
    assert server.stdin is not None
    try:
        await measure(int(await server.stdout.readline()), seconds)
    finally:
        server.stdin.close()
        await server.wait()


if __name__ == "__main__":
    asyncio.run(serve() if sys.argv[1:] == ["serve"] else main(float(sys.argv[1]) if sys.argv[1:] else 2.0))
