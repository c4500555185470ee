"""The keeper's one connection to a server. Standard library only.

Never blocks: what cannot be sent yet waits in a buffer, which holds little, since output of tasks does not go this way.
Nothing is told before the server has been welcomed. A new connection takes the place of the last.
"""

from __future__ import annotations

import os
import selectors
import socket
from collections.abc import Callable
from typing import Any

from flyte_unified.launchers.processes.forkserver import Frames
from flyte_unified.launchers.processes.task import read_json

_SOCKET_PATH = 100
"""Bytes that a Unix socket's path may have: 104 on macOS, 108 on Linux, the end included."""


def listen(directory: str) -> tuple[socket.socket, str]:
    """A socket in ``directory``, or in a private directory where that path is too long for one."""
    path = f"{directory}/keeper.sock"
    if len(os.fsencode(path)) > _SOCKET_PATH:
        path = _private(read_json(directory + "/keeper").get("socket", ""))
    listener = socket.socket(socket.AF_UNIX)
    if os.path.exists(path):
        os.unlink(path)
    listener.bind(path)
    os.chmod(path, 0o600)
    listener.listen(4)
    return listener, path


def _private(earlier: str) -> str:
    """The place of the socket of an earlier keeper that was killed, if it is ours alone, else a new one."""
    import stat
    import tempfile  # dear, and seldom needed

    parent = os.path.dirname(earlier)
    try:
        found = os.lstat(parent)
        if stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o700 and found.st_uid == os.getuid():
            return earlier
    except FileNotFoundError:
        pass
    return tempfile.mkdtemp(prefix="flyte-unified-", dir="/tmp") + "/keeper.sock"


class Link:
    """``obey`` gets each message; ``lost`` is called when the server has gone."""

    def __init__(
        self,
        *,
        selector: selectors.BaseSelector,
        obey: Callable[[dict[str, Any]], None],
        lost: Callable[[], None],
    ) -> None:
        self._selector = selector
        self._obey = obey
        self._lost = lost
        self._connection: socket.socket | None = None
        self._frames = Frames()
        self._outgoing = bytearray()
        self._welcomed = False

    @property
    def up(self) -> bool:
        """Whether a server is there."""
        return self._connection is not None

    def accept(self, listener: socket.socket) -> None:
        """Take the next connection."""
        if self._connection is not None:
            self._drop(self._connection)
        self._connection, _ = listener.accept()
        self._connection.setblocking(False)
        self._frames = Frames()
        self._outgoing.clear()
        self._welcomed = False
        self._await(selectors.EVENT_READ)

    def welcome(self, message: dict[str, Any]) -> None:
        """Say the first word; from now on the server is told what happens."""
        self._welcomed = True
        self.tell(message)

    def tell(self, message: dict[str, Any]) -> None:
        """Send ``message``, if somebody is there to hear it."""
        if self._connection is not None and self._welcomed:
            self._outgoing += Frames.pack(message)
            self._await(selectors.EVENT_READ | selectors.EVENT_WRITE)

    def _await(self, events: int) -> None:
        connection = self._connection
        if connection is None:
            return
        change = self._selector.modify if connection in self._selector.get_map() else self._selector.register
        change(connection, events, lambda: self._exchange(connection))

    def _exchange(self, connection: socket.socket) -> None:
        try:
            if self._outgoing:
                del self._outgoing[: connection.send(self._outgoing)]
                if not self._outgoing:
                    self._await(selectors.EVENT_READ)
            data = connection.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(connection)
            self._lost()
        for message in self._frames.feed(data):
            self._obey(message)

    def _drop(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        connection.close()
        self._connection = None
