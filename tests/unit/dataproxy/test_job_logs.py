"""The log of a job: page by page while it runs, from the store when it has ended, and not confused with a process's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path

import pytest
from flyteidl2.connector import connector_pb2
from flyteidl2.workflow import run_definition_pb2

from flyte_unified.core.clock import SECOND, Micros, SystemClock
from flyte_unified.core.errors import FlyteUnifiedError, Unavailable
from flyte_unified.core.ids import ActionKey
from flyte_unified.core.phases import Phase
from flyte_unified.dataproxy.job_logs import EitherLines, JobLines
from flyte_unified.dataproxy.logs import Line
from flyte_unified.executor.reconcile import user_error
from flyte_unified.launchers.connectors import store as sql
from flyte_unified.launchers.connectors.job import Kept
from flyte_unified.launchers.connectors.logs import Pages
from flyte_unified.launchers.kept_logs import NOTICE, address
from flyte_unified.ledger.api import Failure, Move, Retry
from flyte_unified.net.connectors import ConnectorClient
from tests.unit.executor.world import ROOT, World, world_in
from tests.unit.launchers.farm import WORK

pytestmark = pytest.mark.virtual_time

_AT = Micros(1_700_000_000 * SECOND)
JOB = Kept(id=WORK, connector="c:1", request=connector_pb2.GetTaskRequest(resource_meta=b"7"), outputs=())


class Teller(ConnectorClient):
    """``pages`` by token: each a list of lines, and of tokens as headers (``>2``)."""

    def __init__(self, pages: dict[str, list[str]]) -> None:
        super().__init__(timeout=1.0)
        self.pages = pages
        self.asked: list[str] = []
        self.troubles: list[FlyteUnifiedError] = []

    async def logs(
        self, address: str, request: connector_pb2.GetTaskLogsRequest
    ) -> AsyncGenerator[connector_pb2.GetTaskLogsResponse]:
        self.asked.append(request.token)
        if self.troubles:
            raise self.troubles.pop(0)
        for entry in list(self.pages[request.token]):
            await asyncio.sleep(0)
            part = connector_pb2.GetTaskLogsResponse()
            if entry.startswith(">"):
                part.header.token = entry[1:]
            else:
                part.body.lines.add(message=entry)
            yield part


async def read(pages: Pages) -> list[str]:
    async with aclosing(pages.news()) as news:
        return [line.text async for lines in news for line in lines]


@pytest.mark.parametrize(
    ("pages", "asked"),
    [
        ({"": ["a", "b", "c", "d"]}, ["", ""]),
        ({"": ["a", "b", ">1"], "1": ["c", "d"]}, ["", "1", "1"]),
        ({"": ["a", "b", ">1"], "1": ["c", "d", ">"]}, ["", "1", "1"]),
        ({"": ["a", "b", ">1"], "1": ["c", "d", ">1"]}, ["", "1", "1"]),
        ({"": ["a", "b", ">1", "c", "d", ">"], "1": ["c", "d"]}, ["", "1"]),
        ({"": [">1"], "1": [">2"], "2": ["a", "b", "c", "d"]}, ["", "1", "2", "2"]),
    ],
)
async def test_every_line_of_every_page_once(pages: dict[str, list[str]], asked: list[str]) -> None:
    """However the connector divides them; what comes later comes later."""
    teller = Teller(pages)
    reader = Pages(teller, JOB, clock=SystemClock())
    assert await read(reader) == ["a", "b", "c", "d"]
    assert await read(reader) == []
    assert teller.asked == asked
    last = teller.asked[-1]
    teller.pages[last] = [entry for entry in teller.pages[last] if not entry.startswith(">")] + ["e"]
    assert await read(reader) == ["e"]


async def test_a_connector_that_always_has_another_page_is_left() -> None:
    """After some empty ones."""
    teller = Teller({str(number or ""): [f">{number + 1}"] for number in range(100)})
    reader = Pages(teller, JOB, clock=SystemClock())
    assert await read(reader) == []
    assert len(teller.asked) == 10


async def test_older_connectors_tell_plain_text() -> None:
    """Which has no times of its own."""

    class Old(ConnectorClient):
        async def logs(
            self, address: str, request: connector_pb2.GetTaskLogsRequest
        ) -> AsyncGenerator[connector_pb2.GetTaskLogsResponse]:
            yield connector_pb2.GetTaskLogsResponse(body={"results": ["a", "b\nc\n"]})

    assert await read(Pages(Old(timeout=1.0), JOB, clock=SystemClock())) == ["a", "b", "c"]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with world_in(tmp_path) as world:
        yield world


def lines_of(world: World, teller: Teller) -> JobLines:
    return JobLines(
        client=teller, database=world.database, store=world.store, clock=world.clock, base=f"{world.base}/_logs", poll=4.0
    )


async def follow(lines: JobLines | EitherLines, over: asyncio.Event, told: list[Line], key: ActionKey = ROOT) -> None:
    async with aclosing(lines.follow(key, 1, over)) as batches:
        async for batch in batches:
            told += batch


async def test_a_log_is_followed_into_the_store(world: World) -> None:
    """Lines come as they are written; the last ones, and why there are no more, from what was kept."""
    teller, over, told = Teller({"": ["a"]}), asyncio.Event(), list[Line]()
    await world.database.write(partial(sql.add, JOB))
    following = asyncio.create_task(follow(lines_of(world, teller), over, told))
    await asyncio.sleep(10)
    teller.troubles = [Unavailable("gone")]
    teller.pages[""].append("b")
    await asyncio.sleep(10)
    assert [line.text for line in told] == ["a\n", "b\n"]
    kept = [f"2023-11-14T22:13:20.000000Z {text}" for text in ("a", "b", "c", f"{NOTICE}that was all")]
    await world.store.put(address(f"{world.base}/_logs", WORK), "".join(f"{line}\n" for line in kept).encode())
    over.set()
    await following
    assert [line.text for line in told] == ["a\n", "b\n", "c\n", f"{NOTICE}that was all\n"]
    assert [line.system for line in told] == [False, False, False, True]


async def test_a_log_that_was_never_kept_ends_with_its_attempt(world: World) -> None:
    """Nobody waits for what won't come."""
    over, told = asyncio.Event(), list[Line]()
    following = asyncio.create_task(follow(lines_of(world, Teller({"": []})), over, told))
    await asyncio.sleep(10)
    assert not following.done()
    over.set()
    await following
    assert told == []


class Fixed:
    def __init__(self, text: str) -> None:
        self.text = text

    async def follow(self, key: ActionKey, attempt: int, over: asyncio.Event) -> AsyncGenerator[Sequence[Line]]:
        yield [Line(_AT, self.text)]


async def told_by(world: World, over: asyncio.Event) -> str:
    told: list[Line] = []
    await follow(EitherLines(ledger=world.ledger, jobs=Fixed("job"), others=Fixed("process")), over, told)
    return told[0].text


async def test_an_attempts_record_says_whose_log_it_is(world: World) -> None:
    """Once it has begun; a later attempt may be something else."""
    await world.run()
    over = asyncio.Event()
    following = asyncio.create_task(told_by(world, over))
    await asyncio.sleep(1)
    assert not following.done()
    record = run_definition_pb2.ActionAttempt()
    record.log_context.connector.endpoint = "c:1"
    await world.ledger.move(ROOT, Move(to=Phase.WAITING_FOR_RESOURCES, attempt=1, details=record))
    assert await following == "job"
    await world.ledger.move(ROOT, Retry(attempt=1, error=user_error("E", "no"), failure=Failure.USER))
    assert await told_by(world, over) == "job"


async def test_a_process_has_its_own_log(world: World) -> None:
    """From when it runs."""
    await world.run()
    over = asyncio.Event()
    following = asyncio.create_task(told_by(world, over))
    await asyncio.sleep(1)
    await world.ledger.move(ROOT, Move(to=Phase.RUNNING, attempt=1))
    assert await following == "process"


async def test_an_attempt_that_never_began_has_no_job(world: World) -> None:
    """Its stream ends with it."""
    await world.run()
    over = asyncio.Event()
    following = asyncio.create_task(told_by(world, over))
    await asyncio.sleep(1)
    over.set()
    assert await following == "process"
