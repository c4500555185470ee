"""Every database: many callers, few commits, each caller answered for its own work only, reads on snapshots."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from sqlalchemy import func, insert, select

from flyte_unified.core.errors import FailedPrecondition, Internal, ResourceExhausted, Unavailable
from flyte_unified.db.api import Database, Work
from flyte_unified.db.tables import projects
from tests.contract.database.conftest import Gate


def _row(name: str) -> dict[str, Any]:
    return {"id": name, "name": name, "created_at": 1, "updated_at": 1}


def add(name: str) -> Work[str]:
    yield insert(projects), _row(name)
    return name


def names() -> Work[list[str]]:
    rows = (yield select(projects.c.id).order_by(projects.c.id)).all()
    return [row.id for row in rows]


async def _hold(database: Database, gate: Gate) -> asyncio.Task[None]:
    held = asyncio.create_task(database.write(gate.work))
    await gate.reached()
    return held


async def _together(database: Database, gate: Gate, *works: Any) -> list[Any]:
    """The outcomes of writes that are sure to be in one batch."""
    held = await _hold(database, gate)
    tasks = [asyncio.create_task(database.write(work)) for work in works]
    await asyncio.sleep(0)
    await gate.open()
    await held
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_bad_statement_hurts_its_own_caller_only(database: Database, gate: Gate) -> None:
    """One caller of a batch breaks a constraint: it is told so, what it had written is undone, the others commit."""

    def bad() -> Work[None]:
        yield insert(projects), _row("before")
        yield insert(projects), {**_row("bad"), "name": None}

    first, failed, last = await _together(database, gate, lambda: add("a"), bad, lambda: add("z"))

    assert (first, last) == ("a", "z")
    assert isinstance(failed, Internal) and "projects" in failed.message
    assert await database.read(names) == ["a", "z"]


@pytest.mark.parametrize("written", [False, True])
async def test_a_refusal_undoes_what_its_work_had_written(database: Database, gate: Gate, *, written: bool) -> None:
    """An error raised on purpose reaches its caller as it is; nothing of its work stays, all of the others' does."""

    def refuse() -> Work[None]:
        if written:
            yield insert(projects), _row("half")
        else:
            yield select(projects.c.id)
        raise FailedPrecondition("not now")

    first, failed, last = await _together(database, gate, lambda: add("a"), refuse, lambda: add("z"))

    assert (first, last) == ("a", "z")
    assert isinstance(failed, FailedPrecondition) and failed.message == "not now"
    assert await database.read(names) == ["a", "z"]


async def test_a_fault_in_work_is_its_callers(database: Database, gate: Gate) -> None:
    """A bug in one piece of work is raised where it was asked for, and the writer goes on."""

    def fault() -> Work[None]:
        yield insert(projects), _row("half")
        raise KeyError("bug")

    failed, fine = await _together(database, gate, fault, lambda: add("a"))

    assert isinstance(failed, KeyError)
    assert fine == "a"
    assert await database.read(names) == ["a"]


async def test_what_follows_a_commit_is_told_in_order_also_of_cancelled_callers(database: Database, gate: Gate) -> None:
    """``then`` is called for every commit, in their order: watchers hear of a write whose caller went away."""
    told: list[str] = []
    held = await _hold(database, gate)
    tasks = [asyncio.create_task(database.write(partial(add, n), then=told.append)) for n in ("a", "b", "c")]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await gate.open()
    await held
    results = await asyncio.gather(*tasks, return_exceptions=True)

    assert isinstance(results[1], asyncio.CancelledError)
    assert told == ["a", "b", "c"] == await database.read(names)


async def test_a_fault_after_the_commit_is_reported_and_harms_nobody(database: Database, gate: Gate) -> None:
    """When ``then`` raises, the write stands: its caller and the others are answered, the loop's handler hears of it."""
    loop = asyncio.get_running_loop()
    reported: list[dict[str, Any]] = []
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: reported.append(context))
    held = await _hold(database, gate)

    def fault(_: str) -> None:
        raise ZeroDivisionError

    one = asyncio.create_task(database.write(lambda: add("a"), then=fault))
    other = asyncio.create_task(database.write(lambda: add("b")))
    await asyncio.sleep(0)
    await gate.open()
    await held

    assert list(await asyncio.gather(one, other)) == ["a", "b"]
    loop.set_exception_handler(before)
    assert [type(each["exception"]) for each in reported] == [ZeroDivisionError]


async def test_a_full_queue_refuses_at_once(database: Database, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit is refused with the setting's name, and room that is made is used again."""
    monkeypatch.setattr(database, "_queue_limit", 2)
    held = await _hold(database, gate)
    waiting = asyncio.create_task(database.write(lambda: add("a")))
    await asyncio.sleep(0)
    with pytest.raises(ResourceExhausted, match=r"database\.queue_limit"):
        await database.write(lambda: add("b"))
    await gate.open()
    await held

    assert await waiting == "a"
    assert await database.write(lambda: add("c")) == "c"


async def test_reads_see_what_is_committed_and_nothing_else(database: Database, gate: Gate) -> None:
    """A read beside a transaction sees the state before it, whole; one after the answer sees the write."""

    def slow() -> Work[None]:
        yield insert(projects), _row("a")
        yield from gate.work()
        yield insert(projects), _row("b")

    writing = asyncio.create_task(database.write(slow))
    await gate.reached()
    assert await database.read(names) == []
    await gate.open()
    await writing
    assert await database.read(names) == ["a", "b"]


async def test_a_read_is_one_snapshot(database: Database, gate: Gate) -> None:
    """Two statements of one read agree, though a commit falls between them."""

    def twice() -> Work[tuple[int, int]]:
        count = select(func.count()).select_from(projects)
        first = (yield count).scalar_one()
        yield from gate.work()
        return first, (yield count).scalar_one()

    reading = asyncio.create_task(database.read(twice))
    await gate.reached()
    await database.write(lambda: add("a"))
    await gate.open()

    assert await reading == (0, 0)


async def test_a_read_cannot_write(database: Database) -> None:
    """Work that only reads is held to it by the database."""
    with pytest.raises(Exception, match=r"read-?only"):
        await database.read(lambda: add("a"))
    assert await database.read(names) == []


async def test_a_cancelled_read_harms_nobody(database: Database, gate: Gate) -> None:
    """Its caller goes away in the middle of a statement; the next reads are answered."""
    for _ in range(5):
        reading = asyncio.create_task(database.read(gate.work))
        await gate.reached()
        reading.cancel()
        assert isinstance((await asyncio.gather(reading, return_exceptions=True))[0], asyncio.CancelledError)
    await gate.open()
    assert await database.read(names) == []


async def test_a_stop_finishes_what_waits_and_takes_nothing_more(database: Database, gate: Gate) -> None:
    """Writes that were accepted are answered; later ones, and reads, are told that the database is closed."""
    held = await _hold(database, gate)
    waiting = [asyncio.create_task(database.write(partial(add, f"p{n}"))) for n in range(3)]
    await asyncio.sleep(0)
    stopping = asyncio.create_task(database.stop())
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await database.write(lambda: add("late"))
    await gate.open()
    await stopping

    assert await asyncio.gather(held, *waiting) == [None, "p0", "p1", "p2"]
    with pytest.raises(Unavailable):
        await database.read(names)
    await database.stop()  # again: nothing to do
