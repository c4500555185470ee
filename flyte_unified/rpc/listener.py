"""One TCP port for HTTP/1.1 and HTTP/2: the first 24 bytes decide, then the chosen protocol has the transport.

Costs nothing per request.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What every HTTP/2 client begins with (RFC 9113, 3.4)."""

_KEEPALIVE_SECONDS = 60


class Mux(asyncio.Protocol):
    """A new connection until its protocol is known. One that stays silent for ``seconds`` is dropped."""

    __slots__ = ("_buffer", "_choose", "_pending", "_seconds", "_timer", "_transport")

    def __init__(self, choose: Callable[[bool], asyncio.Protocol], pending: set[Mux], *, seconds: float) -> None:
        self._choose = choose
        """Given whether the client speaks HTTP/2."""
        self._pending = pending
        """Where this one is listed while it has the connection."""
        self._seconds = seconds
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._pending.add(self)
        self._timer = asyncio.get_running_loop().call_later(self._seconds, transport.abort)
        _tune(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        head = data[: len(PREFACE)]
        http2 = PREFACE.startswith(head)
        if http2 and len(head) < len(PREFACE):
            self._buffer = data
            return
        self._leave()
        protocol = self._choose(http2)
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()

    def abort(self) -> None:
        self._transport.abort()

    def _leave(self) -> None:
        self._timer.cancel()
        self._pending.discard(self)


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
