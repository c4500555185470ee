"""A Postgres that stops, crashes or cannot be reached: what was accepted stays, what was refused is not there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from typing import Literal
from urllib.parse import urlsplit

import pytest
from sqlalchemy import insert, select

from flyte_unified.core.clock import SystemClock
from flyte_unified.core.errors import FlyteUnifiedError, Unavailable
from flyte_unified.core.phases import Phase
from flyte_unified.db import postgres as adapter
from flyte_unified.db import postgres_writer as writer
from flyte_unified.db.api import Work
from flyte_unified.db.postgres import PostgresDatabase
from flyte_unified.db.tables import projects
from flyte_unified.ledger.api import EXECUTOR, Everything, Ledger, Move
from tests.contract.database.replicas import Replica
from tests.databases import clear
from tests.postgres import PostgresServer
from tests.unit.ledger.births import ROOT, RUN, action, run, spec

PHASES = (Phase.INITIALIZING, Phase.RUNNING, Phase.SUCCEEDED)


def add(name: str) -> Work[str]:
    yield insert(projects), {"id": name, "name": name, "created_at": 1, "updated_at": 1}
    return name


def names() -> Work[set[str]]:
    return {row.id for row in (yield select(projects.c.id)).all()}


async def _until(database: PostgresDatabase, name: str) -> None:
    """Writes ``name``, refused for however long."""
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(Unavailable):
                await database.write(partial(add, name))
                return


@pytest.mark.parametrize("end", ["fast", "immediate", "kill"])
async def test_a_restart_loses_nothing_that_was_accepted(
    pair: tuple[Replica, Replica], postgres: PostgresServer, end: Literal["fast", "immediate", "kill"]
) -> None:
    """Under load, on two replicas: every answered write is there and was told, every refused one is not."""
    one, other = pair
    await one.ledger.create_run(run())
    accepted: set[str] = set()
    refused: set[str] = set()
    going = True

    async def load(replica: Replica, name: str) -> None:
        number = 0
        while going:
            number += 1
            try:
                await replica.ledger.enqueue(action(f"{name}-{number}"), spec())
                accepted.add(f"{name}-{number}")
            except FlyteUnifiedError as error:
                assert isinstance(error, Unavailable)
                refused.add(f"{name}-{number}")

    loads = [
        asyncio.create_task(load(each, f"{side}{index}")) for side, each in zip("xy", pair, strict=True) for index in range(4)
    ]
    with one.ledger.changes.subscribe(Everything()) as told:
        while len(accepted) < 50:
            await told.next()
        await asyncio.to_thread(postgres.kill if end == "kill" else partial(postgres.stop, end))
        before = len(accepted)
        await asyncio.to_thread(postgres.start)
        async with asyncio.timeout(30):
            while len(accepted) < before + 50:
                await told.next()
    going = False
    await asyncio.gather(*loads)

    stored = {each.key.name for each in await other.ledger.family(ROOT)} - {"a0"}
    assert stored == accepted
    assert not stored & refused
    for replica, side in ((one, "y"), (other, "x")):
        theirs = {name for name in accepted if name.startswith(side)}
        with replica.ledger.changes.subscribe(Everything()) as told:
            async with asyncio.timeout(20):
                while not theirs <= {each.key.name for each in replica.heard}:
                    await told.next()


@pytest.mark.parametrize("end", ["fast", "kill"])
async def test_moves_that_are_made_again_are_made_once(
    pair: tuple[Replica, Replica], postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, end: Literal["fast", "kill"]
) -> None:
    """As the executor does it: what is refused while the server is away is tried until it is back.

    Every action went through each phase once, whether its last answer was lost or not, and another replica was told its end.
    """
    for module in (adapter, writer):
        monkeypatch.setattr(module, "PATIENCE", 0.1)
    one, other = pair
    await one.ledger.create_run(run())
    await one.ledger.take_lead(EXECUTOR, 1, "one")
    refused = 0
    away = asyncio.Event()

    async def life(name: str) -> None:
        nonlocal refused
        known, _ = await one.ledger.enqueue(action(name), spec())
        for phase in PHASES:
            if phase is Phase.SUCCEEDED:
                await away.wait()
            while True:
                try:
                    changed = await one.ledger.move(known.key, Move(to=phase), epoch=1, known=known)
                except Unavailable:
                    refused += 1
                    continue
                assert [each.phase for each in changed] == [phase]
                known = changed[0]
                break

    lives = [asyncio.create_task(life(f"n{number}")) for number in range(30)]
    with other.ledger.changes.subscribe(Everything()) as told:
        while len({each.key for each in other.heard if each.phase is Phase.RUNNING}) < len(lives) // 2:  # of changes, the last
            await told.next()
        await asyncio.to_thread(postgres.kill if end == "kill" else partial(postgres.stop, end))
        away.set()
        async with asyncio.timeout(30):
            while not refused:  # noqa: ASYNC110  # nobody is told of refusals
                await asyncio.sleep(0.01)
            await asyncio.to_thread(postgres.start)
            await asyncio.gather(*lives)
            while len({each.key for each in other.heard if each.terminal}) < len(lives):
                await told.next()
    for number in range(len(lives)):
        ended = await other.ledger.action(RUN.action(f"n{number}"))
        went = [Phase(each.phase) for each in ended.latest().phase_transitions]
        assert (ended.version, went) == (1 + len(PHASES), [Phase.QUEUED, *PHASES])


async def test_who_waits_too_long_is_refused_and_nothing_is_written(
    pair: tuple[Replica, Replica], postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the server is away writes and reads are Unavailable after a few seconds; when it is back, both are answered."""
    database = pair[0].database
    await database.write(lambda: add("before"))
    for module in (adapter, writer):
        monkeypatch.setattr(module, "PATIENCE", 0.2)
    await asyncio.to_thread(postgres.stop)
    try:
        for number in range(2):
            calls = [database.write(partial(add, f"lost{number}{index}")) for index in range(10)]
            told = await asyncio.gather(*calls, database.read(names), return_exceptions=True)
            assert {type(each) for each in told} == {Unavailable}
            assert "away" in str(told[0]) and "away" in str(told[-1])
    finally:
        await asyncio.to_thread(postgres.start)
    await _until(database, "after")
    assert await database.read(names) == {"before", "after"}


async def test_a_short_absence_is_not_noticed(pair: tuple[Replica, Replica], postgres: PostgresServer) -> None:
    """Calls made while the server restarts wait and succeed."""
    database = pair[0].database
    await database.write(lambda: add("before"))
    await asyncio.to_thread(postgres.stop)
    writing, reading = asyncio.create_task(database.write(lambda: add("meanwhile"))), asyncio.create_task(database.read(names))
    await asyncio.to_thread(postgres.start)
    assert await writing == "meanwhile"
    assert "before" in await reading


class Wire:
    """A way to the server that breaks at a COMMIT: before it is sent, or before its answer comes back."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self.breaks: Literal["", "before", "after"] = ""
        self.broken = 0
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        return self._target._replace(netloc=f"{self._target.username}@127.0.0.1:{port}").geturl()

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for each in self._writers:
            each.close()
        await self._server.wait_closed()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._target.hostname is not None
        server_reader, server_writer = await asyncio.open_connection(self._target.hostname, self._target.port)
        self._writers += [writer, server_writer]
        await asyncio.gather(
            self._pass(reader, server_writer, writer), self._pass(server_reader, writer, server_writer), return_exceptions=True
        )

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, other: asyncio.StreamWriter) -> None:
        while data := await source.read(1 << 16):
            breaks = self.breaks if b"COMMIT;" in data else ""
            if breaks:
                self.breaks = ""
                self.broken += 1
                other.close()
                if breaks == "before":
                    break
            target.write(data)
            await target.drain()
        target.close()


@pytest.fixture
async def wire(postgres: PostgresServer) -> AsyncIterator[tuple[Wire, PostgresDatabase]]:
    """A database behind a way that can break."""
    await clear(postgres.url())
    wire = Wire(postgres.url())
    database = PostgresDatabase(await wire.start())
    await database.start()
    yield wire, database
    await database.stop()
    await wire.stop()


@pytest.mark.parametrize("breaks", ["before", "after"])
async def test_a_commit_of_unknown_outcome_is_looked_up(
    wire: tuple[Wire, PostgresDatabase], breaks: Literal["before", "after"]
) -> None:
    """The connection breaks during COMMIT. If it had happened the callers are answered; if not it is done again: once each."""
    way, database = wire
    await database.write(lambda: add("first"))
    way.breaks = breaks
    told: list[str] = []
    calls = [database.write(partial(add, name), then=told.append) for name in ("a", "b", "c")]

    assert await asyncio.gather(*calls) == ["a", "b", "c"] == told
    assert way.broken == 1
    assert await database.read(names) == {"first", "a", "b", "c"}


@pytest.mark.parametrize("breaks", ["before", "after"])
async def test_a_move_is_told_once_though_its_commit_was_unsure(
    wire: tuple[Wire, PostgresDatabase], breaks: Literal["before", "after"]
) -> None:
    """Watchers hear of a change whose COMMIT was never answered, one time; also of a leader's, who knew the row."""
    way, database = wire
    ledger = Ledger(database=database, clock=SystemClock())
    _, known, _ = await ledger.create_run(run())
    await ledger.take_lead(EXECUTOR, 1, "one")
    with ledger.changes.subscribe(Everything()) as told:
        way.breaks = breaks
        (moved,) = await ledger.move(ROOT, Move(to=Phase.RUNNING), epoch=1, known=known)
        assert told.take() == [moved]
    assert (await ledger.action(ROOT)).version == moved.version == 2
