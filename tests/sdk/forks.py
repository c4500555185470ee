"""Clients of the SDK, and servers, that are forked from a process which has their imports behind it: see ``zygote``."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_PROGRAM = Path(__file__).with_name("zygote.py")
_READY = 60.0
"""Seconds in which everything is imported."""
SURROUNDINGS = {
    "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))),
    "DO_NOT_TRACK": "1",
    "NO_COLOR": "1",
    "COLUMNS": "200",
}
"""Nothing of ours but the ways to programs. A user's home comes to it."""


@dataclass
class Forked:
    """What ``asyncio.subprocess.Process`` is for others, as far as it is needed."""

    pid: int
    stdout: asyncio.StreamReader
    _told: asyncio.StreamReader
    _pipes: Sequence[asyncio.ReadTransport]
    returncode: int | None = None

    async def wait(self) -> int:
        if self.returncode is None:
            told = await self._told.readline()
            for pipe in self._pipes:
                pipe.close()
            self.returncode = int(told)
        return self.returncode


class Forks:
    """A process to fork from: ``kind`` is client or server."""

    def __init__(self, kind: str) -> None:
        self._orders, its = socket.socketpair(type=socket.SOCK_SEQPACKET)
        with its:
            command = [sys.executable, str(_PROGRAM), str(its.fileno()), kind]
            nothing, home = subprocess.DEVNULL, {"HOME": "/nonexistent"}
            self._process = subprocess.Popen(
                command, pass_fds=[its.fileno()], env=SURROUNDINGS | home, stdin=nothing, stdout=nothing
            )
        self._orders.settimeout(_READY)
        self._ready = False

    def close(self) -> None:
        self._orders.close()
        self._process.wait()

    def run(
        self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """``subprocess.run`` for a script and its arguments."""
        with (
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
            os.fdopen(self._begin(command, cwd=cwd, env=env, output=out.fileno(), errors=err.fileno()), "rb") as told,
        ):
            pid = int(told.readline())
            try:
                if not select.select([told], [], [], timeout)[0]:
                    raise subprocess.TimeoutExpired(command, timeout, _text(out), _text(err))
                status = int(told.readline())
            except BaseException:
                os.kill(pid, signal.SIGKILL)
                told.readline()
                raise
            return subprocess.CompletedProcess(command, status, _text(out), _text(err))

    async def start(self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str], errors: int) -> Forked:
        """The same script, running."""
        read, write = os.pipe()
        try:
            told = self._begin(command, cwd=cwd, env=env, output=write, errors=errors)
        finally:
            os.close(write)
        readers, pipes = zip(*[await _reader(descriptor) for descriptor in (read, told)], strict=True)
        return Forked(int(await readers[1].readline()), *readers, pipes)

    def _begin(self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str], output: int, errors: int) -> int:
        """A descriptor that tells the pid in a line, and then how it ended."""
        if not self._ready:
            assert self._orders.recv(16) == b"ready"
            self._ready = True
        asked = {"program": str(cwd / command[0]), "argv": list(command), "env": dict(env), "directory": str(cwd)}
        told, tells = os.pipe()
        try:
            socket.send_fds(self._orders, [json.dumps(asked).encode()], [output, errors, tells])
        finally:
            os.close(tells)
        return told


class Stock:
    """One of each kind, from when it is first needed."""

    def __init__(self) -> None:
        self._found: dict[str, Forks] = {}

    def get(self, kind: str) -> Forks:
        if kind not in self._found:
            self._found[kind] = Forks(kind)
        return self._found[kind]

    def close(self) -> None:
        while self._found:
            self._found.popitem()[1].close()


STOCK = Stock()
"""For the whole session: ``leftovers`` closes it."""


async def _reader(descriptor: int) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    reader = asyncio.StreamReader()
    pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb")
    )
    return reader, pipe


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()
