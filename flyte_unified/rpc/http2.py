"""HTTP/2 without TLS, by grpclib's embeddable protocol (on h2); every stream is an exchange like any other.

grpclib gives frames, flow control and pings. Its gRPC server is not used: gRPC is one more protocol of the
application (see ``grpcweb``), as are Connect and plain HTTP over h2c.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from grpclib.config import Configuration
from grpclib.protocol import AbstractHandler, Buffer, EventsProcessor, H2Protocol, Stream
from h2.config import H2Configuration
from h2.errors import ErrorCodes
from h2.events import Event
from h2.exceptions import H2Error, ProtocolError
from h2.settings import SettingCodes
from hyperframe.frame import GoAwayFrame

from flyte_unified.core.context import Headers
from flyte_unified.rpc.envelope import too_large
from flyte_unified.rpc.exchange import Disconnected, Exchange

_STREAM_WINDOW = 1 << 20
_CONNECTION_WINDOW = 16 << 20
"""More than one stream's, so that one handler that does not read cannot stop the others."""
_PING_SECONDS = 60.0
_LINGER_SECONDS = 1.0
_MAX_STREAMS = 1000
_AT_ONCE = 256 << 10
"""Bytes given to the transport before it is asked whether the client keeps up."""
_BODILESS = (204, 304)

_H2 = H2Configuration(
    client_side=False,
    header_encoding="latin-1",
    # Ours are well-formed already, and checking them again costs a tenth of a call.
    validate_outbound_headers=False,
    normalize_outbound_headers=False,
)


class _Body(Buffer):
    """A request's body, acknowledged to the sender as it is read. Takes the place of grpclib's, which reads frames."""

    def __init__(self, acknowledge: Callable[[int], None]) -> None:
        self._acknowledge = acknowledge
        self._chunks: deque[tuple[bytes, int]] = deque()
        self._ended = False
        self._arrived = asyncio.Event()

    def add(self, data: bytes, ack_size: int) -> None:
        self._chunks.append((data, ack_size))
        self._arrived.set()

    def eof(self) -> None:
        self._ended = True
        self._arrived.set()

    def unacked_size(self) -> int:
        size = sum(ack for _, ack in self._chunks)
        self._chunks.clear()
        return size

    @property
    def ended(self) -> bool:
        return self._ended

    @property
    def empty(self) -> bool:
        return self._ended and not self._chunks

    async def next(self, stall: float | None) -> bytes:
        """The next piece; empty at the end. Raises TimeoutError after ``stall`` seconds without any."""
        while True:
            while self._chunks:
                data, size = self._chunks.popleft()
                self._acknowledge(size)
                if data:
                    return data
            if self._ended:
                return b""
            self._arrived.clear()
            async with asyncio.timeout(stall):
                await self._arrived.wait()


class Http2Exchange(Exchange):
    """One stream of one connection."""

    __slots__ = ("_body", "_ended", "_h2", "_stall", "_stream", "_torn")

    def __init__(self, stream: Stream, body: _Body, headers: list[tuple[str, str]], *, stall: float) -> None:
        pseudo = {name: value for name, value in headers if name[0] == ":"}
        plain = tuple([pair for pair in headers if pair[0][0] != ":"])
        host = pseudo.get(":authority") or next((value for name, value in plain if name == "host"), "")
        super().__init__(method=pseudo[":method"], target=pseudo.get(":path", ""), headers=plain, host=host, http_version="2")
        self._stream = stream
        self._h2 = stream._h2_connection
        self._body = body
        self._stall = stall
        self._ended = False
        self._torn = False

    @property
    def peer(self) -> str:
        address = self._stream.connection.get_peer().addr()
        return address[0] if address else ""

    @property
    def empty(self) -> bool:
        return self._body.empty

    async def read(self, limit: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        while chunk := await self.receive():
            parts.append(chunk)
            size += len(chunk)
            if size > limit:
                raise too_large(None, limit)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def receive(self) -> bytes:
        try:
            return await self._body.next(None if self.patient else self._stall)
        except TimeoutError as error:
            raise Disconnected from error

    async def respond(self, status: int, headers: Headers, body: bytes = b"", *, trailers: Headers = ()) -> None:
        self.started = self.complete = True
        lines = self._lines(status, headers)
        if not trailers and status not in _BODILESS and not any(name == "content-length" for name, _ in headers):
            lines.append(("content-length", str(len(body))))
        if self.method == "HEAD":
            body = b""
        room = await self._room(data=bool(body))
        stream_id = self._open_id()
        with self._sending():
            self._h2.send_headers(stream_id, lines, end_stream=not body and not trailers)
            if 0 < len(body) <= min(room, self._h2.max_outbound_frame_size):
                self._h2.send_data(stream_id, body, end_stream=not trailers)
                body = b""
            if trailers and not body:
                self._h2.send_headers(stream_id, trailers, end_stream=True)
        if body:
            await self._data(body, end=not trailers)
            if trailers:
                await self.end(trailers=trailers)
        self._ended = True

    async def start(self, status: int, headers: Headers) -> None:
        self.started = True
        await self._room(data=False)
        with self._sending():
            self._h2.send_headers(self._open_id(), self._lines(status, headers))

    async def write(self, data: bytes) -> None:
        if data:
            await self._data(data, end=False)

    async def end(self, *, trailers: Headers = ()) -> None:
        if self._torn:
            raise Disconnected
        self.complete = True
        await self._room(data=False)
        with self._sending():
            if trailers:
                lines = [(name, octets(value)) for name, value in trailers]
                self._h2.send_headers(self._open_id(), lines, end_stream=True)
            else:
                self._h2.end_stream(self._open_id())
        self._ended = True

    def abort(self) -> None:
        if not self._ended:
            self._ended = True
            if self._stream.closable:
                self._stream.reset_nowait(ErrorCodes.INTERNAL_ERROR)

    async def linger(self) -> None:
        """Let a client that was answered early finish its request for a moment, then tell it to stop.

        Some clients (curl 7.88) take a reset for a failure although the response before it is whole.
        """
        if self._body.ended or not self._stream.closable:
            return
        try:
            async with asyncio.timeout(_LINGER_SECONDS):
                while await self._body.next(None):
                    pass
        except TimeoutError:
            if self._stream.closable:
                self._stream.reset_nowait(ErrorCodes.NO_ERROR)

    def _lines(self, status: int, headers: Headers) -> list[tuple[str, str | bytes]]:
        return [(":status", str(status)), *[(name.lower(), octets(value)) for name, value in (*headers, *self.reply_headers)]]

    async def _data(self, data: bytes, *, end: bool) -> None:
        if self._torn:
            # A write was cancelled half-way: whatever followed would be taken for its rest.
            raise Disconnected
        self._torn = True
        sent, size = 0, len(data)
        while sent < size:
            stop = min(sent + await self._room(), size)
            stream_id, frame = self._open_id(), self._h2.max_outbound_frame_size
            with self._sending():
                while sent < stop:
                    upto = min(sent + frame, stop)
                    self._h2.send_data(stream_id, data[sent:upto], end_stream=end and upto == size)
                    sent = upto
        self._torn = False

    async def _room(self, *, data: bool = True) -> int:
        """Wait for the connection and, for ``data``, the client's window; bytes that can be sent at once."""
        connection = self._stream.connection
        while True:
            if not connection.write_ready.is_set():
                waiting = connection.write_ready
            elif not data:
                return 0
            else:
                with self._wrapped():
                    window = self._h2.local_flow_control_window(self._open_id())
                if window > 0:
                    return min(window, _AT_ONCE)
                waiting = self._stream.window_updated
                waiting.clear()
            try:
                async with asyncio.timeout(self._stall):
                    await waiting.wait()
            except TimeoutError as error:
                raise Disconnected from error

    def _open_id(self) -> int:
        # h2 forgets a closed stream, and would take its number for a new one's.
        stream_id = self._stream.id
        assert stream_id is not None
        if self._stream.connection.is_closing() or stream_id not in self._h2.streams:
            raise Disconnected
        return stream_id

    @contextmanager
    def _sending(self) -> Iterator[None]:
        with self._wrapped():
            yield
        self._stream.connection.flush()

    @contextmanager
    def _wrapped(self) -> Iterator[None]:
        try:
            yield
        except H2Error as error:
            raise Disconnected from error


def octets(value: str) -> str | bytes:
    """Of a header: h2 would write UTF-8."""
    return value if value.isascii() else value.encode("latin-1", "replace")


class _Streams(AbstractHandler):
    """One connection's streams, a task each."""

    def __init__(self, protocol: Http2Connection) -> None:
        self._protocol = protocol
        self._tasks: dict[Stream, asyncio.Task[None]] = {}

    def __bool__(self) -> bool:
        return bool(self._tasks)

    def accept(self, stream: Stream, headers: list[tuple[str, str]], release_stream: Callable[[], None]) -> None:
        assert stream.id is not None
        # Before any data: grpclib hands events on one by one.
        stream.buffer = body = _Body(partial(stream.connection.ack, stream.id))
        exchange = Http2Exchange(stream, body, headers, stall=self._protocol.stall_seconds)
        task = asyncio.get_running_loop().create_task(self._serve(exchange), name=f"http2 stream {stream.id}")
        self._tasks[stream] = task
        self._protocol.busy()
        task.add_done_callback(partial(self._done, stream, release_stream))

    async def _serve(self, exchange: Http2Exchange) -> None:
        await self._protocol.application(exchange)
        exchange.abort()
        await exchange.linger()

    def _done(self, stream: Stream, release: Callable[[], None], task: asyncio.Task[None]) -> None:
        del self._tasks[stream]
        release()
        if not task.cancelled() and (error := task.exception()) is not None:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "an HTTP/2 stream failed", "exception": error, "task": task}
            )
        if not self._tasks:
            self._protocol.idle()

    def cancel(self, stream: Stream) -> None:
        if (task := self._tasks.get(stream)) is not None:
            task.cancel()

    def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()


class _Events(EventsProcessor):
    def process(self, event: Event) -> None:
        # Frames that HTTP/2 lets us ignore (unknown types, for one) must not end the connection.
        with suppress(NotImplementedError):
            super().process(event)


class Http2Connection(H2Protocol):
    """grpclib's protocol with an end to idle connections and a graceful one to busy ones."""

    def __init__(
        self,
        application: Callable[[Exchange], Awaitable[None]],
        connections: set[Http2Connection],
        lost: Callable[[], None],
        *,
        idle_seconds: float,
        stall_seconds: float,
    ) -> None:
        config = Configuration(
            _keepalive_time=_PING_SECONDS,
            _http2_max_pings_without_data=0,
            _http2_min_sent_ping_interval_without_data=_PING_SECONDS,
            http2_connection_window_size=_CONNECTION_WINDOW,
            http2_stream_window_size=_STREAM_WINDOW,
        ).__for_server__()
        self._streams = _Streams(self)
        super().__init__(self._streams, config, _H2)
        self.application = application
        self.stall_seconds = stall_seconds
        self._connections = connections
        self._lost = lost
        self._idle_seconds = idle_seconds
        self._idle_timer: asyncio.TimerHandle | None = None
        self._leaving = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.connection._connection.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: _MAX_STREAMS})
        self.connection.flush()
        self.processor = _Events(self._streams, self.connection)
        self._connections.add(self)
        self.idle()

    def data_received(self, data: bytes) -> None:
        # As grpclib's, but says goodbye on a protocol error and survives its own end.
        if self.connection.is_closing():
            return
        try:
            events = self.connection.feed(data)
        except ProtocolError:
            self.connection.flush()
            self.processor.close("Protocol error")
            return
        self.connection.flush()
        for event in events:
            self.processor.process(event)
        if not self.connection.is_closing():
            self.connection.flush()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.busy()
        self._leaving = True
        self._connections.discard(self)
        super().connection_lost(exc)
        self._lost()

    def busy(self) -> None:
        """A stream has begun."""
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    def idle(self) -> None:
        """No stream is open any more."""
        if self._leaving:
            self.connection.close()
        elif not self.connection.is_closing():
            self._idle_timer = asyncio.get_running_loop().call_later(self._idle_seconds, self.drain)

    def drain(self) -> None:
        """Tell the client that no new stream will be served, and close when the open ones are done."""
        if self._leaving or self.connection.is_closing():
            return
        self._leaving = True
        # Not h2's own close_connection: after it, h2 refuses to send on the streams that are still open.
        h2 = self.connection._connection
        goaway = GoAwayFrame(0, last_stream_id=h2.highest_inbound_stream_id, error_code=ErrorCodes.NO_ERROR)
        self.connection._transport.write(goaway.serialize())
        if not self._streams:
            self.connection.close()
