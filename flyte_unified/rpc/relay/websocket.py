"""A WebSocket through the relay: after the handshake, bytes both ways, whatever they mean."""

from __future__ import annotations

import asyncio

import aiohttp
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from flyte_unified.core.context import Headers
from flyte_unified.core.sites import Upstream
from flyte_unified.rpc.exchange import Disconnected
from flyte_unified.rpc.http1 import Http1Exchange, RawBytes
from flyte_unified.rpc.relay.errors import NotThere, away, late
from flyte_unified.rpc.relay.headers import back, onward

_SWITCHED = 101
_ASKED = (("connection", "upgrade"), ("upgrade", "websocket"))


async def relay(client: aiohttp.ClientSession, exchange: Http1Exchange, url: URL, upstream: Upstream) -> None:
    """Until either side has had enough. Raises Disconnected, and before the handshake Unavailable and DeadlineExceeded."""
    try:
        async with asyncio.timeout(upstream.patience):
            response = await client.get(url, headers=[*onward(exchange, upstream), *_ASKED], allow_redirects=False)
    except TimeoutError:
        raise late(upstream.patience) from None
    except aiohttp.ClientConnectorError as error:
        raise NotThere(str(away(error))) from error
    except (aiohttp.ClientError, OSError) as error:
        raise away(error) from error
    async with response:
        headers = back(tuple([(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.raw_headers]))
        if response.status != _SWITCHED:
            await _refused(exchange, response, headers)
            return
        assert response.connection is not None
        protocol = response.connection.protocol
        assert protocol is not None
        raw = RawBytes(protocol)
        protocol.set_parser(raw, raw.stream)
        await exchange.start(_SWITCHED, (*headers, *_ASKED))
        exchange.upgrade()
        try:
            await _both_ways(exchange, protocol, raw.stream)
        finally:
            protocol.close()
    await exchange.end()


async def _refused(exchange: Http1Exchange, response: aiohttp.ClientResponse, headers: Headers) -> None:
    await exchange.start(response.status, headers)
    try:
        async for chunk in response.content.iter_any():
            await exchange.write(chunk)
    except aiohttp.ClientError as error:
        raise Disconnected from error
    await exchange.end()


async def _both_ways(exchange: Http1Exchange, protocol: ResponseHandler, answers: aiohttp.StreamReader) -> None:
    """Ends with the first side that ends."""

    async def there() -> None:
        while data := await exchange.receive():
            if protocol.transport is None or protocol.transport.is_closing():
                return
            protocol.transport.write(data)
            await protocol._drain_helper()

    async def back_again() -> None:
        while data := await answers.readany():
            await exchange.write(data)

    ways = [asyncio.create_task(there(), name="websocket there"), asyncio.create_task(back_again(), name="websocket back")]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        ends = await asyncio.gather(*ways, return_exceptions=True)
    for end in ends:
        if isinstance(end, (aiohttp.ClientError, OSError)):
            raise Disconnected from end
        if isinstance(end, Exception):
            raise end
