"""The protocols without sockets: any request is answered, once, with something that its client can read."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog
from google.protobuf.duration_pb2 import Duration
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from flyte_unified.core.context import CallContext
from flyte_unified.core.errors import Code, FailedPrecondition, NotFound, RpcError
from flyte_unified.rpc.application import Application
from flyte_unified.rpc.calls import Policy
from flyte_unified.rpc.envelope import Unpacker, pack
from flyte_unified.rpc.errors import connect_error_json, grpc_status
from flyte_unified.rpc.registry import Kind, Method, Registry
from flyte_unified.rpc.wire import Limits
from tests.edge.memory import MemoryExchange
from tests.edge.service import TOKEN, identify

CONTENT_TYPES = [
    "application/proto",
    "application/json",
    "application/connect+proto",
    "application/connect+json",
    "application/grpc",
    "application/grpc+json",
    "application/grpc-web+proto",
    "application/grpc-web-text",
    "application/grpc-web-text+proto",
]

QUIET = structlog.wrap_logger(structlog.ReturnLogger())


class Texts:
    """Handlers over plain bytes, one of each kind."""

    async def unary(self, message: bytes, ctx: CallContext) -> bytes:
        if message == b"fail":
            raise NotFound("no text")
        return message.upper()

    async def client(self, messages: AsyncIterator[bytes], ctx: CallContext) -> bytes:
        return b"+".join([message async for message in messages])

    async def server(self, message: bytes, ctx: CallContext) -> AsyncIterator[bytes]:
        for letter in message:
            yield bytes([letter])

    async def bidi(self, messages: AsyncIterator[bytes], ctx: CallContext) -> AsyncIterator[bytes]:
        async for message in messages:
            yield message[::-1]


def application(**options: Any) -> Application:
    """The four kinds of RPC on messages that are no protobuf at all."""
    texts, registry = Texts(), Registry()
    kinds = {"unary": Kind.UNARY, "client": Kind.CLIENT_STREAM, "server": Kind.SERVER_STREAM, "bidi": Kind.BIDI_STREAM}
    for name, kind in kinds.items():
        coders = {"proto": bytes, "json": bytes}
        registry.add_method(Method("acme.Texts", name.title(), kind, getattr(texts, name), coders, coders, idempotent=True))
    policy = Policy(identify=identify, limits=Limits(message=1000, compress_from=1000), **options)
    return Application(registry=registry, routes=[], policy=policy, allowed_hosts=[], cors_origins=[], logger=QUIET)


async def ask(name: str, content_type: str, *pieces: bytes, **headers: str) -> MemoryExchange:
    lines = (("content-type", content_type), *((key.replace("_", "-"), value) for key, value in headers.items()))
    exchange = MemoryExchange(f"/acme.Texts/{name}", *pieces, headers=lines)
    await application()(exchange)
    return exchange


def messages(exchange: MemoryExchange) -> list[bytes]:
    return [frame.payload for frame in Unpacker(limit=10_000).feed(exchange.body) if not frame.flags]


@pytest.mark.parametrize("content_type", ["application/connect+proto", "application/grpc", "application/grpc-web"])
async def test_kinds(content_type: str) -> None:
    """Each kind of RPC reads and writes as many messages as it should, wherever the pieces are cut."""
    body = b"".join(map(pack, (b"one", b"two", b"three")))
    for size in (1, 3, 7, len(body)):
        cut = [body[at : at + size] for at in range(0, len(body), size)]
        assert messages(await ask("Client", content_type, *cut)) == [b"one+two+three"]
        assert messages(await ask("Bidi", content_type, *cut)) == [b"eno", b"owt", b"eerht"]
    assert messages(await ask("Server", content_type, pack(b"abc"))) == [b"a", b"b", b"c"]
    assert messages(await ask("Bidi", content_type)) == []


@pytest.mark.parametrize("count", [0, 2])
@pytest.mark.parametrize(("name", "content_type"), [("Server", "application/connect+proto"), ("Unary", "application/grpc")])
async def test_one_message_wanted(name: str, content_type: str, count: int) -> None:
    """Where one request message is due, none and two are refused."""
    exchange = await ask(name, content_type, pack(b"x") * count)
    assert ("grpc-status", "12") in exchange.trailers or b'"unimplemented"' in exchange.body


async def test_flags() -> None:
    """Flags that mean nothing, and compression that no header announced, are errors, not guesses."""
    for flags in (0x01, 0x04, 0x80):
        exchange = await ask("Client", "application/grpc", pack(b"x", flags=flags))
        assert ("grpc-status", "13") in exchange.trailers
    exchange = await ask("Client", "application/grpc", pack(b"x"), grpc_encoding="zstd")
    assert ("grpc-status", "12") in exchange.trailers
    assert ("grpc-accept-encoding", "gzip,identity") in exchange.answered


async def test_grpc_web_text() -> None:
    """gRPC-Web text answers in base64 what gRPC-Web answers in bytes."""
    exchange = await ask("Server", "application/grpc-web-text", base64.b64encode(pack(b"ab")))
    assert ("content-type", "application/grpc-web-text+proto") in exchange.answered
    raw = b"".join(base64.b64decode(part + b"=") for part in exchange.body.split(b"=") if part)
    assert raw == pack(b"a") + pack(b"b") + pack(b"grpc-status: 0\r\n", flags=0x80)


@given(
    st.sampled_from(["Unary", "Client", "Server", "Bidi", "Nothing"]),
    st.sampled_from([*CONTENT_TYPES, "text/plain", ""]),
    st.lists(st.binary(max_size=60), max_size=4),
    st.sampled_from(["", "gzip", "identity", "br"]),
    st.sampled_from(["POST", "GET", "PUT", "OPTIONS"]),
)
def test_any_request_is_answered(name: str, content_type: str, pieces: list[bytes], encoding: str, verb: str) -> None:
    """Whatever is sent, there is exactly one whole answer and no exception."""
    encodings = tuple((f"{prefix}encoding", encoding) for prefix in ("content-", "connect-content-", "grpc-"))
    headers = (("content-type", content_type), *(encodings if encoding else ()))
    exchange = MemoryExchange(f"/acme.Texts/{name}", *pieces, headers=headers, method=verb)
    asyncio.run(application()(exchange))
    assert exchange.started
    assert exchange.ended
    assert not exchange.aborted
    assert exchange.status in (200, 204, 400, 404, 405, 415, 429, 500, 501)


@given(st.text(max_size=60))
def test_any_query_is_answered(query: str) -> None:
    """A GET with any query at all is answered."""
    exchange = MemoryExchange(f"/acme.Texts/Unary?{query}", method="GET")
    asyncio.run(application()(exchange))
    assert exchange.status in (200, 400, 501)


async def test_authorize() -> None:
    """Who may call is asked after who calls is known, and before anything is read."""
    seen: list[CallContext] = []
    exchange = MemoryExchange(f"/t/{TOKEN}/acme.Texts/Unary", b"x", headers=(("content-type", "application/proto"),))
    await application(authorize=seen.append)(exchange)
    (ctx,) = seen
    assert (ctx.identity.subject, ctx.procedure) == ("run", "/acme.Texts/Unary")
    assert exchange.body == b"X"

    def refuse(ctx: CallContext) -> None:
        raise FailedPrecondition("closed")

    exchange = MemoryExchange("/acme.Texts/Unary", b"x", headers=(("content-type", "application/proto"),))
    await application(authorize=refuse)(exchange)
    assert exchange.status == 400


@pytest.mark.parametrize("code", list(Code))
def test_codes(code: Code) -> None:
    """Each code has its name in Connect and its number in gRPC, with the details in both."""
    error = RpcError(code, "why", details=[Duration(seconds=3)])
    value = json.loads(connect_error_json(error))
    assert value == {
        "code": code.name.lower(),
        "message": "why",
        "details": [{"type": "google.protobuf.Duration", "value": "CAM"}],
    }
    trailers = dict(grpc_status(error))
    assert trailers["grpc-status"] == str(code.value)
    packed = trailers["grpc-status-details-bin"]
    status = Status.FromString(base64.b64decode(packed + "=" * (-len(packed) % 4)))
    assert (status.code, status.message, status.details[0].type_url) == (
        code.value,
        "why",
        "type.googleapis.com/google.protobuf.Duration",
    )


@given(st.text())
def test_any_message(text: str) -> None:
    """An error's words may be any text: gRPC's trailer stays printable ASCII."""
    trailers = dict(grpc_status(RpcError(Code.NOT_FOUND, text or "x")))
    assert all(0x20 <= ord(letter) <= 0x7E for letter in trailers["grpc-message"])
    assert json.loads(connect_error_json(RpcError(Code.NOT_FOUND, text or "x")))["message"] == (text or "x")
