"""One TCP port for HTTP/1.1 and HTTP/2: the first 24 bytes decide, then the chosen protocol has the transport.

Costs nothing per request. Ports are bound before anything else starts, so that a taken one is said at once.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from collections.abc import Callable, Sequence

from flyte_unified.core.errors import FlyteUnifiedError

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What every HTTP/2 client begins with (RFC 9113, 3.4)."""

_BACKLOG = 1024
_KEEPALIVE_SECONDS = 60


class PortTaken(FlyteUnifiedError):
    """The port is taken by another program."""


def bind(hosts: Sequence[str], port: int) -> list[socket.socket]:
    """Sockets bound to ``port`` on each of ``hosts``, listening soon; port 0 takes a free one, the same on all.

    A host whose address family this machine lacks (IPv6 switched off) is left out, but not all of them.
    Raises PortTaken, OSError.
    """
    attempts = 20 if port == 0 else 1
    for attempt in range(1, attempts + 1):
        try:
            return _bind_all(hosts, port)
        except PortTaken:
            # A free port on the first host may be taken on the second.
            if attempt == attempts:
                raise
    raise AssertionError("unreachable")


def _bind_all(hosts: Sequence[str], port: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    lacking: OSError | None = None
    try:
        for host in hosts:
            try:
                bound = _bind(host, port)
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                lacking = error
                continue
            sockets.append(bound)
            port = bound.getsockname()[1]
    except BaseException:
        for bound in sockets:
            bound.close()
        raise
    if not sockets:
        raise lacking or ValueError("no host to listen on")
    return sockets


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((host, port))
        bound.listen(_BACKLOG)
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(
                f"port {port} on {host} is taken by another program; choose another one (server.port) or end that program"
            ) from error
        raise
    return bound


class Mux(asyncio.Protocol):
    """A new connection until its protocol is known. One that stays silent for ``seconds`` is dropped."""

    __slots__ = ("_buffer", "_choose", "_seconds", "_timer", "_transport")

    def __init__(self, choose: Callable[[bool], asyncio.Protocol], *, seconds: float) -> None:
        self._choose = choose
        """Given whether the client speaks HTTP/2."""
        self._seconds = seconds
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._timer = asyncio.get_running_loop().call_later(self._seconds, transport.abort)
        _detect_dead_peers(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        head = data[: len(PREFACE)]
        http2 = PREFACE.startswith(head)
        if http2 and len(head) < len(PREFACE):
            self._buffer = data
            return
        self._timer.cancel()
        protocol = self._choose(http2)
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()


def _detect_dead_peers(connection: socket.socket | None) -> None:
    if connection is None:
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    idle = getattr(socket, "TCP_KEEPALIVE" if sys.platform == "darwin" else "TCP_KEEPIDLE", None)
    if idle is not None:
        connection.setsockopt(socket.IPPROTO_TCP, idle, _KEEPALIVE_SECONDS)
