"""One TCP port for HTTP/1.1 and HTTP/2: the first 24 bytes decide, then the chosen protocol has the transport.

Costs nothing per request.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from functools import partial

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What every HTTP/2 client begins with (RFC 9113, 3.4)."""

_KEEPALIVE_SECONDS = 60


Choose = Callable[[bool, Callable[[], None]], asyncio.Protocol]
"""Given whether the client speaks HTTP/2, and what to call when the connection is lost: the protocol for it."""


class Connections:
    """Every open connection, from its acceptance to its loss."""

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._open: set[asyncio.Transport] = set()
        self._silent: set[asyncio.Transport] = set()
        self._none = asyncio.Event()
        self._none.set()

    def add(self, transport: asyncio.Transport) -> bool:
        """A new connection. False, and the connection dropped, when there are too many."""
        if len(self._open) >= self._limit:
            transport.abort()
            return False
        self._open.add(transport)
        self._silent.add(transport)
        self._none.clear()
        return True

    def spoke(self, transport: asyncio.Transport) -> None:
        self._silent.discard(transport)

    def lost(self, transport: asyncio.Transport) -> None:
        self._silent.discard(transport)
        self._open.discard(transport)
        if not self._open:
            self._none.set()

    async def close(self, seconds: float) -> None:
        """Wait for connections that are closing already, but no longer than ``seconds``."""
        for transport in self._silent:
            transport.abort()
        try:
            async with asyncio.timeout(seconds):
                await self._none.wait()
        except TimeoutError:
            for transport in self._open:
                transport.abort()
            await self._none.wait()


class Mux(asyncio.Protocol):
    """A new connection until its protocol is known. One that stays silent for ``seconds`` is dropped."""

    __slots__ = ("_buffer", "_choose", "_connections", "_seconds", "_timer", "_transport")

    def __init__(self, choose: Choose, connections: Connections, *, seconds: float) -> None:
        self._choose = choose
        self._connections = connections
        self._seconds = seconds
        self._buffer = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._connections.add(transport):
            self._timer = asyncio.get_running_loop().call_later(self._seconds, transport.abort)
            _tune(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        head = data[: len(PREFACE)]
        http2 = PREFACE.startswith(head)
        if http2 and len(head) < len(PREFACE):
            self._buffer = data
            return
        self._stop_timer()
        self._connections.spoke(self._transport)
        protocol = self._choose(http2, partial(self._connections.lost, self._transport))
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._connections.lost(self._transport)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _tune(connection: socket.socket | None) -> None:
    """Send small frames at once, and notice a peer that is gone without a word."""
    if connection is None:
        return
    # asyncio does it too, but not where the listening socket was made without naming TCP: 40 ms per message.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    idle = getattr(socket, "TCP_KEEPALIVE" if sys.platform == "darwin" else "TCP_KEEPIDLE", None)
    if idle is not None:
        connection.setsockopt(socket.IPPROTO_TCP, idle, _KEEPALIVE_SECONDS)
