"""The whole server on Postgres: a run goes its way, another server of the cluster shows it, and neither keeps it to itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from flyteidl2.workflow import run_service_pb2
from structlog.testing import capture_logs

from flyte_unified.core.ids import RunKey
from flyte_unified.core.phases import Phase
from flyte_unified.db import postgres_writer
from flyte_unified.manager import Manager
from flyte_unified.rpc.sockets import listen
from flyte_unified.settings import load
from tests.benchmarks.api import create_run, sleep_inputs, upload
from tests.benchmarks.harness import RawClient
from tests.databases import clear
from tests.postgres import PostgresServer

RUN = RunKey("flytesnacks", "development", "r1")


@asynccontextmanager
async def _server(directory: Path, url: str) -> AsyncIterator[RawClient]:
    values = {"data.dir": str(directory), "server.port": "0", "database.url": url}
    manager = Manager(load(flags=values), sockets=listen("localhost", 0))
    await manager.start()
    try:
        yield RawClient(urlsplit(manager.address).port or 0)
    finally:
        await manager.stop()


async def _phase(client: RawClient) -> Phase:
    message = run_service_pb2.GetRunDetailsRequest(run_id=RUN.idl())
    answer = await client.call("/flyteidl2.workflow.RunService/GetRunDetails", message, run_service_pb2.GetRunDetailsResponse)
    assert isinstance(answer, run_service_pb2.GetRunDetailsResponse)
    return Phase(answer.details.action.status.phase)


async def _becomes(client: RawClient, phase: Phase) -> None:
    async with asyncio.timeout(20):
        while await _phase(client) is not phase:  # noqa: ASYNC110  # each turn waits for the server
            await asyncio.sleep(0)


async def test_a_run_ends_and_is_there_for_the_next_server(postgres: PostgresServer, tmp_path: Path) -> None:
    """Created and carried out by one server, told by the one that comes after it, whose data directory is empty."""
    await clear(postgres.url())
    async with _server(tmp_path / "one", postgres.url()) as client:
        inputs = await upload(client, sleep_inputs(timedelta(0)))
        await client.rate(1, 1, lambda _: create_run(RUN.run, inputs))
        await _becomes(client, Phase.SUCCEEDED)
    async with _server(tmp_path / "other", postgres.url()) as client:
        assert await _phase(client) is Phase.SUCCEEDED
    assert not list(tmp_path.glob("*/flyte.db"))


async def test_a_run_outlives_an_absence_of_its_database(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What happens to it while the database is away, longer than any call waits, is kept and written down afterwards."""
    monkeypatch.setattr(postgres_writer, "PATIENCE", 0.1)
    await clear(postgres.url())
    async with _server(tmp_path, postgres.url()) as client:
        inputs = await upload(client, sleep_inputs(timedelta(seconds=0.5)))
        await client.rate(1, 1, lambda _: create_run(RUN.run, inputs))
        await _becomes(client, Phase.RUNNING)
        with capture_logs() as told:
            await asyncio.to_thread(postgres.stop)
            async with asyncio.timeout(20):
                while not any(each.get("log_level") == "error" for each in told):  # noqa: ASYNC110  # its end is not written
                    await asyncio.sleep(0.01)
            await asyncio.to_thread(postgres.start)
        await _becomes(client, Phase.SUCCEEDED)


@pytest.mark.parametrize("url", ["mysql://x", "flyte.db"])
def test_an_address_of_something_else_is_refused(url: str) -> None:
    """Named by the setting, with what is expected, and without what may be a password."""
    with pytest.raises(Exception, match=r"database\.url.*postgresql://") as told:
        load(flags={"database.url": url})
    assert url not in str(told.value)
