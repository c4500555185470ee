"""A WebSocket through the relay: after the handshake, bytes both ways, whatever they mean."""

from __future__ import annotations

import asyncio

from flyte_unified.rpc.exchange import Disconnected
from flyte_unified.rpc.http1 import Http1Exchange

_READ = 64 << 10
ASKED = (("connection", "upgrade"), ("upgrade", "websocket"))
"""Between neighbours: what a request says for it, and the answer that agrees."""


async def both_ways(
    exchange: Http1Exchange, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, said: bytes
) -> None:
    """Ends with the first side that ends. ``said`` came from the program together with its agreement. Raises Disconnected."""

    async def there() -> None:
        while data := await exchange.receive():
            writer.write(data)
            await writer.drain()

    async def back_again() -> None:
        if said:
            await exchange.write(said)
        while data := await reader.read(_READ):
            await exchange.write(data)

    ways = [asyncio.create_task(there(), name="websocket there"), asyncio.create_task(back_again(), name="websocket back")]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        ends = await asyncio.gather(*ways, return_exceptions=True)
    for end in ends:
        if isinstance(end, OSError):
            raise Disconnected from end
        if isinstance(end, Exception):
            raise end
