"""SQLite's own: what its disk holds. The rest is tests/contract/database."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, func, insert, select, text

from flyte_unified.core.errors import ResourceExhausted
from flyte_unified.db.api import Work
from flyte_unified.db.sqlite import SQLiteDatabase
from flyte_unified.db.tables import projects


def _row(name: str) -> dict[str, Any]:
    return {"id": name, "name": name, "created_at": 1, "updated_at": 1}


def add(name: str) -> Work[str]:
    yield insert(projects), _row(name)
    return name


def names() -> Work[list[str]]:
    rows = (yield select(projects.c.id).order_by(projects.c.id)).all()
    return [row.id for row in rows]


class Gate:
    """Work that holds the writer until it is opened, so that what comes meanwhile shares the next batch."""

    def __init__(self) -> None:
        self._entered, self._opened = threading.Event(), threading.Event()

    def work(self) -> Work[None]:
        yield select(func.count()).select_from(projects)
        self._entered.set()
        assert self._opened.wait(5)

    async def close(self, database: SQLiteDatabase) -> asyncio.Task[None]:
        held = asyncio.create_task(database.write(self.work))
        assert await asyncio.to_thread(self._entered.wait, 5)
        return held

    def open(self) -> None:
        self._opened.set()


async def _together(database: SQLiteDatabase, *works: Any) -> list[Any]:
    """The outcomes of writes that are sure to be in one batch."""
    gate = Gate()
    held = await gate.close(database)
    tasks = [asyncio.create_task(database.write(work)) for work in works]
    await asyncio.sleep(0)
    gate.open()
    await held
    return await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def _statements() -> Iterator[list[str]]:
    """Every statement that any connection runs meanwhile."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


@pytest.mark.only_sqlite
async def test_writes_that_wait_share_one_commit(database: SQLiteDatabase) -> None:
    """A hundred callers cost one commit beside the one they waited for, and each gets its own result."""
    with _statements() as seen:
        results = await _together(database, *(partial(add, f"p{n}") for n in range(100)))

    assert results == [f"p{n}" for n in range(100)]
    assert seen.count("COMMIT") == 2
    assert len(await database.read(names)) == 100


@pytest.mark.only_sqlite
async def test_a_full_disk_is_told_as_such(database: SQLiteDatabase) -> None:
    """What does not fit on the disk is refused, what was there before stays, and smaller writes go on."""

    def limit(pages: int) -> Work[None]:
        yield text(f"PRAGMA max_page_count = {pages}")

    await database.write(lambda: add("a"))
    await database.write(lambda: limit(60))
    with pytest.raises(ResourceExhausted, match="full"):
        await database.write(lambda: add("much" * 100_000))
    await database.write(lambda: limit(1_000_000))

    assert await database.write(lambda: add("b")) == "b"
    assert await database.read(names) == ["a", "b"]


async def test_an_answered_write_survives_a_power_cut(tmp_path: Path) -> None:
    """The files as they are at the moment of the answer, without any goodbye, hold the write; the disk was synced for it."""
    database = SQLiteDatabase(tmp_path / "flyte.db")
    await database.start()

    def syncing() -> Work[int]:
        return int((yield text("PRAGMA synchronous")).scalar_one())

    await database.write(lambda: add("kept"))
    found = tmp_path / "after"
    found.mkdir()
    for name in ("flyte.db", "flyte.db-wal"):
        shutil.copy(tmp_path / name, found / name)
    full = 2
    assert await database.write(syncing) == full
    await database.stop()

    reopened = SQLiteDatabase(found / "flyte.db")
    await reopened.start()
    assert await reopened.read(names) == ["kept"]
    await reopened.stop()
