"""``flyte-unified db backup`` and ``restore`` on Postgres, by Postgres' own programs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import pytest

from flyte_unified.cli import main
from flyte_unified.db.postgres import PostgresDatabase
from flyte_unified.operations.store import revision
from tests.postgres import PostgresServer


async def ask(url: str, statement: str) -> list[tuple[str, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(statement)]
    finally:
        await connection.close()


def test_a_dump_brings_all_back(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tables are again what they were; not while a server is connected, nor unasked where there are any."""
    url, file = postgres.url("dumped"), str(tmp_path / "flyte.tar")
    asyncio.run(ask(postgres.url(), "CREATE DATABASE dumped"))
    monkeypatch.setenv("FLYTE_UNIFIED_DATABASE_URL", url)
    monkeypatch.setenv("FLYTE_UNIFIED_DATA_DIR", str(tmp_path / "data"))

    assert [main(["db", "upgrade"]), main(["db", "backup", file])] == [0, 0]
    before = asyncio.run(ask(url, "SELECT * FROM alembic_version"))
    asyncio.run(ask(url, "UPDATE alembic_version SET version_num = 'other'"))
    assert main(["db", "restore", file]) == 1
    assert "--replace gives them up" in capsys.readouterr().err

    async def while_a_server_runs() -> int:
        database = PostgresDatabase(url)
        await database.start()
        try:
            assert await database.read(revision) == "other"
            return await asyncio.to_thread(main, ["db", "restore", file, "--replace"])
        finally:
            await database.stop()

    assert asyncio.run(while_a_server_runs()) == 1
    assert "servers are connected" in capsys.readouterr().err
    assert main(["db", "restore", file, "--replace"]) == 0
    assert asyncio.run(ask(url, "SELECT * FROM alembic_version")) == before
    asyncio.run(ask(postgres.url(), "DROP DATABASE dumped"))
