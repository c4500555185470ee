"""What the protocols have in common: the terms of a call, and running a handler between two framings.

A wire turns one exchange into one handler call. It knows no sockets and no policy: identity, deadlines, metrics and
the last word on errors are ``calls``'.
"""

from __future__ import annotations

import abc
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from flyte_unified.core.context import CallContext, Headers
from flyte_unified.core.errors import FlyteUnifiedError, Internal, Unimplemented
from flyte_unified.rpc.envelope import COMPRESSED, ENCODINGS, GZIP, IDENTITY, Frame, Unpacker, compress, decompress, pack
from flyte_unified.rpc.exchange import Exchange
from flyte_unified.rpc.registry import Method


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes."""

    message: int
    compress_from: int
    """Smaller responses are sent as they are."""


@dataclass(slots=True)
class Call:
    """One call on its way through a wire."""

    exchange: Exchange
    method: Method
    ctx: CallContext
    head: Mapping[str, str]
    """Request headers, the last of each name."""
    codec: str
    limits: Limits


class Wire(abc.ABC):
    """One protocol."""

    protocol: str
    """``connect``, ``grpc`` or ``grpc-web``."""

    @abc.abstractmethod
    def timeout(self, call: Call) -> float | None:
        """Seconds that the caller is willing to wait. Raises InvalidArgument."""

    @abc.abstractmethod
    async def run(self, call: Call, handler: Callable[..., Any]) -> None:
        """Read, call, reply. Raises what the handler raises."""

    @abc.abstractmethod
    async def fail(self, call: Call, error: FlyteUnifiedError) -> None:
        """End the call with ``error``."""


class FramedWire(Wire):
    """A protocol whose messages are framed in both directions: Connect's streams, gRPC, gRPC-Web."""

    request_encoding: str
    """Name of the header that says how request messages are compressed; ``accept_encoding``: what the caller reads."""
    accept_encoding: str
    end_flag: int | None
    """The flag of the frame that ends a stream, where that is a frame."""

    @abc.abstractmethod
    def headers(self, call: Call, *, gzip: bool) -> Headers:
        """Of the response; ``gzip`` when its messages may be compressed."""

    @abc.abstractmethod
    def ending(self, error: FlyteUnifiedError | None, trailers: Headers) -> tuple[bytes, Headers]:
        """The last bytes of the body and the HTTP trailers."""

    def unpacker(self, call: Call) -> Unpacker:
        """Of the request's body."""
        return Unpacker(limit=call.limits.message)

    def outbound(self, data: bytes) -> bytes:
        return data

    async def run(self, call: Call, handler: Callable[..., Any]) -> None:
        encoding = accepted_encoding(call.head.get(self.request_encoding, ""))
        messages = _Messages(call, encoding, unpacker=self.unpacker(call), end_flag=self.end_flag)
        call.exchange.patient = call.method.kind.client_streams
        argument = messages if call.method.kind.client_streams else await messages.only()
        if call.method.kind.server_streams:
            await self._reply_stream(call, handler(argument, call.ctx))
        else:
            body = self._encoder(call)(await handler(argument, call.ctx))
            end, trailers = self.ending(None, tuple(call.ctx.response_trailers))
            await call.exchange.respond(200, self._head(call), self.outbound(body + end), trailers=trailers)

    async def fail(self, call: Call, error: FlyteUnifiedError) -> None:
        end, trailers = self.ending(error, tuple(call.ctx.response_trailers))
        if not call.exchange.started:
            await call.exchange.respond(200, self._head(call), self.outbound(end), trailers=trailers)
            return
        await self._finish(call, end, trailers)

    async def _reply_stream(self, call: Call, replies: AsyncGenerator[Any, None]) -> None:
        exchange, encode = call.exchange, self._encoder(call)
        async with aclosing(replies):
            async for reply in replies:
                if not exchange.started:
                    await exchange.start(200, self._head(call))
                await exchange.write(self.outbound(encode(reply)))
        end, trailers = self.ending(None, tuple(call.ctx.response_trailers))
        if exchange.started:
            await self._finish(call, end, trailers)
        else:
            await exchange.respond(200, self._head(call), self.outbound(end), trailers=trailers)

    async def _finish(self, call: Call, end: bytes, trailers: Headers) -> None:
        if end:
            await call.exchange.write(self.outbound(end))
        await call.exchange.end(trailers=trailers)

    def _head(self, call: Call) -> Headers:
        gzip = accepts_gzip(call.head.get(self.accept_encoding, ""))
        return (*self.headers(call, gzip=gzip), *call.ctx.response_headers)

    def _encoder(self, call: Call) -> Callable[[Any], bytes]:
        encode = call.method.encoders[call.codec]
        gzip_from = call.limits.compress_from if accepts_gzip(call.head.get(self.accept_encoding, "")) else None

        def framed(message: Any) -> bytes:
            data = encode(message)
            if gzip_from is not None and len(data) >= gzip_from:
                return pack(compress(data), flags=COMPRESSED)
            return pack(data)

        return framed


class _Messages:
    """The request's messages, decoded as the handler asks for them."""

    def __init__(self, call: Call, encoding: str, *, unpacker: Unpacker, end_flag: int | None) -> None:
        self._receive = call.exchange.receive
        self._decode = call.method.decoders[call.codec]
        self._limit = call.limits.message
        self._encoding = encoding
        self._unpacker = unpacker
        self._end_flag = end_flag
        self._frames: deque[Frame] = deque()
        self._ended = False

    def __aiter__(self) -> _Messages:
        return self

    async def __anext__(self) -> Any:
        while not self._frames and not self._ended:
            if chunk := await self._receive():
                self._frames.extend(self._unpacker.feed(chunk))
            else:
                self._ended = True
                self._unpacker.finish()
        if not self._frames:
            raise StopAsyncIteration
        frame = self._frames.popleft()
        if self._end_flag is not None and frame.flags & self._end_flag:
            self._ended = True
            self._frames.clear()
            raise StopAsyncIteration
        return self._decode(self._payload(frame))

    async def only(self) -> Any:
        """The message of a caller that sends one. Raises Unimplemented when it sent none, or more."""
        try:
            message = await anext(self)
        except StopAsyncIteration:
            raise Unimplemented("this call takes one request message; none came") from None
        async for _ in self:
            raise Unimplemented("this call takes one request message; more came")
        return message

    def _payload(self, frame: Frame) -> bytes:
        if frame.flags & ~COMPRESSED:
            raise Internal(f"a frame has the flags {frame.flags:#04x}, of which some mean nothing here")
        if not frame.flags:
            return frame.payload
        if self._encoding == IDENTITY:
            raise Internal("a message is compressed, but the request's headers do not say how")
        return decompress(frame.payload, limit=self._limit)


def accepted_encoding(name: str) -> str:
    """``name`` as one of the encodings that we read. Raises Unimplemented."""
    if name in ("", IDENTITY):
        return IDENTITY
    if name != GZIP:
        raise Unimplemented(f"compression {name[:32]!r} is not known here; {ENCODINGS} are")
    return GZIP


@lru_cache(maxsize=256)
def accepts_gzip(value: str) -> bool:
    """Whether an accept header names gzip."""
    return any(item.partition(";")[0].strip() == GZIP and "q=0" not in item.split(";")[1:] for item in value.split(","))
