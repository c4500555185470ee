"""Clients of the SDK that are forked from a process which has it imported: see ``zygote``."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

_PROGRAM = Path(__file__).with_name("zygote.py")
_READY = 60.0
"""Seconds in which the SDK is imported."""
_OWN = frozenset({"HOME", "FLYTECTL_CONFIG"})
"""Variables that the SDK reads when it is used; what it makes of a home while it is imported is for verbs not used here."""


class Forks:
    """``run`` is for clients what ``subprocess.run`` is for others."""

    def __init__(self, orders: socket.socket, environment: Mapping[str, str]) -> None:
        self._orders = orders
        self._environment = {name: value for name, value in environment.items() if name not in _OWN}

    @classmethod
    @contextlib.contextmanager
    def waiting(cls, environment: Mapping[str, str]) -> Iterator[Forks]:
        """For clients whose environment is ``environment``, but for what is a user's own, and perhaps more."""
        ours, its = socket.socketpair(type=socket.SOCK_SEQPACKET)
        with ours, its:
            command = [sys.executable, str(_PROGRAM), str(its.fileno())]
            nothing = subprocess.DEVNULL
            process = subprocess.Popen(command, pass_fds=[its.fileno()], env=dict(environment), stdin=nothing, stdout=nothing)
            its.close()
            try:
                ours.settimeout(_READY)
                assert ours.recv(16) == b"ready"
                yield cls(ours, environment)
            finally:
                ours.close()
                process.wait()

    def fit(self, environment: Mapping[str, str]) -> bool:
        return self._environment.items() <= environment.items()

    def run(
        self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """``command`` is a script and its arguments. Raises TimeoutError after ``timeout`` seconds."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            asked = {"program": str(cwd / command[0]), "argv": list(command), "env": dict(env), "directory": str(cwd)}
            socket.send_fds(self._orders, [json.dumps(asked).encode()], [out.fileno(), err.fileno()])
            self._orders.settimeout(_READY)
            pid = int(self._orders.recv(16))
            self._orders.settimeout(timeout)
            try:
                status = int(self._orders.recv(16))
            except BaseException:
                os.kill(pid, signal.SIGKILL)
                self._orders.settimeout(_READY)
                self._orders.recv(16)
                raise
            return subprocess.CompletedProcess(command, status, _text(out), _text(err))


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()
