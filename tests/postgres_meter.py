"""A way to a Postgres server that counts the statements that go through it.

What a client sends is read as the protocol has it: Query runs a text, Execute a statement that was prepared.
https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

_SENT = (b"Q", b"E")


class Meter:
    """``url`` leads through it; ``statements`` were sent so far, by all connections."""

    def __init__(self, target: str) -> None:
        self._target = urlsplit(target)
        self._tasks: set[asyncio.Task[None]] = set()
        self.statements = 0
        self.url = ""

    @classmethod
    @asynccontextmanager
    async def running(cls, target: str) -> AsyncIterator[Meter]:
        meter = cls(target)
        server = await asyncio.start_server(meter._join, "127.0.0.1", 0)
        place = f"{meter._target.username}@127.0.0.1:{server.sockets[0].getsockname()[1]}"
        meter.url = meter._target._replace(netloc=place, query="sslmode=disable").geturl()
        try:
            yield meter
        finally:
            server.close()
            for task in meter._tasks:
                task.cancel()
            await asyncio.gather(*meter._tasks, return_exceptions=True)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(self._target.hostname, self._target.port)
        for way in (self._requests(reader, server_writer), self._answers(server_reader, writer)):
            task = asyncio.create_task(way, name="postgres-meter")
            self._tasks.add(task)

    async def _requests(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            kind = b""  # the first message has none
            while True:
                size = await source.readexactly(4)
                target.write(kind + size + await source.readexactly(int.from_bytes(size) - 4))
                self.statements += kind in _SENT
                kind = await source.readexactly(1)
        target.close()

    async def _answers(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await source.read(1 << 16):
                target.write(data)
        target.close()
