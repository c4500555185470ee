"""A database that restarts, and an object store that fails or dawdles, in the middle of runs: they wait, and end right."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from flyte_unified.kube.errors import Exists
from flyte_unified.kube.kinds import SECRETS
from tests import s3_servers
from tests.cluster.bodies import AWAY
from tests.cluster.local import LocalCluster
from tests.cluster.replicas import Zygote
from tests.cluster.stand import Stand, standing
from tests.databases import clear
from tests.postgres import MISSING, PostgresServer

_several = pytest.mark.skipif(bool(MISSING), reason=MISSING)


@_several
@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_a_database_that_restarts_loses_nothing(stand: Stand, postgres: PostgresServer, mode: str) -> None:
    """In the middle of runs in several phases, some of which go on while it is away."""
    server = await stand.replica()
    running, ending, failing = [await stand.run(server) for _ in range(3)]
    bodies = {run: await stand.bodies.comes(run) for run in (running, ending, failing)}
    pods = stand.hold("create", "pods")
    podless = await stand.run(server)
    await stand.reached(pods)
    await asyncio.to_thread(postgres.stop, mode)
    try:
        bodies[ending].end()
        bodies[failing].end(1)
        await asyncio.gather(bodies[ending].over.wait(), bodies[failing].over.wait())
        stand.faults.restore()
        (await stand.bodies.comes(podless)).end()
        await asyncio.sleep(AWAY)
    finally:
        await asyncio.to_thread(postgres.start)
    stand.bodies.open = True
    bodies[running].end()
    for run in (running, ending, podless):
        await stand.succeeds(server, run)
    await stand.succeeds(server, failing, attempts=2)


class Way:
    """To a server behind: open, or ``failing`` with 503, ``slow`` by seconds, ``cut`` in the middle."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.failing = self.cut = False
        self.slow = 0.0
        self.refused = asyncio.Event()
        self.port = 0
        self._serving: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Way]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.change()
            await asyncio.gather(*self._serving)

    def change(self, *, failing: bool = False, cut: bool = False, slow: float = 0.0) -> None:
        """From now on, for connections that are open too: they are closed."""
        self.failing, self.cut, self.slow = failing, cut, slow
        self.refused.clear()
        for writer in self._serving.values():
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving[task] = writer
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if self.cut or self.failing:
                if self.failing:
                    writer.write(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                    await writer.drain()
                self.refused.set()
                return
            await asyncio.sleep(self.slow)
            behind, there = await asyncio.open_connection("127.0.0.1", self._port)
            there.write(head)
            back = asyncio.create_task(_pass(behind, writer), name="answers")
            await _pass(reader, there)
            await back
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            del self._serving[task]
            writer.close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while part := await reader.read(1 << 16):
            writer.write(part)
            await writer.drain()
    writer.close()


@pytest.fixture(scope="session")
def bucket() -> Iterator[s3_servers.Server]:
    if (why := s3_servers.missing().get("moto")) is not None:
        pytest.skip(why)
    with s3_servers.moto() as server:
        yield server


@pytest.fixture
async def way(bucket: s3_servers.Server) -> AsyncIterator[Way]:
    async with Way(int(bucket.endpoint.rpartition(":")[2])).open() as way:
        yield way


@pytest.fixture
async def on_s3(
    faulty_cluster: LocalCluster,
    zygote: Zygote,
    tmp_path: Path,
    bucket: s3_servers.Server,
    way: Way,
    request: pytest.FixtureRequest,
) -> AsyncIterator[Stand]:
    database = ""
    if not MISSING:
        database = request.getfixturevalue("postgres").url()
        await clear(database)
    settings = {
        "storage.root": f"s3://{s3_servers.BUCKET}/{tmp_path.name}",
        "storage.s3_endpoint": f"http://127.0.0.1:{way.port}",
        "storage.s3_access_key": s3_servers.KEY,
        "storage.s3_secret_key": s3_servers.SECRET,
        "pods.store_secret": "store",
    }
    keys = {"FLYTE_AWS_ACCESS_KEY_ID": s3_servers.KEY, "FLYTE_AWS_SECRET_ACCESS_KEY": s3_servers.SECRET}
    metadata = {"name": "store", "namespace": faulty_cluster.namespace}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": keys}
    with contextlib.suppress(Exists):
        faulty_cluster.do(lambda: faulty_cluster.kube.create(SECRETS, secret))
    async with standing(faulty_cluster, zygote, tmp_path, database=database, settings=settings, s3=bucket.endpoint) as stand:
        yield stand


@pytest.mark.parametrize("fault", [{"failing": True}, {"cut": True}, {"slow": 0.3}], ids=["503", "cut", "slow"])
async def test_an_object_store_in_trouble_is_waited_for(on_s3: Stand, way: Way, fault: dict[str, float]) -> None:
    """Logs and outputs of bodies that ended are read and kept when it is well again, and nothing counts as failed for it."""
    server = await on_s3.replica()
    runs = [await on_s3.run(server) for _ in range(2)]
    bodies = [await on_s3.bodies.comes(run) for run in runs]
    way.change(**fault)  # type: ignore[arg-type]  # its own names
    for body in bodies:
        body.end()
    if not way.slow:
        async with asyncio.timeout(20):
            await way.refused.wait()
        way.change()
    for run in runs:
        await on_s3.succeeds(server, run)
        assert await server.log(run, "a0") == []
