"""The kubelet's port: containers' logs, for API servers to pass on. One port for HTTP and HTTPS: a first byte of 22 is TLS.

A real API server speaks HTTPS to kubelets and, unless told to, does not ask whose certificate it is: so one is made by
``openssl`` when the first such connection comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import structlog
from aiohttp import web

from flyte_unified.core.clock import SECOND, Clock
from flyte_unified.testing.kubelet.output import Wanted

_log = structlog.get_logger(__name__)
_TLS = 22
_SHUTDOWN_SECONDS = 0.1
_FIRST_BYTE_SECONDS = 10.0


class NoLog(NamedTuple):
    """Why there is no log: an HTTP status and the kubelet's words."""

    status: int
    message: str


Logs = Callable[[str, str, str, bool, Wanted], "AsyncIterator[bytes] | NoLog"]
"""(namespace, pod, container, previous, wanted) -> the log's bytes."""


class Server:
    """``directory`` is where a certificate may be kept."""

    def __init__(self, logs: Logs, *, address: str, directory: Path, clock: Clock) -> None:
        self._logs = logs
        self._address = address
        self._directory = directory
        self._clock = clock
        self._tls: asyncio.Task[ssl.SSLContext] | None = None
        self._connections: set[asyncio.Task[None]] = set()
        app = web.Application()
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._container_logs)
        app.router.add_get("/healthz", _healthz)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handler_cancellation=True,  # who follows a log and goes away would keep its reader waiting for the next line
            shutdown_timeout=_SHUTDOWN_SECONDS,
        )
        self._accepting: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self) -> None:
        await self._runner.setup()
        listener = socket.create_server((self._address, 0))
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        self._accepting = asyncio.create_task(self._accept(listener), name="kubelet port")

    async def stop(self) -> None:
        tasks = [task for task in (self._accepting, self._tls, *self._connections) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._runner.cleanup()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                connection, _ = await loop.sock_accept(listener)
                task = asyncio.create_task(self._open(connection), name="kubelet connection")
                self._connections.add(task)
                task.add_done_callback(self._connections.discard)

    async def _open(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_FIRST_BYTE_SECONDS):
                first = await _peek(connection)
                tls = await self._certified() if first[:1] == bytes([_TLS]) else None
                assert self._runner.server is not None
                await loop.connect_accepted_socket(self._runner.server, connection, ssl=tls)
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            _log.debug("a connection to the kubelet failed", error=str(error))
            connection.close()
        except asyncio.CancelledError:
            connection.close()
            raise

    async def _certified(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = asyncio.create_task(self._certify(), name="kubelet certificate")
        return await asyncio.shield(self._tls)

    async def _certify(self) -> ssl.SSLContext:
        key, certificate = self._directory / "kubelet.key", self._directory / "kubelet.crt"
        process = await asyncio.create_subprocess_exec(
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "30", "-subj", "/CN=kubelet", "-addext", f"subjectAltName=IP:{self._address}"),
            *("-keyout", str(key), "-out", str(certificate)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await process.wait()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        return context

    async def _container_logs(self, request: web.Request) -> web.StreamResponse:
        match, query = request.match_info, request.query
        wanted = Wanted(
            follow=query.get("follow") == "true",
            timestamps=query.get("timestamps") == "true",
            tail=_number(query.get("tailLines")),
            limit=_number(query.get("limitBytes")),
            since=self._since(query.get("sinceSeconds"), query.get("sinceTime")),
        )
        previous = query.get("previous") == "true"
        found = self._logs(match["namespace"], match["pod"], match["container"], previous, wanted)
        if isinstance(found, NoLog):
            return web.Response(status=found.status, text=found.message)
        answer = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await answer.prepare(request)
        with contextlib.suppress(ConnectionError):  # the reader has seen enough
            async for piece in found:
                if piece:
                    await answer.write(piece)
            await answer.write_eof()
        return answer

    def _since(self, seconds: str | None, time: str | None) -> int:
        """Microseconds since the epoch; the API keeps whole seconds of ``sinceTime``."""
        if time:
            return int(datetime.fromisoformat(time).timestamp()) * SECOND
        return self._clock.now() - int(seconds) * SECOND if seconds else 0


async def _healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok")


def _number(text: str | None) -> int | None:
    return int(text) if text else None


async def _peek(connection: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    readable = loop.create_future()
    loop.add_reader(connection, readable.cancel)
    try:
        await asyncio.wait({readable})
    finally:
        loop.remove_reader(connection)
    return connection.recv(1, socket.MSG_PEEK)
