"""The writer: many callers, few commits, and each caller answered for its own work only."""

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

from flyte_unified.core.errors import FailedPrecondition, Internal, ResourceExhausted, Unavailable
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


async def test_writes_that_wait_share_one_commit(database: SQLiteDatabase) -> None:
    """A hundred callers cost one commit beside the one they waited for, and each gets its own result."""
    with _statements() as seen:
        results = await _together(database, *(partial(add, f"p{n}") for n in range(100)))

    assert results == [f"p{n}" for n in range(100)]
    assert seen.count("COMMIT") == 2
    assert len(await database.read(names)) == 100


async def test_a_bad_statement_hurts_its_own_caller_only(database: SQLiteDatabase) -> None:
    """One caller of a batch breaks a constraint: it is told so, what it had written is undone, the others commit."""

    def bad() -> Work[None]:
        yield insert(projects), _row("before")
        yield insert(projects), {**_row("bad"), "name": None}

    first, failed, last = await _together(database, lambda: add("a"), bad, lambda: add("z"))

    assert (first, last) == ("a", "z")
    assert isinstance(failed, Internal) and "projects.name" in failed.message
    assert await database.read(names) == ["a", "z"]


@pytest.mark.parametrize("written", [False, True])
async def test_a_refusal_undoes_what_its_work_had_written(database: SQLiteDatabase, *, written: bool) -> None:
    """An error raised on purpose reaches its caller as it is; nothing of its work stays, all of the others' does."""

    def refuse() -> Work[None]:
        if written:
            yield insert(projects), _row("half")
        else:
            yield select(projects.c.id)
        raise FailedPrecondition("not now")

    first, failed, last = await _together(database, lambda: add("a"), refuse, lambda: add("z"))

    assert (first, last) == ("a", "z")
    assert isinstance(failed, FailedPrecondition) and failed.message == "not now"
    assert await database.read(names) == ["a", "z"]


async def test_a_fault_in_work_is_its_callers(database: SQLiteDatabase) -> None:
    """A bug in one piece of work is raised where it was asked for, and the writer goes on."""

    def fault() -> Work[None]:
        yield insert(projects), _row("half")
        raise KeyError("bug")

    failed, fine = await _together(database, fault, lambda: add("a"))

    assert isinstance(failed, KeyError)
    assert fine == "a"
    assert await database.read(names) == ["a"]


async def test_what_follows_a_commit_is_told_in_order_also_of_cancelled_callers(database: SQLiteDatabase) -> None:
    """``then`` is called for every commit, in their order: watchers hear of a write whose caller went away."""
    gate = Gate()
    told: list[str] = []
    held = await gate.close(database)
    tasks = [asyncio.create_task(database.write(partial(add, n), then=told.append)) for n in ("a", "b", "c")]
    await asyncio.sleep(0)
    tasks[1].cancel()
    gate.open()
    await held
    results = await asyncio.gather(*tasks, return_exceptions=True)

    assert isinstance(results[1], asyncio.CancelledError)
    assert told == ["a", "b", "c"] == await database.read(names)


async def test_a_fault_after_the_commit_is_reported_and_harms_nobody(database: SQLiteDatabase, runner: asyncio.Runner) -> None:
    """When ``then`` raises, the write stands: its caller and the others are answered, the loop's handler hears of it."""
    loop = asyncio.get_running_loop()
    reported: list[dict[str, Any]] = []
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: reported.append(context))
    gate = Gate()
    held = await gate.close(database)

    def fault(_: str) -> None:
        raise ZeroDivisionError

    one = asyncio.create_task(database.write(lambda: add("a"), then=fault))
    other = asyncio.create_task(database.write(lambda: add("b")))
    await asyncio.sleep(0)
    gate.open()
    await held

    assert list(await asyncio.gather(one, other)) == ["a", "b"]
    loop.set_exception_handler(before)
    assert [type(each["exception"]) for each in reported] == [ZeroDivisionError]


async def test_a_full_queue_refuses_at_once(tmp_path: Path) -> None:
    """What does not fit is refused with the setting's name, and room that is made is used again."""
    database = SQLiteDatabase(tmp_path / "flyte.db", queue_limit=2)
    await database.start()
    gate = Gate()
    held = await gate.close(database)
    waiting = asyncio.create_task(database.write(lambda: add("a")))
    await asyncio.sleep(0)
    with pytest.raises(ResourceExhausted, match=r"database\.queue_limit"):
        await database.write(lambda: add("b"))
    gate.open()
    await held

    assert await waiting == "a"
    assert await database.write(lambda: add("c")) == "c"
    await database.stop()


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


async def test_reads_see_what_is_committed_and_nothing_else(database: SQLiteDatabase) -> None:
    """A read beside a transaction sees the state before it, whole; one after the answer sees the write."""
    written, go_on = threading.Event(), threading.Event()

    def slow() -> Work[None]:
        yield insert(projects), _row("a")
        written.set()
        assert go_on.wait(5)
        yield insert(projects), _row("b")

    writing = asyncio.create_task(database.write(slow))
    assert await asyncio.to_thread(written.wait, 5)
    assert await database.read(names) == []
    go_on.set()
    await writing
    assert await database.read(names) == ["a", "b"]


async def test_a_read_is_one_snapshot(database: SQLiteDatabase) -> None:
    """Two statements of one read agree, though a commit falls between them."""
    between, go_on = threading.Event(), threading.Event()

    def twice() -> Work[tuple[int, int]]:
        count = select(func.count()).select_from(projects)
        first = (yield count).scalar_one()
        between.set()
        assert go_on.wait(5)
        return first, (yield count).scalar_one()

    reading = asyncio.create_task(database.read(twice))
    assert await asyncio.to_thread(between.wait, 5)
    await database.write(lambda: add("a"))
    go_on.set()

    assert await reading == (0, 0)


async def test_a_read_cannot_write(database: SQLiteDatabase) -> None:
    """Work that only reads is held to it by the database."""
    with pytest.raises(Exception, match="readonly"):
        await database.read(lambda: add("a"))
    assert await database.read(names) == []


async def test_an_answered_write_survives_a_power_cut(database: SQLiteDatabase, tmp_path: Path) -> None:
    """The files as they are at the moment of the answer, without any goodbye, hold the write; the disk was synced for it."""

    def syncing() -> Work[int]:
        return int((yield text("PRAGMA synchronous")).scalar_one())

    await database.write(lambda: add("kept"))
    found = tmp_path / "after"
    found.mkdir()
    for name in ("flyte.db", "flyte.db-wal"):
        shutil.copy(tmp_path / name, found / name)
    full = 2
    assert await database.write(syncing) == full

    reopened = SQLiteDatabase(found / "flyte.db")
    await reopened.start()
    assert await reopened.read(names) == ["kept"]
    await reopened.stop()


async def test_a_stop_finishes_what_waits_and_takes_nothing_more(tmp_path: Path) -> None:
    """Writes that were accepted are answered; later ones, and reads, are told that the database is closed."""
    database = SQLiteDatabase(tmp_path / "flyte.db")
    await database.start()
    gate = Gate()
    held = await gate.close(database)
    waiting = [asyncio.create_task(database.write(partial(add, f"p{n}"))) for n in range(3)]
    await asyncio.sleep(0)
    stopping = asyncio.create_task(database.stop())
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await database.write(lambda: add("late"))
    gate.open()
    await stopping

    assert await asyncio.gather(held, *waiting) == [None, "p0", "p1", "p2"]
    with pytest.raises(Unavailable):
        await database.read(names)
    await database.stop()  # again: nothing to do
