"""Which port an app gets: its own where that is free, else another, which it may or may not listen to."""

from __future__ import annotations

import errno
import socket
from contextlib import suppress

import psutil

from flyte_unified.apps.model import AppKey
from flyte_unified.core.errors import Unavailable
from flyte_unified.launchers.processes import facts

_TRIES = 100
_EVERYWHERE = (
    (socket.AF_INET, "0.0.0.0"),
    (socket.AF_INET6, "::"),
    (socket.AF_INET, "127.0.0.1"),  # BSDs let one program have a port here and another everywhere else
    (socket.AF_INET6, "::1"),
)


class Ports:
    """Those of this machine. A port is an app's from ``take`` until ``release``."""

    def __init__(self) -> None:
        self._apps: dict[int, AppKey] = {}

    def take(self, key: AppKey, declared: int) -> int:
        """``declared``, or a free one. Raises Unavailable where there is none."""
        port = declared
        for _ in range(_TRIES):
            if port not in self._apps and _is_free(port):
                self._apps[port] = key
                return port
            with socket.socket() as any_port:
                any_port.bind(("127.0.0.1", 0))
                port = any_port.getsockname()[1]
        raise Unavailable("no port is free")

    def hold(self, key: AppKey, port: int) -> None:
        """It listens there already."""
        self._apps[port] = key

    def release(self, port: int) -> None:
        self._apps.pop(port, None)

    def whose(self, port: int) -> str:
        """Who has a port, for people."""
        key = self._apps.get(port)
        return f"app {key}" if key is not None else "another program on this machine"


def listens(root: int, port: int) -> bool:
    """Whether the process ``root``, or one that belongs to it, listens on ``port``. Of one that may not be looked into, yes."""
    for pid in facts.tree(root, facts.table()):
        try:
            connections = psutil.Process(pid).net_connections("tcp")
        except psutil.NoSuchProcess:
            continue
        except psutil.AccessDenied:
            return True
        if any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in connections):
            return True
    return False


def _is_free(port: int) -> bool:
    for family, address in _EVERYWHERE:
        with suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as probe:
            # As servers do: what is left of closed connections is in nobody's way.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                probe.bind((address, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    return False
    return True
