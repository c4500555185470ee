"""One whole server for every test of this directory, talked to over its port and nothing else."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import pytest
import structlog

from flyte_unified.testing import Backend
from tests.edge.wire import examples
from tests.edge.wire.examples import Example
from tests.edge.wire.raw import Raw, Stored
from tests.edge.wire.world import World
from tests.leftovers import _nothing_left, _nothing_left_at_all

__all__ = ["_nothing_left", "_nothing_left_at_all"]


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server keeps everything."""
    return tmp_path_factory.mktemp("wire")


@pytest.fixture(scope="session")
def accidents() -> Iterator[list[str]]:
    """What the server logs as an error: it has not foreseen it."""
    found: list[str] = []

    def look(_: object, level: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if level in ("error", "exception", "critical"):
            found.append(f"{event}\n{traceback.format_exc()}")
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[look])
    yield found
    structlog.configure(**before)


@pytest.fixture(autouse=True)
def _no_accident(accidents: list[str]) -> Iterator[None]:
    yield
    told, accidents[:] = list(accidents), []
    assert not told, told


@pytest.fixture(scope="session")
def server(directory: Path, accidents: list[str]) -> Iterator[Backend]:
    settings = {"storage.bundles": str(directory / "bundles"), "execution.slots": 64, "execution.retry_backoff": 0.01}
    with Backend(settings, directory=directory) as backend:
        yield backend


@pytest.fixture(scope="session")
def address(server: Backend) -> str:
    return server.address


@pytest.fixture(scope="session")
def stored(server: Backend, directory: Path) -> Stored:
    return Stored(directory)


@pytest.fixture
async def raw(server: Backend) -> AsyncIterator[Raw]:
    async with Raw(server.address) as raw:
        yield raw


@pytest.fixture(scope="session")
def valid(server: Backend, directory: Path) -> Mapping[str, list[Example]]:
    """A valid request of every RPC, by service, and what they speak of on the server."""

    async def made() -> list[Example]:
        async with Raw(server.address) as raw:
            world = World(raw, str(directory))
            await examples.prepare(world)
            return await examples.examples(world)

    found: dict[str, list[Example]] = {}
    for example in asyncio.run(made()):
        found.setdefault(example.procedure[1:].partition("/")[0].removeprefix("flyteidl2."), []).append(example)
    return found


@pytest.fixture
def world(raw: Raw, directory: Path) -> World:
    return World(raw, str(directory))
