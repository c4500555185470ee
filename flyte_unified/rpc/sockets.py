"""Take the port before anything else, so that a start which cannot work says so at once.

The sockets listen from here on: a client that comes early waits for the server instead of being refused, and of two
servers that start together exactly one gets the port.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator

from flyte_unified.core.errors import FailedPrecondition

_BACKLOG = 1024
_LOOPBACK = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
_ABSENT = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
"""What binding to ::1 says on a machine without IPv6."""
_TRIES = 10
_DEVBOX = 30080
"""What the SDK's devbox publishes, paused or not: Docker listens for it, mostly out of our sight."""


def listen(host: str, port: int) -> list[socket.socket]:
    """Listening sockets on every address of ``host``; on 127.0.0.1 and ::1 for ``localhost``. ``port`` 0 takes a free one.

    Raises FailedPrecondition saying what is wrong and, where it can be found out, which process has the port.
    """
    addresses = _addresses(host)
    for left in reversed(range(_TRIES)):
        try:
            return _listen(addresses, port)
        except OSError as error:
            if port == 0 and error.errno == errno.EADDRINUSE and left:
                continue  # free on the first address, taken on the second: another one, then
            raise FailedPrecondition(_explained(host, port, error)) from error
    raise AssertionError("the last try returns or raises")


def port_of(sockets: list[socket.socket]) -> int:
    """The port that they share."""
    port: int = sockets[0].getsockname()[1]
    return port


def _addresses(host: str) -> list[tuple[socket.AddressFamily, str]]:
    if host == "localhost":
        return list(_LOOPBACK)
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise FailedPrecondition(f"server.host = {host!r}: {error}") from error
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


def _listen(addresses: list[tuple[socket.AddressFamily, str]], port: int) -> list[socket.socket]:
    with contextlib.ExitStack() as undo:
        sockets: list[socket.socket] = []
        for family, address in addresses:
            try:
                sock = undo.enter_context(socket.socket(family, socket.SOCK_STREAM))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind((address, port))
                sock.listen(_BACKLOG)
            except OSError as error:
                if sockets and error.errno in _ABSENT:
                    continue
                raise
            sock.setblocking(False)
            sockets.append(sock)
            port = port_of(sockets)
        undo.pop_all()
    return sockets


def _explained(host: str, port: int, error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            owner = next(_owners(port), "")
            devbox = port == _DEVBOX and (not owner or "docker" in owner)
            mend = "stop it (a devbox: flyte delete devbox)" if devbox else "stop it"
            return f"port {port} is taken by {owner or 'another process'}; {mend}, or choose another port with --port"
        case errno.EACCES:
            return f"port {port} needs privileges that this process has not; choose one above 1023 with --port"
        case errno.EADDRNOTAVAIL:
            return f"server.host = {host!r} is no address of this machine"
    return f"cannot listen on {host} port {port}: {error.strerror}"


def _owners(port: int) -> Iterator[str]:
    """Who listens on ``port``, as far as the system tells us."""
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if (
                connection.status == psutil.CONN_LISTEN
                and connection.laddr
                and connection.laddr.port == port
                and connection.pid
            ):
                process = psutil.Process(connection.pid)
                yield f"process {process.pid} ({' '.join(process.cmdline())[:120] or process.name()})"
