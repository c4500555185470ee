"""Stores to hold to the contract: the local one, and ours over real servers, where these can be had."""

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
from tests import cloud_servers, s3_servers
from tests.s3_servers import BUCKET, KEY, REGION, SECRET, Server

MISSING = s3_servers.missing() | cloud_servers.missing()
SERVERS = [name for name in ("rclone", "moto") if name not in MISSING]
CLOUDS = [name for name in ("google", "azurite") if name not in MISSING]
THROUGH_OBSTORE = [name for name in ("moto", *CLOUDS) if name not in MISSING]
"""rclone answers a part with status 200 and passes over conditions, which obstore does not take for S3."""
Servers = dict[str, Server]
Clouds = dict[str, cloud_servers.Server]
STORES = ["local", *(f"s3-{server}" for server in SERVERS), *(f"obstore-{server}" for server in THROUGH_OBSTORE)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for name, reason in MISSING.items():
        terminalreporter.write_line(f"tests/contract/storage did without {name}: {reason}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "make" in metafunc.fixturenames:
        metafunc.parametrize("make", STORES, indirect=True)
    if "remote" in metafunc.fixturenames:
        metafunc.parametrize("remote", [name for name in STORES if name != "local"], indirect=True)
    if "bucket" in metafunc.fixturenames:
        metafunc.parametrize("bucket", THROUGH_OBSTORE, indirect=True)


@pytest.fixture(scope="session", autouse=True)  # before the look at what a test leaves behind
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """By name, each with an empty bucket."""
    with ExitStack() as stack:
        made: Servers = {}
        if "rclone" in SERVERS:
            made["rclone"] = stack.enter_context(s3_servers.rclone(tmp_path_factory.mktemp("rclone")))
        if "moto" in SERVERS:
            made["moto"] = stack.enter_context(s3_servers.moto())
        yield made


@pytest.fixture(scope="session", autouse=True)
def clouds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clouds]:
    """The same of Google's and Azure's."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(getattr(cloud_servers, name)(tmp_path_factory.mktemp(name))) for name in CLOUDS}


@pytest.fixture(autouse=True)
def _ways(clouds: Clouds, monkeypatch: pytest.MonkeyPatch) -> None:
    """How to reach them: obstore looks into the environment."""
    for server in clouds.values():
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)


@pytest.fixture
def make(request: pytest.FixtureRequest, servers: Servers, clouds: Clouds) -> Callable[[Path], DataStore]:
    """Makes the store that the test's parameter names, with a root ``objects`` in which nothing exists yet."""
    return lambda directory: _made(request.param, directory, servers, clouds)


@pytest.fixture
async def remote(request: pytest.FixtureRequest, servers: Servers, clouds: Clouds, tmp_path: Path) -> AsyncIterator[DataStore]:
    """The store that the test's parameter names, started."""
    store = _made(request.param, tmp_path, servers, clouds)
    await store.start()
    yield store
    await store.stop()


@pytest.fixture
def bucket(request: pytest.FixtureRequest, clouds: Clouds) -> str:
    """``scheme://bucket`` at the server that the test's parameter names."""
    return f"{clouds[request.param].scheme if request.param in CLOUDS else 's3'}://{BUCKET}"


def _made(name: str, directory: Path, servers: Servers, clouds: Clouds) -> DataStore:
    adapter, _, chosen = name.partition("-")
    if adapter == "local":
        return LocalStore({"objects": directory / "objects"}, signer=Signer(b"k" * 32), clock=SystemClock())
    prefix = uuid.uuid4().hex
    if chosen in CLOUDS:
        return ObstoreStore({"objects": f"{clouds[chosen].scheme}://{BUCKET}/{prefix}"}, clock=SystemClock())
    endpoint = servers[chosen].endpoint
    roots = {"objects": f"s3://{BUCKET}/{prefix}"}
    if adapter == "s3":
        access = Access(endpoint=endpoint, region=REGION, access_key=KEY, secret_key=SECRET)
        return S3Store(roots, access=access, clock=SystemClock())
    keys = {"access_key_id": KEY, "secret_access_key": SECRET, "region": REGION}
    options = {"endpoint": endpoint, "client_options": {"allow_http": True}, **keys}
    return ObstoreStore(roots, clock=SystemClock(), open_bucket=lambda bucket: from_url(bucket, **options))
