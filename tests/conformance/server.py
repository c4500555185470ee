"""The server under test: the suite's reference service on the real edge.

The suite starts it, writes a ``ServerCompatRequest`` to its stdin, reads a ``ServerCompatResponse`` from its stdout,
and ends it with SIGTERM. The suite's message types are loaded at run time from the descriptor set named by the first
argument (``run.py`` makes it), so that none of the suite's files is part of this tree.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

from google.protobuf import any_pb2, struct_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from flyte_unified.core.context import CallContext, Identity
from flyte_unified.core.errors import Code, RpcError
from flyte_unified.rpc.edge import Edge
from flyte_unified.rpc.registry import Registry
from flyte_unified.rpc.sockets import listen
from flyte_unified.rpc.timeouts import connect_timeout, grpc_timeout

PACKAGE = "connectrpc.conformance.v1"
SERVICE = f"{PACKAGE}.ConformanceService"
_KNOWN = {any_pb2.DESCRIPTOR.name, struct_pb2.DESCRIPTOR.name}
_COMPRESS_FROM_BYTES = 32
"""Low, so that the suite reads compressed responses too."""


def load(path: Path) -> None:
    """Make the suite's types known to protobuf."""
    pool = Default()
    for file in FileDescriptorSet.FromString(path.read_bytes()).file:
        if file.name not in _KNOWN:
            pool.AddSerializedFile(file.SerializeToString())


def message(name: str) -> Any:
    """The class of one of the suite's messages."""
    return GetMessageClass(Default().FindMessageTypeByName(f"{PACKAGE}.{name}"))


class Conformance:
    """The reference service, as its proto file describes it. ``Unimplemented`` is meant to be missing."""

    async def unary(self, request: Any, ctx: CallContext) -> Any:
        return message("UnaryResponse")(payload=await self._single(request.response_definition, [request], ctx))

    async def idempotent_unary(self, request: Any, ctx: CallContext) -> Any:
        payload = await self._single(request.response_definition, [request], ctx)
        return message("IdempotentUnaryResponse")(payload=payload)

    async def client_stream(self, requests: AsyncIterator[Any], ctx: CallContext) -> Any:
        received = [request async for request in requests]
        definition = received[0].response_definition if received else message("UnaryResponseDefinition")()
        return message("ClientStreamResponse")(payload=await self._single(definition, received, ctx))

    async def server_stream(self, request: Any, ctx: CallContext) -> AsyncIterator[Any]:
        definition = request.response_definition
        _metadata(definition, ctx)
        response = message("ServerStreamResponse")
        async for payload in self._rest(definition, 0, [request], ctx):
            yield response(payload=payload)

    async def bidi_stream(self, requests: AsyncIterator[Any], ctx: CallContext) -> AsyncIterator[Any]:
        response = message("BidiStreamResponse")
        definition = message("StreamResponseDefinition")()
        full_duplex = False
        received: list[Message] = []
        sent = 0
        first = True
        async for request in requests:
            received.append(request)
            if first:
                first = False
                definition, full_duplex = request.response_definition, request.full_duplex
                _metadata(definition, ctx)
            if full_duplex:
                if sent == len(definition.response_data):
                    break
                await asyncio.sleep(definition.response_delay_ms / 1000)
                info = _info(received, ctx) if sent == 0 else _info(received, None)
                yield response(payload={"data": definition.response_data[sent], "request_info": info})
                sent += 1
                received = []
        async for payload in self._rest(definition, sent, received, ctx):
            yield response(payload=payload)

    async def _single(self, definition: Any, requests: list[Message], ctx: CallContext) -> Message:
        _metadata(definition, ctx)
        info = _info(requests, ctx)
        if definition.WhichOneof("response") == "error":
            raise _error(definition.error, info)
        await asyncio.sleep(definition.response_delay_ms / 1000)
        payload: Message = message("ConformancePayload")(data=definition.response_data, request_info=info)
        return payload

    async def _rest(self, definition: Any, sent: int, requests: list[Message], ctx: CallContext) -> AsyncIterator[Message]:
        """The responses from number ``sent`` on, then the error, if any."""
        for data in definition.response_data[sent:]:
            await asyncio.sleep(definition.response_delay_ms / 1000)
            payload = message("ConformancePayload")(data=data)
            if sent == 0:
                payload.request_info.CopyFrom(_info(requests, ctx))
            sent += 1
            yield payload
        if definition.HasField("error"):
            raise _error(definition.error, None if sent else _info(requests, ctx))


def _metadata(definition: Any, ctx: CallContext) -> None:
    for name, lines in (
        (definition.response_headers, ctx.response_headers),
        (definition.response_trailers, ctx.response_trailers),
    ):
        lines.extend((header.name.lower(), value) for header in name for value in header.value)


def _error(error: Any, info: Message | None) -> RpcError:
    details = list(error.details) + ([] if info is None else [info])
    return RpcError(Code(error.code), error.message, details=details)


def _info(requests: Iterable[Message], ctx: CallContext | None) -> Message:
    info = message("ConformancePayload.RequestInfo")()
    for request in requests:
        info.requests.add().Pack(request)
    if ctx is not None:
        by_name: dict[str, list[str]] = {}
        for name, value in ctx.headers:
            by_name.setdefault(name, []).append(value)
        for name, values in by_name.items():
            info.request_headers.add(name=name, value=values)
        if milliseconds := ctx.header("connect-timeout-ms"):
            info.timeout_ms = round(connect_timeout(milliseconds) * 1000)
        elif timeout := ctx.header("grpc-timeout"):
            info.timeout_ms = round(grpc_timeout(timeout) * 1000)
        if ctx.http_method == "GET":
            info.connect_get_info.SetInParent()
    return info


async def serve() -> None:
    size = int.from_bytes(sys.stdin.buffer.read(4), "big")
    wanted = message("ServerCompatRequest").FromString(sys.stdin.buffer.read(size))
    registry = Registry()
    registry.add(SERVICE, Conformance(), descriptor=Default().FindServiceByName(SERVICE))
    edge = Edge(
        registry=registry,
        identify=lambda token, headers: Identity(),
        max_message_bytes=wanted.message_receive_limit or 64 << 20,
        compress_from_bytes=_COMPRESS_FROM_BYTES,
    )
    await edge.start(listen("127.0.0.1", 0))
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    answer = message("ServerCompatResponse")(host="127.0.0.1", port=edge.port).SerializeToString()
    sys.stdout.buffer.write(len(answer).to_bytes(4, "big") + answer)
    sys.stdout.buffer.flush()
    await ended.wait()
    await edge.stop(0.5)


if __name__ == "__main__":
    load(Path(sys.argv[1]))
    asyncio.run(serve())
