"""The Connect protocol: unary calls as plain HTTP, streams as frames that end with a JSON object.

Source: https://connectrpc.com/docs/protocol. The judge of this file is Connect's own conformance suite.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

import orjson

from flyte_unified.core.context import Headers
from flyte_unified.core.errors import FlyteUnifiedError, InvalidArgument
from flyte_unified.rpc.envelope import ENCODINGS, GZIP, compress, decompress, pack, too_large
from flyte_unified.rpc.errors import HTTP_STATUS, connect_error, connect_error_json
from flyte_unified.rpc.timeouts import connect_timeout
from flyte_unified.rpc.wire import Call, FramedWire, Wire, accepted_encoding, accepts_gzip

END_STREAM = 0x02

_JSON_ERROR = ("content-type", "application/json")
_CONTENT_TYPE = {"proto": ("content-type", "application/proto"), "json": ("content-type", "application/json")}


class ConnectUnary(Wire):
    """One message each way; the status is HTTP's. The SDK's every unary call comes this way: keep it short."""

    protocol = "connect"

    def timeout(self, call: Call) -> float | None:
        return _timeout(call)

    async def run(self, call: Call, handler: Callable[..., Any]) -> None:
        encoding = accepted_encoding(call.head.get("content-encoding", ""))
        limit = call.limits.message
        body = await call.exchange.read(limit)
        if encoding == GZIP and body:
            body = decompress(body, limit=limit)
        await self._answer(call, handler, call.method.decoders[call.codec](body))

    async def _answer(self, call: Call, handler: Callable[..., Any], message: Any) -> None:
        body = call.method.encoders[call.codec](await handler(message, call.ctx))
        headers: Headers = (_CONTENT_TYPE[call.codec], *_metadata(call))
        if len(body) >= call.limits.compress_from and accepts_gzip(call.head.get("accept-encoding", "")):
            body = compress(body)
            headers = (*headers, ("content-encoding", GZIP), ("vary", "accept-encoding"))
        await call.exchange.respond(200, headers, body)

    async def fail(self, call: Call, error: FlyteUnifiedError) -> None:
        headers = (_JSON_ERROR, ("accept-encoding", ENCODINGS), *_metadata(call))
        await call.exchange.respond(HTTP_STATUS[error.code], headers, connect_error_json(error))


class ConnectGet(ConnectUnary):
    """A unary call without side effects, its message in the query."""

    async def run(self, call: Call, handler: Callable[..., Any]) -> None:
        query = dict(parse_qsl(call.exchange.query, keep_blank_values=True))
        if (version := query.get("connect", "v1")) != "v1":
            raise InvalidArgument(f"connect: version {version[:16]!r} is not known here")
        encoding = accepted_encoding(query.get("compression", ""))
        call.codec = query.get("encoding", "")
        if call.codec not in call.method.decoders:
            call.codec = "proto"
            raise InvalidArgument(f"encoding: {query.get('encoding', '')[:32]!r} is neither proto nor json")
        body = _query_message(query)
        limit = call.limits.message
        if len(body) > limit:
            raise too_large(len(body), limit)
        if encoding == GZIP and body:
            body = decompress(body, limit=limit)
        await self._answer(call, handler, call.method.decoders[call.codec](body))


class ConnectStream(FramedWire):
    """A stream in at least one direction."""

    protocol = "connect"
    request_encoding = "connect-content-encoding"
    accept_encoding = "connect-accept-encoding"
    end_flag = END_STREAM

    def timeout(self, call: Call) -> float | None:
        return _timeout(call)

    def headers(self, call: Call, *, gzip: bool) -> Headers:
        head: Headers = (
            ("content-type", f"application/connect+{call.codec}"),
            ("connect-accept-encoding", ENCODINGS),
        )
        return (*head, ("connect-content-encoding", GZIP)) if gzip else head

    def ending(self, error: FlyteUnifiedError | None, trailers: Headers) -> tuple[bytes, Headers]:
        value: dict[str, Any] = {}
        if error is not None:
            value["error"] = connect_error(error)
        if trailers:
            metadata: dict[str, list[str]] = {}
            for name, text in trailers:
                metadata.setdefault(name, []).append(text)
            value["metadata"] = metadata
        return pack(orjson.dumps(value), flags=END_STREAM), ()


def _timeout(call: Call) -> float | None:
    version = call.head.get("connect-protocol-version", "1")
    if version != "1":
        raise InvalidArgument(f"connect-protocol-version: {version[:16]!r} is not known here")
    value = call.head.get("connect-timeout-ms")
    return None if value is None else connect_timeout(value)


def _metadata(call: Call) -> Headers:
    ctx = call.ctx
    if not ctx.response_headers and not ctx.response_trailers:
        return ()
    return (*ctx.response_headers, *((f"trailer-{name}", value) for name, value in ctx.response_trailers))


def _query_message(query: dict[str, str]) -> bytes:
    if "message" not in query:
        raise InvalidArgument("message: missing from the query")
    text = query["message"]
    if query.get("base64") != "1":
        return text.encode()
    try:
        return base64.b64decode(text.translate(_URL_SAFE) + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidArgument(f"message: no base64: {error}") from error


_URL_SAFE = str.maketrans("-_", "+/")
