"""To programs that speak HTTP/1.1, and WebSockets with it.

One connection a request, on h11 alone: a client's library would leave out or add what is not ours to change. Both directions go
on at once, each as fast as the other side takes it: a program may answer before it has heard all.
"""

from __future__ import annotations

import asyncio

import h11

from flyte_unified.core.context import Headers
from flyte_unified.core.errors import InvalidArgument, Unavailable
from flyte_unified.core.sites import Upstream
from flyte_unified.rpc.calls import Calls
from flyte_unified.rpc.exchange import Exchange
from flyte_unified.rpc.http1 import Http1Exchange
from flyte_unified.rpc.relay import websocket
from flyte_unified.rpc.relay.connect import connect, late
from flyte_unified.rpc.relay.headers import back, onward, wants_websocket

_LONGEST_HEAD = 256 << 10
_READ = 64 << 10
_SWITCHED = 101

_Head = h11.Response | h11.InformationalResponse


async def relay(exchange: Exchange, upstream: Upstream, calls: Calls) -> None:
    """Raises Disconnected, and before the answer begins InvalidArgument, Unavailable, DeadlineExceeded."""
    request = _request(exchange, upstream)
    with calls.tracked(streams=False):
        visit = _Visit(exchange, *await connect(upstream))
        try:
            answer = await visit.ask(request, upstream.patience)
            if all(name != b"content-length" for name, _ in answer.headers):
                calls.endless()
            if answer.status_code == _SWITCHED:
                await visit.switch(answer)
            else:
                await visit.tell(answer)
        finally:
            await visit.leave()


def _request(exchange: Exchange, upstream: Upstream) -> h11.Request:
    headers = onward(exchange, upstream)
    headers += websocket.ASKED if wants_websocket(exchange) else [("connection", "close")]
    if _has_body(exchange) and all(name != "content-length" for name, _ in headers):
        headers.append(("transfer-encoding", "chunked"))
    lines = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    try:
        return h11.Request(method=exchange.method, target=exchange.target, headers=lines)
    except (h11.LocalProtocolError, UnicodeError):  # HTTP/2 has words for more, such as a path with a blank
        raise InvalidArgument("this request cannot be made in HTTP/1.1") from None


def _has_body(exchange: Exchange) -> bool:
    if exchange.http_version == "2":
        return not exchange.empty
    return bool(exchange.header("transfer-encoding") or exchange.header("content-length").strip("0"))


class _Visit:
    """One request and its answer, on a connection of their own."""

    def __init__(self, exchange: Exchange, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._exchange = exchange
        self._reader = reader
        self._writer = writer
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LONGEST_HEAD)
        self._sending: asyncio.Task[None] | None = None
        self._broken: Exception | None = None
        """What kept the question from its end"""

    async def ask(self, request: h11.Request, patience: float) -> _Head:
        """The answer's beginning. The program's time for it (seconds) begins when it has all of the question."""
        try:
            async with asyncio.timeout(patience) as timeout:
                self._sending = asyncio.create_task(self._send(request, timeout, patience), name="relayed request")
                while not isinstance(event := await self._next(), h11.Response):
                    assert isinstance(event, h11.InformationalResponse)
                    if event.status_code == _SWITCHED:
                        break
                return event
        except TimeoutError:
            raise late(patience) from None

    async def _send(self, request: h11.Request, timeout: asyncio.Timeout, patience: float) -> None:
        try:
            await self._put(request)
            while chunk := await self._exchange.receive():
                if self._h11.their_state is h11.SEND_RESPONSE and not timeout.expired():
                    timeout.reschedule(asyncio.get_running_loop().time() + patience)
                await self._put(h11.Data(data=chunk))
            await self._put(h11.EndOfMessage())
        except OSError:
            return  # the program takes no more of it: its answer, if any, says why
        except Exception as error:
            self._broken = error
            self._writer.transport.abort()  # it may not take for the whole what it has

    async def _put(self, event: h11.Request | h11.Data | h11.EndOfMessage) -> None:
        self._writer.write(self._h11.send(event) or b"")
        await self._writer.drain()

    async def _next(self) -> h11.Event:
        """What the program says. Raises Unavailable where it breaks off, and whatever kept us from asking."""
        try:
            while (event := self._h11.next_event()) is h11.NEED_DATA:
                self._h11.receive_data(await self._reader.read(_READ))
        except (h11.RemoteProtocolError, OSError) as error:
            said = isinstance(error, h11.RemoteProtocolError) and not self._reader.at_eof()
            told = "what the app answered is no HTTP" if said else "the app ended the connection without an answer"
            raise self._broken or Unavailable(told) from error
        assert isinstance(event, h11.Event)
        return event

    async def tell(self, answer: _Head) -> None:
        """The answer, as it comes."""
        await self._exchange.start(answer.status_code, _back(answer))
        while isinstance(event := await self._next(), h11.Data):
            await self._exchange.write(bytes(event.data))
        assert isinstance(event, h11.EndOfMessage)
        await self._exchange.end(trailers=tuple([(name.lower(), value) for name, value in _back(event)]))

    async def switch(self, answer: _Head) -> None:
        """The program agrees: from here on a WebSocket's bytes, both ways."""
        assert isinstance(self._exchange, Http1Exchange)
        await self._exchange.start(_SWITCHED, (*_back(answer), *websocket.ASKED))
        self._exchange.upgrade()
        await websocket.both_ways(self._exchange, self._reader, self._writer, said=self._h11.trailing_data[0])
        await self._exchange.end()

    async def leave(self) -> None:
        if self._h11.our_state is h11.SWITCHED_PROTOCOL:
            self._writer.close()  # after what it has not taken yet: the closing frame, for one
        else:
            self._writer.transport.abort()
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait([self._sending])


def _back(said: _Head | h11.EndOfMessage) -> Headers:
    return back(tuple([(name.decode(), value.decode("latin-1")) for name, value in said.headers.raw_items()]))
