"""A client that sends whatever it is given, and a look at what the server keeps."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sqlite3
import struct
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import aiohttp
from google.protobuf.message import Message

SECONDS = 5.0
"""Nothing here takes as long, even while the machine is busy with something else."""
_END = 2
_PARTS = ("storage", "bundles")


@dataclass(frozen=True, slots=True)
class Answer:
    """How a call ended: ``ok``, an error's wire name, ``open`` (a stream that goes on), or ``http <status>``."""

    code: str
    message: str = ""
    bodies: Sequence[bytes] = ()


class Raw:
    """Connect over HTTP/1.1, from bytes to bytes."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def __aenter__(self) -> Raw:
        self.session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=SECONDS))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.session.close()

    async def call(
        self,
        procedure: str,
        body: bytes | Message = b"",
        *,
        streams: bool = False,
        codec: str = "proto",
        token: str = "",
        headers: Mapping[str, str] | None = None,
        patience: float = 0.2,
    ) -> Answer:
        """``streams``: the RPC is a stream of any kind; one that says nothing for ``patience`` seconds is left ``open``."""
        data = body.SerializeToString() if isinstance(body, Message) else body
        prefix = f"/t/{token}" if token else ""
        told = {"content-type": f"application/{'connect+' if streams else ''}{codec}", **(headers or {})}
        if streams:
            data = struct.pack(">BI", 0, len(data)) + data
        async with self.session.post(f"{self._address}{prefix}{procedure}", data=io.BytesIO(data), headers=told) as response:
            if streams and response.status == 200:
                return await _stream(response, patience)
            content = await response.read()
            if response.status == 200:
                return Answer("ok", bodies=[content])
            if response.content_type != "application/json":
                return Answer(f"http {response.status}", content.decode(errors="replace"))
            return _error(json.loads(content))


async def _stream(response: aiohttp.ClientResponse, patience: float) -> Answer:
    bodies: list[bytes] = []
    while True:
        try:
            async with asyncio.timeout(patience):
                flags, length = struct.unpack(">BI", await response.content.readexactly(5))
                content = await response.content.readexactly(length)
        except TimeoutError:
            response.close()
            return Answer("open", bodies=bodies)
        if not flags & _END:
            bodies.append(content)
            continue
        error = json.loads(content).get("error")
        return Answer("ok", bodies=bodies) if error is None else _error(error, bodies)


def _error(error: Mapping[str, str], bodies: Sequence[bytes] = ()) -> Answer:
    return Answer(error["code"], error.get("message", ""), bodies)


_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name != 'attempts'"


class Stored:
    """What a server keeps below a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def now(self) -> tuple[dict[str, int], set[str]]:
        """Rows by table, and the files of its storage; without attempts, as what was begun before goes on."""
        with closing(sqlite3.connect(f"file:{self._directory}/flyte.db?mode=ro", uri=True)) as database:
            tables = [name for (name,) in database.execute(_TABLES)]
            rows = {name: database.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables}
        return rows, {
            f"{place}/{name}" for part in _PARTS for place, _, names in os.walk(self._directory / part) for name in names
        }
