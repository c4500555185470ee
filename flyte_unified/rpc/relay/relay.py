"""Carries requests to programs that are served here under host names of their own, and their answers back.

Bodies pass as they come, piece by piece, each side as fast as the other takes them. A connection to a program serves one
request: the next may be for another process of it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import suppress

import aiohttp
from yarl import URL

from flyte_unified.core.errors import FlyteUnifiedError, InvalidArgument, Unavailable
from flyte_unified.core.sites import Site, Upstream
from flyte_unified.rpc.calls import Calls
from flyte_unified.rpc.errors import HTTP_STATUS
from flyte_unified.rpc.exchange import Disconnected, Exchange
from flyte_unified.rpc.http1 import Http1Exchange
from flyte_unified.rpc.relay import http2, websocket
from flyte_unified.rpc.relay.errors import NotThere, away, late
from flyte_unified.rpc.relay.headers import back, is_grpc, onward, wants_websocket

_LONGEST_HEAD = 64 << 10
_WAITS = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Seconds between tries where nobody takes the connection."""
_TEXT = (("content-type", "text/plain; charset=utf-8"), ("cache-control", "no-store"))
_OF_BROWSERS = frozenset({"origin", "sec-fetch-site"})
_BLANK = re.compile(r"[\x00-\x20\x7f]")
"""HTTP/2 may have it in a path: in HTTP/1.1 it would end the path."""
_TOKEN = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_SWITCHED = 101


class Relay:
    """``calls`` counts what is under way, and ends it."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._session: aiohttp.ClientSession | None = None

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

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _pass_on(self, exchange: Exchange, upstream: Upstream) -> None:
        if not exchange.path.startswith("/") or _BLANK.search(f"{exchange.path}?{exchange.query}"):
            raise InvalidArgument("the request's target is no path")
        if not _TOKEN.fullmatch(exchange.method):
            raise InvalidArgument("the request's method is none")
        if isinstance(exchange, Http1Exchange) and wants_websocket(exchange):
            with self._calls.tracked(streams=True):
                await websocket.relay(self._client(), exchange, _url(exchange, upstream), upstream)
        elif upstream.http2 or (exchange.http_version == "2" and is_grpc(exchange)):
            with self._calls.tracked(streams=True):
                await http2.relay(exchange, upstream, patience=None if is_grpc(exchange) else upstream.patience)
        else:
            await self._http1(exchange, upstream)

    async def _http1(self, exchange: Exchange, upstream: Upstream) -> None:
        with self._calls.tracked(streams=False):
            response = await self._answer(exchange, upstream)
        async with response:
            if response.status == _SWITCHED:
                raise Unavailable("the app went over to another protocol, for which nobody asked")
            headers = back(tuple([(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.raw_headers]))
            endless = "content-length" not in response.headers
            with self._calls.tracked(streams=endless):
                await exchange.start(response.status, headers)
                try:
                    if exchange.method != "HEAD":
                        async for chunk in response.content.iter_any():
                            await exchange.write(chunk)
                except aiohttp.ClientError as error:
                    raise Disconnected from error
                await exchange.end()

    async def _answer(self, exchange: Exchange, upstream: Upstream) -> aiohttp.ClientResponse:
        """The beginning of it. Raises Unavailable, DeadlineExceeded."""
        try:
            async with asyncio.timeout(upstream.patience) as patience:
                body = _body(exchange, patience, upstream.patience)
                return await self._client().request(
                    exchange.method,
                    _url(exchange, upstream),
                    headers=onward(exchange, upstream),
                    data=body if _has_body(exchange) else None,
                    allow_redirects=False,
                )
        except TimeoutError:
            raise late(upstream.patience) from None
        except aiohttp.ClientConnectorError as error:
            raise NotThere(str(away(error))) from error
        except (aiohttp.ClientError, OSError) as error:
            raise away(error) from error

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                auto_decompress=False,
                skip_auto_headers=("accept", "accept-encoding", "content-type", "user-agent"),
                max_line_size=_LONGEST_HEAD,
                max_field_size=_LONGEST_HEAD,
                trust_env=False,
            )
            self._session._retry_connection = False  # what was sent may have been done: that is for the client to judge
        return self._session


def _url(exchange: Exchange, upstream: Upstream) -> URL:
    query = f"?{exchange.query}" if exchange.query else ""
    host = f"[{upstream.host}]" if ":" in upstream.host else upstream.host
    return URL(f"http://{host}:{upstream.port}{exchange.path}{query}", encoded=True)


def _has_body(exchange: Exchange) -> bool:
    """As far as its headers tell: over HTTP/2 they need not."""
    if exchange.header("content-length").strip("0") or exchange.header("transfer-encoding"):
        return True
    return exchange.http_version == "2" and exchange.method not in ("GET", "HEAD")


async def _body(exchange: Exchange, patience: asyncio.Timeout, seconds: float) -> AsyncIterator[bytes]:
    """The program's time to answer begins when it has all of the question."""
    loop = asyncio.get_running_loop()
    while chunk := await exchange.receive():
        if not patience.expired():
            patience.reschedule(loop.time() + seconds)
        yield chunk
