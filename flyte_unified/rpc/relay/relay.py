"""Carries requests to programs that are served here under host names of their own, and their answers back.

Bodies pass as they come, piece by piece, each side as fast as the other takes them. A connection to a program serves one
request: the next may be for another process of it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from flyte_unified.core.errors import FlyteUnifiedError, InvalidArgument
from flyte_unified.core.sites import Site, Upstream
from flyte_unified.rpc.calls import Calls
from flyte_unified.rpc.errors import HTTP_STATUS
from flyte_unified.rpc.exchange import Disconnected, Exchange
from flyte_unified.rpc.relay import http1, http2
from flyte_unified.rpc.relay.connect import NotThere
from flyte_unified.rpc.relay.headers import is_grpc

_WAITS = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Seconds between tries where nobody takes the connection."""
_TEXT = (("content-type", "text/plain; charset=utf-8"), ("cache-control", "no-store"))
_OF_BROWSERS = frozenset({"origin", "sec-fetch-site"})


class Relay:
    """``calls`` counts what is under way, and ends it."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def serve(self, exchange: Exchange, site: Site) -> None:
        """Answers, in words of ours where the program can't. Raises Disconnected."""
        try:
            await self._visit(exchange, site)
        except FlyteUnifiedError as error:
            if exchange.started:
                raise Disconnected from error
            await exchange.respond(HTTP_STATUS[error.code], _TEXT, f"{error.message}\n".encode())

    async def _visit(self, exchange: Exchange, site: Site) -> None:
        """A program that ends just now is visited again, when those who run it may have heard of its end."""
        for wait in _WAITS:
            with suppress(NotThere):
                async with site.visit() as upstream:
                    await self._pass_on(exchange, upstream)
                return
            await asyncio.sleep(wait)
        async with site.visit() as upstream:
            await self._pass_on(exchange, upstream)

    async def serve_programs(self, exchange: Exchange, site: Site) -> None:
        """The same on the server's own host: for everybody but browsers, where nothing of it is of the server's origin."""
        exchange.reply_headers = (*exchange.reply_headers, ("content-security-policy", "sandbox"))
        if any(name in _OF_BROWSERS for name, _ in exchange.headers):
            await exchange.respond(403, _TEXT, b"apps are here for programs only; browsers find each under a host of its own\n")
        else:
            await self.serve(exchange, site)

    async def _pass_on(self, exchange: Exchange, upstream: Upstream) -> None:
        if not (exchange.path.startswith("/") or (exchange.method, exchange.target) == ("OPTIONS", "*")):
            raise InvalidArgument("the request's target is no path")
        if upstream.http2 or (exchange.http_version == "2" and is_grpc(exchange)):
            with self._calls.tracked(streams=True):
                await http2.relay(exchange, upstream, patience=None if is_grpc(exchange) else upstream.patience)
        else:
            await http1.relay(exchange, upstream, self._calls)
