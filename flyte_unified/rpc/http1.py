"""HTTP/1.1 by aiohttp's low-level server: its parser and its connection, none of its routing.

aiohttp leaves three things to us: a bound on a request's head or body that never ends, ``Expect: 100-continue``, and
bodies as they came (Connect's gzip is ours to undo).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import StreamReader, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpVersion11, RawRequestMessage, StreamWriter
from aiohttp.web_protocol import RequestHandler, RequestPayloadError
from multidict import CIMultiDict

from flyte_unified.core.context import Headers
from flyte_unified.core.errors import InvalidArgument
from flyte_unified.rpc.envelope import too_large
from flyte_unified.rpc.exchange import Disconnected, Exchange

_LONGEST_LINE = 64 << 10
"""Connect's GET carries the message in the request line."""
_AT_ONCE = 256 << 10
"""Bytes given to the transport before it is asked whether the client keeps up."""
_RAW_BYTES = 64 << 10
_SWITCHED = 101
_ABSOLUTE = re.compile(r"http://([^/?#]+)(.*)", re.IGNORECASE)
"""What a client that takes us for its proxy asks for; its host goes before the Host header (RFC 9112, 3.2.2)."""
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Http1Exchange(Exchange):
    """A request of aiohttp's."""

    __slots__ = ("_content", "_request", "_stall", "response")

    def __init__(self, request: web.BaseRequest, *, stall: float) -> None:
        version = request.version
        headers = tuple([(name.decode().lower(), value.decode("latin-1")) for name, value in request.raw_headers])
        target, host = request.raw_path, next((value for name, value in headers if name == "host"), "")
        if (absolute := _ABSOLUTE.fullmatch(target)) is not None:
            host, target = absolute[1], f"{'' if absolute[2].startswith('/') else '/'}{absolute[2]}"
        super().__init__(
            method=request.method,
            target=target,
            headers=headers,
            host=host,
            http_version=f"{version.major}.{version.minor}",
        )
        self._request = request
        self._content = request.content
        self._stall = stall
        self.response: web.StreamResponse | None = None

    @property
    def peer(self) -> str:
        return self._request.remote or ""

    async def read(self, limit: int) -> bytes:
        if (self._request.content_length or 0) > limit:
            raise too_large(self._request.content_length, limit)
        body = await self.receive()
        if not self._content.at_eof():
            parts, size = [body], len(body)
            while size <= limit and (chunk := await self.receive()):
                parts.append(chunk)
                size += len(chunk)
            body = b"".join(parts)
        if len(body) > limit:
            raise too_large(None, limit)
        return body

    async def receive(self) -> bytes:
        content = self._content
        try:
            if content.is_eof():
                return await content.readany()
            self._continue()
            async with asyncio.timeout(None if self.patient else self._stall):
                return await content.readany()
        except RequestPayloadError as error:
            raise InvalidArgument(f"the request's body is malformed: {error}") from error
        except (OSError, TimeoutError) as error:
            raise Disconnected from error

    def _continue(self) -> None:
        if not self._content.total_bytes and not self.started and self.header("expect").lower() == "100-continue":
            transport = self._request.transport
            if transport is not None:
                transport.write(_CONTINUE)

    async def respond(self, status: int, headers: Headers, body: bytes = b"", *, trailers: Headers = ()) -> None:
        self.started = self.complete = True
        if len(body) > _AT_ONCE and self.method != "HEAD":
            await self.start(status, (*headers, ("content-length", str(len(body)))))
            await self.write(body)
            await self.end()
        else:
            self.response = web.Response(status=status, headers=self._lines(headers), body=body)

    async def start(self, status: int, headers: Headers) -> None:
        self.started = True
        self.response = _Streamed(status=status, headers=self._lines(headers))
        if status == _SWITCHED:
            self.response.force_close()
        await self._bounded(self.response.prepare(self._request))

    async def write(self, data: bytes) -> None:
        writer = self._request.writer
        assert isinstance(writer, StreamWriter)
        for start in range(0, len(data), _AT_ONCE):
            try:
                await writer.write(data[start : start + _AT_ONCE], drain=False)
            except OSError as error:
                raise Disconnected from error
            if self._request.protocol.writing_paused:
                await self._bounded(writer.drain())

    async def end(self, *, trailers: Headers = ()) -> None:
        assert self.response is not None
        self.complete = True
        await self._bounded(self.response.write_eof())

    def upgrade(self) -> None:
        """What the client sends from now on is no HTTP: after 101 (Switching Protocols)."""
        raw = RawBytes(self._request.protocol)
        self._request.protocol.set_parser(raw)  # type: ignore[arg-type]  # it has what a parser of aiohttp's is asked for
        self._content = raw.stream
        self.patient = True

    async def _bounded(self, sending: Awaitable[Any]) -> None:
        try:
            async with asyncio.timeout(self._stall):
                await sending
        except (OSError, TimeoutError) as error:
            raise Disconnected from error

    def abort(self) -> None:
        transport = self._request.transport
        if transport is not None:
            transport.abort()

    def _lines(self, headers: Headers) -> CIMultiDict[str]:
        lines = CIMultiDict([(name, value if value.isascii() else _characters(value)) for name, value in headers])
        if self.reply_headers:
            lines.extend(self.reply_headers)
        return lines


def _characters(value: str) -> str:
    """aiohttp writes UTF-8: what is none byte by byte, is written as the characters that Latin-1 has for it."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value


class _Streamed(web.StreamResponse):
    """Has no header that it was not told to have but Date: aiohttp's guess of a type keeps browsers from a better one."""

    async def _prepare_headers(self) -> None:
        made_up = [name for name in ("Content-Type", "Server") if name not in self.headers]
        await super()._prepare_headers()
        for name in made_up:
            self.headers.popall(name, None)


class RawBytes:
    """What comes on a connection of aiohttp's that has another protocol now; ``stream`` holds it back while nobody reads."""

    def __init__(self, protocol: BaseProtocol) -> None:
        self.stream = StreamReader(protocol, _RAW_BYTES, loop=asyncio.get_running_loop())

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.stream.feed_data(data)
        return False, b""

    def feed_eof(self) -> None:
        self.stream.feed_eof()


class _Connection(RequestHandler):
    """aiohttp's connection with a bound on the time that a request's head may take."""

    __slots__ = ("_head_seconds", "_head_timer", "_lost", "broken", "busy")

    def __init__(self, server: Http1Server, lost: Callable[[], None], *, head_seconds: float, **options: Any) -> None:
        super().__init__(server, **options)
        self.busy = False
        self.broken = False
        """Whether what the client sends now can't be understood."""
        self._lost = lost
        self._head_seconds = head_seconds
        self._head_timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """A request's head is complete."""
        self.busy = True
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages and not isinstance(self._messages[-1][0], RawRequestMessage):
            self._break_off()
        if not self.busy and not self._messages and self._head_timer is None:
            self._head_timer = self._loop.call_later(self._head_seconds, self.force_close)

    def _break_off(self) -> None:
        """aiohttp tells it as the next request would be told: too late for who waits for the rest of a body."""
        request = self._current_request
        if self.busy and request is not None and not request.content.is_eof():
            self.broken = True
            request.content.set_exception(RequestPayloadError("it does not go on as its headers say"))

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        if status != 400:
            return super().handle_error(request, status, exc, message)
        return _refusal()  # a client that speaks no HTTP is none of the server's faults: nothing to log

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
        super().connection_lost(exc)
        self._lost()


def _refusal() -> web.Response:
    response = web.Response(status=400, text="this is no HTTP request\n")
    response.force_close()
    return response


def _is_clear(request: web.BaseRequest) -> bool:
    """Whether everybody sees the same end of its body: what aiohttp reads as chunks may be coded otherwise for others."""
    coding = request.headers.get("Transfer-Encoding")
    return coding is None or (coding.lower() == "chunked" and request.version == HttpVersion11)


class Http1Server(web.Server):
    """The connections, one per client, and their common end."""

    def __init__(
        self,
        application: Callable[[Exchange], Awaitable[None]],
        *,
        idle_seconds: float,
        head_seconds: float,
        stall_seconds: float,
    ) -> None:
        super().__init__(self._handle, handler_cancellation=True)
        self._application = application
        self._idle_seconds = idle_seconds
        self._head_seconds = head_seconds
        self._stall_seconds = stall_seconds
        self._stopping = False

    def connection(self, lost: Callable[[], None]) -> asyncio.Protocol:
        """A protocol for a new connection, which calls ``lost`` at its end."""
        return _Connection(
            self,
            lost,
            head_seconds=self._head_seconds,
            loop=self._loop,
            keepalive_timeout=self._idle_seconds,
            access_log=None,
            auto_decompress=False,
            max_line_size=_LONGEST_LINE,
            max_field_size=_LONGEST_LINE,
        )

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, _Connection)
        connection.begin()
        if not _is_clear(request):
            connection.busy = False
            return _refusal()
        try:
            exchange = Http1Exchange(request, stall=self._stall_seconds)
            await self._application(exchange)
        finally:
            connection.busy = False
        response = exchange.response or web.Response(status=500)
        if connection.broken:
            request.content.feed_eof()  # nobody reads it any more, and aiohttp is not to wait for its rest
        if self._stopping or connection.broken:
            response.force_close()
        return response

    def drain(self) -> None:
        """Close idle connections now, and busy ones after their response."""
        self._stopping = True
        for connection in self.connections:
            if not getattr(connection, "busy", False):
                connection.force_close()
