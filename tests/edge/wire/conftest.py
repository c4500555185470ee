"""One whole server for every test of this directory, talked to over its port and nothing else."""

from __future__ import annotations

import asyncio
import threading
import traceback
from collections.abc import AsyncIterator, Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import structlog

from flyte_unified.testing import Backend
from tests.edge.wire import examples
from tests.edge.wire.examples import Example
from tests.edge.wire.raw import Raw, Stored
from tests.edge.wire.world import World


@pytest.fixture(autouse=True)
def _nothing_left() -> None:
    """The server's threads come and go with the calls of many tests: ``_nothing_left_at_all`` looks when it has ended."""


@pytest.fixture(autouse=True, scope="session")
def _nothing_left_at_all() -> Iterator[None]:
    threads, children = set(threading.enumerate()), set(psutil.Process().children(recursive=True))
    yield
    left = [*(set(psutil.Process().children(recursive=True)) - children), *_ours(set(threading.enumerate()) - threads)]
    assert not left


def _ours(threads: set[threading.Thread]) -> list[threading.Thread]:
    """grpcio keeps one poller for the process."""
    return [thread for thread in threads if "_poll_wrapper" not in thread.name]


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
