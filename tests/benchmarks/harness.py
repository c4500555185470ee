"""A server as its users have it, a process of its own, and a client that costs little."""

from __future__ import annotations

import asyncio
import gzip
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import psutil
from google.protobuf.message import Message

from flyte_unified.rpc.sockets import listen

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Server:
    """A server that is ready."""

    process: subprocess.Popen[bytes]
    port: int
    directory: Path
    ready_seconds: float
    """From exec to the first 200 of /readyz."""

    @property
    def endpoint(self) -> str:
        return f"localhost:{self.port}"

    def rss(self) -> int:
        """Bytes resident in the server's own process."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def cpu(self) -> float:
        """CPU seconds of the server's own process so far."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)


def free_port() -> int:
    sockets = listen("localhost", 0)
    port: int = sockets[0].getsockname()[1]
    for one in sockets:
        one.close()
    return port


@contextmanager
def server(*, prepare: Callable[[Path], None] | None = None, **environment: str) -> Iterator[Server]:
    """A fresh server; ``environment`` holds settings, ``FLYTE_UNIFIED_...``; ``prepare`` is given its data directory before."""
    with tempfile.TemporaryDirectory(prefix="fu-", dir=Path("/tmp").resolve()) as temporary:
        port, directory = free_port(), Path(temporary) / "data"
        if prepare is not None:
            prepare(directory)
        command = [sys.executable, "-m", "flyte_unified", "start", "--port", str(port), "--data-dir", str(directory)]
        began = time.perf_counter()
        process = subprocess.Popen(
            [*command, "--log-level", "warning"], cwd=temporary, env={**os.environ, **environment}, stdout=subprocess.DEVNULL
        )
        try:
            _await_ready(process, port)
            yield Server(process, port, directory, time.perf_counter() - began)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)


def _await_ready(process: subprocess.Popen[bytes], port: int) -> None:
    while process.poll() is None:
        try:
            with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as response:
                if response.status == 200:
                    return
        except (URLError, ConnectionError, TimeoutError):
            time.sleep(0.002)  # the port is not bound yet
    raise RuntimeError(f"the server ended with {process.returncode}")


class RawClient:
    """Connect unary calls over kept HTTP/1.1 connections, without a client library's cost."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def call(self, procedure: str, message: Message, answer: type[Message]) -> Message:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            status, body = await self._exchange(reader, writer, request(procedure, message))
        finally:
            writer.close()
            await writer.wait_closed()
        if status != 200:
            raise RuntimeError(f"{procedure}: {status} {body.decode(errors='replace')}")
        return answer.FromString(body)

    async def rate(self, count: int, in_flight: int, make: Callable[[int], bytes]) -> float:
        """Calls per second: ``count`` of them, ``make(i)`` giving the bytes of each, made before the clock starts."""
        numbers = iter([make(index) for index in range(count)])
        began = time.perf_counter()
        await asyncio.gather(*(self._worker(numbers) for _ in range(in_flight)))
        return count / (time.perf_counter() - began)

    async def _worker(self, requests: Iterator[bytes]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        for raw in requests:
            status, body = await self._exchange(reader, writer, raw)
            if status != 200:
                raise RuntimeError(f"{status} {body.decode(errors='replace')}")
        writer.close()
        await writer.wait_closed()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, raw: bytes) -> tuple[int, bytes]:
        writer.write(raw)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        body = await reader.readexactly(length)
        if b"content-encoding: gzip" in head.lower():
            body = gzip.decompress(body)
        return int(head.split(b" ", 2)[1]), body


def request(procedure: str, message: Message) -> bytes:
    """The bytes of a call as the SDK makes it: gzip, always."""
    body = gzip.compress(message.SerializeToString(), 1)
    head = (
        f"POST {procedure} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/proto\r\nconnect-protocol-version: 1\r\n"
        f"content-encoding: gzip\r\naccept-encoding: gzip,identity\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
