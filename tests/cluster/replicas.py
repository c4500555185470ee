"""Servers of a cluster, each a process: several of one database, to be killed, held up and replaced."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.bodies import PATIENCE
from tests.sdk.durability.stand import Server

_ROOT = Path(__file__).parents[2]
_PROGRAM = Path(__file__).with_name("zygote.py")


class Zygote:
    """Where servers come from."""

    def __init__(self, orders: socket.socket) -> None:
        self._orders = orders
        assert orders.recv(16) == b"ready"

    @classmethod
    @contextlib.contextmanager
    def waiting(cls) -> Iterator[Zygote]:
        ours, its = socket.socketpair()
        ours.settimeout(PATIENCE)
        environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
        with ours, its:
            command = [sys.executable, str(_PROGRAM), str(its.fileno())]
            process = subprocess.Popen(command, pass_fds=[its.fileno()], start_new_session=True, env=environment)
            its.close()
            try:
                yield cls(ours)
            finally:
                ours.close()
                process.wait(PATIENCE)

    def fork(self, asked: dict[str, Any], *, output: int, errors: int) -> int:
        """The pid of a new server."""
        socket.send_fds(self._orders, [json.dumps(asked).encode()], [output, errors])
        return int(self._orders.recv(16))


@dataclass(kw_only=True)
class Replica(Server):
    """One server. Its ``directory`` is its own; ``settings`` are as in the environment, without their prefix."""

    name: str
    zygote: Zygote
    pid: int = 0

    async def start(self, *arguments: str) -> None:
        """Returns when it is ready; at the port that it had before."""
        self.directory.mkdir(exist_ok=True)
        asked = {
            "arguments": ["start", "--port", str(self.port), "--data-dir", str(self.data), *arguments],
            "environment": {**self.environment, "POD_NAME": self.name},
            "directory": str(self.directory),
        }
        read, write = os.pipe()
        errors = os.open(self.directory / "server.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self.pid = self.zygote.fork(asked, output=write, errors=errors)
        finally:
            os.close(write)
            os.close(errors)
        self._output = asyncio.StreamReader()
        self._pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(self._output), os.fdopen(read, "rb")
        )
        async with asyncio.timeout(PATIENCE):
            while line := (await self._output.readline()).decode():
                if found := re.search(r"--port (\d+)", line):
                    self.port = int(found[1])
                    return
        raise AssertionError(self.log_text())

    def log_text(self) -> str:
        return (self.directory / "server.log").read_text()[-6000:]

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    async def gone(self) -> None:
        """Returns when its process has ended: nobody writes to its output any more."""
        async with asyncio.timeout(PATIENCE):
            await self._output.read()
        self._pipe.close()
        self.pid = 0

    async def kill(self) -> None:
        """kill -9"""
        if self.pid:
            self.signal(signal.SIGKILL)
            await self.gone()

    async def end(self) -> None:
        """SIGTERM, as Kubernetes ends a pod."""
        self.signal(signal.SIGTERM)
        await self.gone()
