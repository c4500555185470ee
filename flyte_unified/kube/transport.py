"""The way to an API server: ``kubernetes.aio`` finds it and proves who we are, aiohttp carries bytes.

This is the one place that imports ``kubernetes``, and only when a client starts: it takes a third of a second. Of it we use the
configuration (kubeconfig with its contexts, certificates, tokens and plugins, or a pod's service account with the token that is
renewed on its disk) and the session's TLS made from it. Its models stay unused, and so do its requests: they cannot tell
an answer that is long from one that has stopped, and would parse and serialise what we have as bytes.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import structlog

from flyte_unified import __version__
from flyte_unified.kube.errors import Away, Silent, Unconfigured, refused

_log = structlog.get_logger(__name__)

_RENEWAL = 10.0
"""Seconds between two readings of credentials that the server does not take."""
_BUFFER = 1 << 18
"""Bytes of an answer that wait for their reader before the server is held back."""
_PROBES = {"TCP_KEEPIDLE": 30, "TCP_KEEPALIVE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
"""Seconds, and a count, by Linux' and macOS' names: a log may be silent for hours, and nothing else tells it from a connection
whose other end is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """``doing`` is for messages: verb, kind and object."""

    doing: str
    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    content_type: str = "application/json"
    accept: str = "application/json"


class Transport:
    """Raises KubeError and nothing else. ``context`` is one of the kubeconfig's, empty for its current one.

    A token that expires is read anew, from the file or the plugin that it came from; a client certificate is not.
    """

    def __init__(self, *, kubeconfig: Path | None, context: str) -> None:
        self._kubeconfig = kubeconfig
        self._context = context
        self._configuration: Any = None
        self._session: aiohttp.ClientSession | None = None
        self._renewing = asyncio.Lock()
        self._renewed_at = float("-inf")

    async def start(self) -> None:
        """Reads the configuration and speaks to nobody. Raises Unconfigured."""
        self._configuration = await _configuration(self._kubeconfig, self._context)
        self._session = _session(self._configuration)

    async def stop(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def call(self, request: Request) -> bytes:
        """The body of a good answer. The caller bounds the time."""
        answer = await self._send(request, aiohttp.ClientTimeout(total=None))
        with _wrapped(request.doing):
            async with answer:
                return await answer.read()

    async def stream(self, request: Request, *, connect: float, silence: float | None) -> AsyncGenerator[bytes, None]:
        """The body as it comes in; first an empty piece, when the server has agreed.

        ``connect`` bounds the connecting, ``silence`` each wait for more, both in seconds. Raises Away when it is cut, Silent
        after ``silence``.
        """
        answer = await self._send(request, aiohttp.ClientTimeout(total=None, sock_connect=connect, sock_read=silence))
        try:
            yield b""
            while True:
                with _wrapped(request.doing):
                    try:
                        chunk = await answer.content.readany()
                    except aiohttp.SocketTimeoutError as error:
                        raise Silent(f"{request.doing}: nothing came for {silence:g} s") from error
                if not chunk:
                    return
                yield chunk
        finally:
            answer.close()

    async def _send(self, request: Request, timeout: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        token = await self._token()
        answer = await self._once(request, token, timeout)
        if answer.status == 401 and await self._renewed(token):
            answer.close()
            answer = await self._once(request, await self._token(), timeout)
        if answer.status < 400:
            return answer
        with _wrapped(request.doing):
            async with answer:
                body = await answer.read()
        raise refused(request.doing, answer.status, body, retry_after=answer.headers.get("Retry-After", ""))

    async def _once(self, request: Request, token: str, timeout: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        if self._session is None:
            raise Away(f"{request.doing}: the client is not started, or is stopped")
        configuration = self._configuration
        headers = {"Accept": request.accept} | ({"Content-Type": request.content_type} if request.body is not None else {})
        if token:
            headers["Authorization"] = token
        with _wrapped(request.doing):
            return await self._session.request(
                request.method,
                configuration.host + request.path + (f"?{urlencode(request.query)}" if request.query else ""),
                data=request.body,
                headers=headers,
                timeout=timeout,
                proxy=configuration.proxy,
                server_hostname=configuration.tls_server_name,
                allow_redirects=False,
            )

    async def _token(self) -> str:
        """The Authorization header. A service account's comes from its file, at most a minute old."""
        if self._configuration is None:
            return ""
        return await self._configuration.get_api_key_with_prefix("BearerToken", "authorization") or ""

    async def _renewed(self, token: str) -> bool:
        """Whether there is another token than the one that was refused."""
        async with self._renewing:
            now = asyncio.get_running_loop().time()
            if await self._token() == token and now - self._renewed_at >= _RENEWAL:
                self._renewed_at = now
                try:
                    self._configuration = await _configuration(self._kubeconfig, self._context)
                except Unconfigured as error:
                    _log.warning("credentials could not be read anew", error=str(error))
            return await self._token() != token


async def _configuration(kubeconfig: Path | None, context: str) -> Any:
    """A ``kubernetes.aio`` Configuration: of ``kubeconfig``, else of the pod that we are in, else as kubectl finds it."""
    from kubernetes.aio import config
    from kubernetes.aio.client import Configuration

    configuration = Configuration()
    configuration.disable_strict_ssl_verification = True  # clusters' own authorities lack what Python 3.13 began to ask for
    files = str(kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config")
    try:
        if kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ:
            config.load_incluster_config(configuration)
        else:
            await config.load_kube_config(files, context or None, configuration, persist_config=False)
    except Exception as error:  # whatever a broken file makes the library raise
        raise Unconfigured(f"no way to a cluster by {files}: {error}") from error
    return configuration


def _session(configuration: Any) -> aiohttp.ClientSession:
    from kubernetes.aio.client import ApiClient

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=0,  # watches and logs hold theirs: the client bounds the calls beside them
            ssl=ApiClient(configuration).rest_client.ssl_context,
            socket_factory=_socket,
        ),
        headers={"User-Agent": f"flyte-unified/{__version__}"},
        cookie_jar=aiohttp.DummyCookieJar(),
        read_bufsize=_BUFFER,
        trust_env=True,
    )


def _socket(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _PROBES.items():
        if (option := getattr(socket, name, None)) is not None:
            made.setsockopt(socket.IPPROTO_TCP, option, value)
    return made


@contextmanager
def _wrapped(doing: str) -> Iterator[None]:
    try:
        yield
    except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
        raise Away(f"{doing}: {type(error).__name__}: {error}") from error
