"""To programs that speak HTTP/2: gRPC, with trailers and both directions at once.

One connection a request, on h2 alone. What the program sends is acknowledged when the client has taken it, so that no more
than its window ever waits here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

import h2.events as events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import H2Error
from h2.settings import SettingCodes
from hyperframe.frame import Frame, GoAwayFrame

from flyte_unified.core.context import Headers
from flyte_unified.core.errors import FlyteUnifiedError, Unavailable
from flyte_unified.core.sites import Upstream
from flyte_unified.rpc.exchange import Disconnected, Exchange
from flyte_unified.rpc.http2 import octets
from flyte_unified.rpc.relay.connect import connect, late
from flyte_unified.rpc.relay.headers import back, onward

_STREAM = 1
_READ = 64 << 10
_CONFIG = H2Configuration(client_side=True, header_encoding="latin-1", validate_outbound_headers=False)


async def relay(exchange: Exchange, upstream: Upstream, *, patience: float | None) -> None:
    """``patience`` bounds the wait for an answer's beginning (seconds). Raises Disconnected, Unavailable, DeadlineExceeded."""
    stream = _Stream(*await connect(upstream))
    exchange.patient = True
    tasks = [
        asyncio.create_task(stream.listen(), name="relayed stream, back"),
        asyncio.create_task(_send(exchange, upstream, stream), name="relayed stream, there"),
    ]
    try:
        await _answer(exchange, stream, patience)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        stream.close()


async def _send(exchange: Exchange, upstream: Upstream, stream: _Stream) -> None:
    """The question. What keeps it from its end is seen where the answer is read."""
    try:
        await stream.request(exchange, upstream)
        while chunk := await exchange.receive():
            await stream.send(chunk)
        await stream.finish()
    except (Disconnected, FlyteUnifiedError, H2Error, OSError):
        stream.reset()


async def _answer(exchange: Exchange, stream: _Stream, patience: float | None) -> None:
    try:
        async with asyncio.timeout(patience):
            await stream.began.wait()
    except TimeoutError:
        raise late(patience or 0.0) from None
    if not stream.headers:
        raise Unavailable("the app ended the connection without an answer")
    status = int(dict(stream.headers)[":status"])
    headers = back(tuple([pair for pair in stream.headers if not pair[0].startswith(":")]))
    if stream.headers_only and exchange.method != "HEAD":  # whose length is not that of what comes
        await exchange.respond(status, headers)
        return
    await exchange.start(status, headers)
    while (chunk := await stream.receive()) is not None:
        await exchange.write(chunk)
    if not stream.complete:
        raise Disconnected
    await exchange.end(trailers=stream.trailers)


class _Connection(H2Connection):
    """h2 hears nothing after a goodbye, though it is meant for streams that have not begun (RFC 9113, 6.8)."""

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[events.Event]]:
        if frame.last_stream_id >= _STREAM and frame.error_code == ErrorCodes.NO_ERROR:
            return [], []
        return super()._receive_goaway_frame(frame)


class _Stream:
    """The client's side of one connection with one stream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._h2 = _Connection(_CONFIG)
        self._h2.initiate_connection()
        self._h2.update_settings({SettingCodes.ENABLE_PUSH: 0})
        self._room = asyncio.Event()
        self._arrived = asyncio.Event()
        self._chunks: deque[tuple[bytes, int]] = deque()
        self._ended = False
        self.began = asyncio.Event()
        self.headers: Headers = ()
        self.headers_only = False
        self.trailers: Headers = ()
        self.complete = False

    async def request(self, exchange: Exchange, upstream: Upstream) -> None:
        (_, host), *headers = onward(exchange, upstream)
        lines = [(":method", exchange.method), (":scheme", "http"), (":authority", host), (":path", exchange.target), *headers]
        if exchange.header("te") == "trailers":
            lines.append(("te", "trailers"))
        self._h2.send_headers(_STREAM, [(name, octets(value)) for name, value in lines])
        await self._flush()

    async def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            room = min(self._h2.local_flow_control_window(_STREAM), self._h2.max_outbound_frame_size)
            if room <= 0:
                self._room.clear()
                await self._room.wait()
                continue
            self._h2.send_data(_STREAM, bytes(view[:room]))
            view = view[room:]
            await self._flush()

    async def finish(self) -> None:
        self._h2.end_stream(_STREAM)
        await self._flush()

    def reset(self) -> None:
        """Say that nobody waits for the answer any more."""
        with suppress(H2Error, OSError):
            self._h2.reset_stream(_STREAM, ErrorCodes.CANCEL)
            self._writer.write(self._h2.data_to_send())
        self._end()

    def close(self) -> None:
        if not self.complete:
            self.reset()
        self._writer.close()

    async def receive(self) -> bytes | None:
        """The next piece of the answer; None at its end, and where it breaks off (see ``complete``)."""
        while not self._chunks:
            if self._ended:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        data, size = self._chunks.popleft()
        if size and not self._ended:
            self._h2.acknowledge_received_data(size, _STREAM)
            await self._flush()
        return data

    async def listen(self) -> None:
        """Hears what comes, until the end."""
        try:
            while not self._ended and (data := await self._reader.read(_READ)):
                for event in self._h2.receive_data(data):
                    self._hear(event)
                await self._flush()
        except (H2Error, OSError):
            pass
        finally:
            self._end()

    def _hear(self, event: events.Event) -> None:
        match event:
            case events.ResponseReceived():
                self.headers = _text(event)
                self.headers_only = event.stream_ended is not None
                self.began.set()
            case events.DataReceived():
                self._chunks.append((event.data, event.flow_controlled_length))
                self._arrived.set()
            case events.TrailersReceived():
                self.trailers = _text(event)
            case events.StreamEnded():
                self.complete = True
                self._end()
            case events.StreamReset() | events.ConnectionTerminated():
                self._end()
            case events.WindowUpdated() | events.RemoteSettingsChanged():
                self._room.set()

    def _end(self) -> None:
        self._ended = True
        self.began.set()
        self._arrived.set()

    async def _flush(self) -> None:
        if data := self._h2.data_to_send():
            self._writer.write(data)
            await self._writer.drain()


def _text(event: events.ResponseReceived | events.TrailersReceived) -> Headers:
    return tuple([(str(name), str(value)) for name, value in event.headers or ()])
