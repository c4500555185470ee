"""The server's one port: every protocol, every service, every route.

``Edge`` owns the sockets and their orderly end; the meaning of a request is ``application``'s.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from structlog.typing import FilteringBoundLogger

from flyte_unified.core.http import Route
from flyte_unified.core.sites import Sites
from flyte_unified.rpc.application import Application
from flyte_unified.rpc.calls import Authorize, Identify, InFlight, Observe, Policy
from flyte_unified.rpc.http1 import Http1Server
from flyte_unified.rpc.http2 import Http2Connection
from flyte_unified.rpc.listener import Connections, Mux
from flyte_unified.rpc.registry import Registry
from flyte_unified.rpc.wire import Limits

_CLOSING_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long the edge waits for a client, in seconds."""

    head: float = 20.0
    """For a request's first bytes, and for the rest of its headers."""
    stall: float = 60.0
    """For the next piece of a body, and for a client that does not read."""
    idle: float = 180.0
    """Between two requests; longer than clients keep idle connections (the SDK: 90 s), so that they hang up first."""


class Edge:
    """Serves ``registry``, ``routes`` and, under their own host names, ``sites``. Use once: ``start``, then ``stop``."""

    def __init__(
        self,
        *,
        registry: Registry,
        identify: Identify,
        routes: Sequence[Route] = (),
        allowed_hosts: Sequence[str] = (),
        cors_origins: Sequence[str] = (),
        sites: Sites | None = None,
        authorize: Authorize | None = None,
        observe: Observe | None = None,
        in_flight: InFlight | None = None,
        max_message_bytes: int = 64 << 20,
        compress_from_bytes: int = 16 << 10,
        max_connections: int = 8192,
        patience: Patience | None = None,
        logger: FilteringBoundLogger | None = None,
    ) -> None:
        policy = Policy(
            identify=identify,
            authorize=authorize,
            observe=observe,
            in_flight=in_flight,
            limits=Limits(message=max_message_bytes, compress_from=compress_from_bytes),
        )
        self._application = Application(
            registry=registry,
            routes=routes,
            policy=policy,
            allowed_hosts=allowed_hosts,
            cors_origins=cors_origins,
            sites=sites,
            logger=logger,
        )
        self._patience = patience or Patience()
        self._servers: list[asyncio.Server] = []
        self._http1: Http1Server | None = None
        self._http2: set[Http2Connection] = set()
        self._connections = Connections(limit=max_connections)
        self._port = 0

    @property
    def port(self) -> int:
        """The port of the first socket; 0 before ``start``."""
        return self._port

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Serve on ``sockets``, which are bound and now belong to the edge."""
        patience = self._patience
        self._http1 = Http1Server(
            self._application,
            idle_seconds=patience.idle,
            head_seconds=patience.head,
            stall_seconds=patience.stall,
        )
        self._port = sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()
        new = partial(Mux, self._choose, self._connections, seconds=patience.head)
        for bound in sockets:
            self._servers.append(await loop.create_server(new, sock=bound))

    async def stop(self, grace: float = 5.0) -> None:
        """Serve no more. Open streams end with UNAVAILABLE at once, other calls have ``grace`` seconds.

        Returns within about three seconds more, whatever clients and handlers do.
        """
        if self._http1 is None:
            return
        for server in self._servers:
            server.close()
        self._http1.drain()
        for connection in tuple(self._http2):
            connection.drain()
        await self._application.calls.stop(grace)
        await self._http1.shutdown(_CLOSING_SECONDS)
        await self._connections.close(_CLOSING_SECONDS)
        for server in self._servers:
            await server.wait_closed()

    def _choose(self, http2: bool, lost: Callable[[], None]) -> asyncio.Protocol:
        assert self._http1 is not None
        if not http2:
            return self._http1.connection(lost)
        patience = self._patience
        return Http2Connection(self._application, self._http2, lost, idle_seconds=patience.idle, stall_seconds=patience.stall)
