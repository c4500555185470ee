"""Stores to hold to the contract: the local one, and ours over real S3 servers, where these can be had."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from obstore.store import from_url

from flyte_unified.core.clock import SystemClock
from flyte_unified.storage.api import DataStore
from flyte_unified.storage.local import LocalStore
from flyte_unified.storage.remote import ObstoreStore
from flyte_unified.storage.s3 import Access, S3Store
from flyte_unified.storage.signing import Signer
from tests import s3_servers
from tests.s3_servers import BUCKET, KEY, REGION, SECRET, Server

MISSING = s3_servers.missing()
SERVERS = [name for name in ("rclone", "moto") if name not in MISSING]
STORES = ["local", *(f"s3-{server}" for server in SERVERS), *(["obstore-moto"] if "moto" in SERVERS else [])]
"""rclone answers a part with status 200 and passes over conditions, which obstore does not take for S3."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for name, reason in MISSING.items():
        terminalreporter.write_line(f"tests/contract/storage did without {name}: {reason}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "make" in metafunc.fixturenames:
        metafunc.parametrize("make", STORES, indirect=True)
    if "remote" in metafunc.fixturenames:
        metafunc.parametrize("remote", [name for name in STORES if name != "local"], indirect=True)


@pytest.fixture(scope="session", autouse=True)  # before the look at what a test leaves behind
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    """By name, each with an empty bucket."""
    with ExitStack() as stack:
        made: dict[str, Server] = {}
        if "rclone" in SERVERS:
            made["rclone"] = stack.enter_context(s3_servers.rclone(tmp_path_factory.mktemp("rclone")))
        if "moto" in SERVERS:
            made["moto"] = stack.enter_context(s3_servers.moto())
        yield made


@pytest.fixture
def make(request: pytest.FixtureRequest, servers: dict[str, Server]) -> Callable[[Path], DataStore]:
    """Makes the store that the test's parameter names, with a root ``objects`` in which nothing exists yet."""
    return lambda directory: _made(request.param, directory, servers)


@pytest.fixture
async def remote(request: pytest.FixtureRequest, servers: dict[str, Server], tmp_path: Path) -> AsyncIterator[DataStore]:
    """The store that the test's parameter names, started."""
    store = _made(request.param, tmp_path, servers)
    await store.start()
    yield store
    await store.stop()


def _made(name: str, directory: Path, servers: dict[str, Server]) -> DataStore:
    adapter, _, chosen = name.partition("-")
    if adapter == "local":
        return LocalStore({"objects": directory / "objects"}, signer=Signer(b"k" * 32), clock=SystemClock())
    endpoint = servers[chosen].endpoint
    roots = {"objects": f"s3://{BUCKET}/{uuid.uuid4().hex}"}
    if adapter == "s3":
        access = Access(endpoint=endpoint, region=REGION, access_key=KEY, secret_key=SECRET)
        return S3Store(roots, access=access, clock=SystemClock())
    keys = {"access_key_id": KEY, "secret_access_key": SECRET, "region": REGION}
    options = {"endpoint": endpoint, "client_options": {"allow_http": True}, **keys}
    return ObstoreStore(roots, clock=SystemClock(), open_bucket=lambda bucket: from_url(bucket, **options))
