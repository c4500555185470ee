"""Replicas on one server: each sees what the others commit, in order, once, and none undoes what another did."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from itertools import pairwise

import asyncpg
import pytest
from flyteidl2.project import project_service_pb2 as idl
from sqlalchemy import insert, select, text

from flyte_unified.core.clock import SystemClock
from flyte_unified.core.errors import Aborted, AlreadyExists, FailedPrecondition, InvalidArgument, NotLeader
from flyte_unified.core.ids import ActionKey
from flyte_unified.core.phases import Phase
from flyte_unified.db import feed
from flyte_unified.db import postgres_writer as adapter
from flyte_unified.db.api import Work
from flyte_unified.db.postgres import PostgresDatabase
from flyte_unified.db.postgres_client import CHANNEL
from flyte_unified.db.tables import projects
from flyte_unified.ledger import store
from flyte_unified.ledger.api import EXECUTOR, Action, Everything, Ledger, Move
from tests.contract.database.replicas import Replica
from tests.postgres import PostgresServer
from tests.unit.ledger.births import ROOT, RUN, action, run, spec

Pair = tuple[Replica, Replica]
CUT_FEEDS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query LIKE '%FROM changes%'
"""


@pytest.fixture
async def session(postgres: PostgresServer) -> AsyncIterator[asyncpg.Connection]:
    session = await asyncpg.connect(postgres.url())
    yield session
    await session.close()


async def _heard(replica: Replica, enough: Callable[[list[Action]], bool]) -> None:
    """Waits until the replica was told enough."""
    with replica.ledger.changes.subscribe(Everything()) as told:
        async with asyncio.timeout(20):
            while not enough(replica.heard):
                await told.next()


def _many(count: int) -> Callable[[list[Action]], bool]:
    return lambda heard: len(heard) >= count


def _ended(names: set[str]) -> Callable[[list[Action]], bool]:
    return lambda heard: names <= {each.key.name for each in heard if each.terminal}


async def _becomes(session: asyncpg.Connection, query: str, value: int) -> None:
    """Asks the server, which tells nobody of its locks and rows, until the answer is ``value``."""
    async with asyncio.timeout(20):
        while await session.fetchval(query) != value:  # noqa: ASYNC110  # each turn waits for the server
            await asyncio.sleep(0)


async def test_a_watch_sees_what_another_replica_writes(pair: Pair) -> None:
    """The family as it is, then children that another replica enqueues, moves and ends, each last state among it."""
    one, other = pair
    await one.ledger.create_run(run())
    seen: dict[str, Phase] = {}
    async with asyncio.timeout(20), aclosing(other.ledger.watch_family(ROOT)) as watch:
        assert (await anext(watch))[1]
        await one.ledger.enqueue(action("b"), spec())
        await one.ledger.move(RUN.action("b"), Move(to=Phase.RUNNING))
        await one.ledger.move(ROOT, Move(to=Phase.SUCCEEDED))
        while seen != {"a0": Phase.SUCCEEDED, "b": Phase.ABORTED}:
            seen |= {each.key.name: each.phase for each in (await anext(watch))[0]}


async def test_under_load_nothing_is_lost_and_nothing_told_twice(pair: Pair) -> None:
    """Two replicas write hundreds of actions at once: each is told the other's, never its own, no action backwards."""
    one, other = pair
    await one.ledger.create_run(run())

    async def work(replica: Replica, name: str) -> None:
        await replica.ledger.enqueue(action(name), spec())
        for phase in (Phase.RUNNING, Phase.SUCCEEDED):
            await replica.ledger.move(RUN.action(name), Move(to=phase))

    names = [f"n{number}" for number in range(200)]
    await asyncio.gather(*(work(one, f"{name}a") for name in names), *(work(other, f"{name}b") for name in names))
    for replica, suffix in ((one, "b"), (other, "a")):
        ends = {f"{name}{suffix}" for name in names}
        await _heard(replica, _ended(ends))
        assert not [each for each in replica.heard if each.key.name not in ends | {"a0"}]
        for name in ends:
            versions = [each.version for each in replica.heard if each.key.name == name]
            assert all(earlier <= later for earlier, later in pairwise(versions))


async def test_changes_are_read_in_the_order_of_commits(pair: Pair, session: asyncpg.Connection) -> None:
    """A number that was drawn earlier and commits later is not passed over: who comes after it waits for it."""
    one, other = pair
    await one.ledger.create_run(run())
    await one.ledger.enqueue(action("b"), spec())
    await _heard(other, _many(2))

    async with session.transaction():
        await session.execute("SELECT pg_advisory_xact_lock($1)", adapter.COMMIT_LOCK)
        await session.execute(
            "INSERT INTO changes (origin, project, domain, run, name, at) VALUES (1, $1, $2, $3, 'a0', 0)", *RUN
        )
        moving = asyncio.create_task(one.ledger.move(RUN.action("b"), Move(to=Phase.RUNNING)))
        await _becomes(session, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted", 1)
        assert not moving.done()
    await moving
    await _heard(other, _many(4))
    assert [each.key.name for each in other.heard] == ["a0", "b", "a0", "b"]


async def test_a_batch_is_one_commit_and_one_notification_without_keys(pair: Pair, session: asyncpg.Connection) -> None:
    """Writes that wait together share both; the word that goes round is the writer's number."""
    one, other = pair
    await one.ledger.create_run(run())
    told: list[object] = []
    await session.add_listener(CHANNEL, lambda *arguments: told.append(arguments[-1]))

    await asyncio.gather(*(one.ledger.enqueue(action(f"n{number}"), spec()) for number in range(100)))
    await _heard(other, _many(101))

    commits = await session.fetchval("SELECT count(DISTINCT xmin::text) FROM actions WHERE name LIKE 'n%'")
    assert commits <= 3
    assert len(told) <= commits
    assert set(told) == {str(one.database.replica)}


async def test_of_two_replicas_that_create_the_same_run_one_makes_it(pair: Pair) -> None:
    """A call that is retried on another replica meanwhile gives the same run; one of other content is refused."""
    for number in range(20):
        key = RUN._replace(run=f"r{number}").action("a0")
        calls = [each.ledger.create_run(run(key, request_id=f"x{number}", chosen=False)) for each in pair]
        answers = await asyncio.gather(*calls)
        assert sorted(is_new for _, _, is_new in answers) == [False, True]

        key = RUN._replace(run=f"s{number}").action("a0")
        calls = [each.ledger.create_run(run(key, content=str(index))) for index, each in enumerate(pair)]
        told = await asyncio.gather(*calls, return_exceptions=True)
        assert sorted(isinstance(each, AlreadyExists) for each in told) == [False, True]


async def test_nothing_lives_below_an_end(pair: Pair) -> None:
    """Children are enqueued and moved on one replica while the parent ends on another: all that was accepted ends with it."""
    one, other = pair
    for number in range(15):
        root = RUN._replace(run=f"r{number}").action("a0")
        await one.ledger.create_run(run(root))

        async def child(name: str, root: ActionKey = root) -> None:
            key = root.sibling(name)
            for parent, below in (("a0", name), (name, f"{name}x")):
                await other.ledger.enqueue(replace(action(below, parent=parent), key=key._replace(name=below)), spec())
                await other.ledger.move(key, Move(to=Phase.RUNNING))

        children = [child(f"n{index}") for index in range(10)]
        told = await asyncio.gather(*children, one.ledger.move(root, Move(to=Phase.SUCCEEDED)), return_exceptions=True)
        assert {type(each) for each in told} <= {Aborted, list, type(None)}
        assert await one.ledger.live() == []


async def test_an_update_that_lost_is_made_again(pair: Pair) -> None:
    """Both replicas move one action at once, many times: every legal step is taken exactly once."""
    await pair[0].ledger.create_run(run())
    ends = [Phase.SUCCEEDED, Phase.FAILED, Phase.ABORTED, Phase.TIMED_OUT]
    answers = await asyncio.gather(*(each.ledger.move(ROOT, Move(to=end)) for end in ends for each in pair))
    assert len([changed for changed in answers if changed]) == 1


async def test_a_feed_that_was_away_too_long_tells_all_that_was_written(
    pair: Pair, session: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of ``changes`` are removed after an hour; who returns later is told each action that was written since."""
    one, other = pair
    await one.ledger.create_run(run())
    await _heard(other, _many(1))
    monkeypatch.setattr(feed, "_KEPT", 0.0)
    monkeypatch.setattr(other.feed, "_listening", _refused(other.feed._listening, session, one))

    await session.execute(CUT_FEEDS)
    await _heard(other, lambda heard: any(each.key.name == "b" for each in heard))


def _refused(listening: Callable[[], object], session: asyncpg.Connection, one: Replica) -> Callable[[], object]:
    """Before the feed is connected again, something is written, and its trace in ``changes`` is gone."""

    async def later() -> object:
        await one.ledger.enqueue(action("b"), spec())
        await one.ledger.move(RUN.action("b"), Move(to=Phase.RUNNING))
        await session.execute("DELETE FROM changes WHERE name = 'b'")
        return await listening()  # type: ignore[misc]

    return later


async def test_old_changes_are_removed(pair: Pair, session: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the newest, which says where reading goes on."""
    one, other = pair
    monkeypatch.setattr(feed, "_KEPT", 0.0)
    monkeypatch.setattr(feed, "_TRIM", 0.0)
    await one.ledger.create_run(run())
    for number in range(5):
        await one.ledger.enqueue(action(f"n{number}"), spec())
        await _heard(other, _many(number + 2))
    await _becomes(session, "SELECT count(*) FROM changes", 1)


async def test_values_that_postgres_cannot_hold_are_the_callers_error(pair: Pair) -> None:
    """NUL in a text, a number too large, a name too long: refused naming it, and others are not harmed."""
    one, _ = pair

    def add(**values: object) -> Work[None]:
        yield insert(projects), {"id": "p", "name": "p", "created_at": 1, "updated_at": 1} | values

    for bad in ({"name": "a\0b"}, {"state": 1 << 40}, {"id": "x" * 64}):
        with pytest.raises(InvalidArgument, match="cannot hold"):
            await one.database.write(lambda bad=bad: add(**bad))  # type: ignore[misc]
    await one.database.write(add)


async def test_a_deadlock_is_resolved_by_trying_again(pair: Pair) -> None:
    """Two replicas lock two rows in opposite order: both writes succeed."""
    one, other = pair

    def add(name: str) -> Work[None]:
        yield insert(projects), {"id": name, "name": name, "created_at": 1, "updated_at": 1}

    def both(first: str, second: str) -> Work[None]:
        yield select(projects.c.id).where(projects.c.id == first).with_for_update()
        yield text("SELECT pg_sleep(0.1)")
        yield select(projects.c.id).where(projects.c.id == second).with_for_update()

    for name in ("a", "b"):
        await one.database.write(lambda name=name: add(name))  # type: ignore[misc]
    await asyncio.gather(one.database.write(lambda: both("a", "b")), other.database.write(lambda: both("b", "a")))


async def test_no_move_of_the_old_leader_commits_after_the_new_one_leads(pair: Pair) -> None:
    """Two leaders for a moment: from the answer to ``take_lead`` on, the rows are as the new leader reads them."""
    one, other = pair
    await one.ledger.create_run(run())
    names = [f"n{number}" for number in range(60)]
    await asyncio.gather(*(one.ledger.enqueue(action(name), spec()) for name in names))
    await one.ledger.take_lead(EXECUTOR, 1, "one")

    async def live(name: str) -> None:
        known: Action | None = None
        while True:
            for phase in (Phase.RUNNING, Phase.PAUSED):
                (known,) = await one.ledger.move(RUN.action(name), Move(to=phase), epoch=1, known=known)

    lives = [asyncio.create_task(live(name)) for name in names]
    await _heard(other, _many(300))
    await other.ledger.take_lead(EXECUTOR, 2, "other")
    read = await other.ledger.live()
    assert {type(each) for each in await asyncio.gather(*lives, return_exceptions=True)} == {NotLeader}
    assert await other.ledger.live() == read
    assert max(each.version for each in read) > 3


async def test_moves_wait_for_a_change_of_leaders_under_way(pair: Pair, session: asyncpg.Connection) -> None:
    """Asked while the change is not committed: refused when it is, alone and together with others."""
    one, _ = pair
    await one.ledger.create_run(run())
    await one.ledger.enqueue(action("b"), spec())
    await one.ledger.take_lead(EXECUTOR, 1, "one")
    for keys in ([ROOT], [ROOT, RUN.action("b")]):
        async with session.transaction():
            await session.execute("UPDATE leadership SET epoch = epoch + 1, holder = 'other'")
            epoch = await session.fetchval("SELECT epoch - 1 FROM leadership")
            moves = [asyncio.create_task(one.ledger.move(key, Move(to=Phase.RUNNING), epoch=epoch)) for key in keys]
            await _becomes(session, "SELECT count(*) FROM pg_locks WHERE NOT granted", 1)
        told = await asyncio.gather(*moves, return_exceptions=True)
        assert {type(each) for each in told} == {NotLeader}
    assert {each.version for each in await one.ledger.live()} == {1}


async def test_the_leader_moves_a_row_that_another_held(pair: Pair, session: asyncpg.Connection) -> None:
    """A fenced move that waited for somebody's change of the same row is made on what it has become."""
    one, _ = pair
    await one.ledger.create_run(run())
    await one.ledger.enqueue(action("b"), spec())
    await one.ledger.take_lead(EXECUTOR, 1, "one")
    async with session.transaction():
        await session.execute("UPDATE actions SET version = version + 1, reason = 'held' WHERE name = 'b'")
        moves = [asyncio.create_task(one.ledger.move(key, Move(to=Phase.RUNNING), epoch=1)) for key in (ROOT, RUN.action("b"))]
        await _becomes(session, "SELECT count(*) FROM pg_locks WHERE NOT granted", 1)
    (_,), (moved,) = await asyncio.gather(*moves)
    assert (moved.version, moved.reason) == (3, "held")


@pytest.mark.parametrize("names", [["b"], ["c", "d", "e"]])
@pytest.mark.parametrize("ends", [True, False])
async def test_a_child_waits_for_its_parents_change_under_way(
    pair: Pair, session: asyncpg.Connection, names: list[str], *, ends: bool
) -> None:
    """A parent that is being changed elsewhere: its children are stored if it lives on, refused if it ended; one or many."""
    one, _ = pair
    await one.ledger.create_run(run())
    change = "ended_at = 9, phase = 5" if ends else "phase = 4"
    async with session.transaction():
        await session.execute(f"UPDATE actions SET version = version + 1, {change} WHERE name = 'a0'")
        calls = [asyncio.create_task(one.ledger.enqueue(action(name), spec())) for name in names]
        await _becomes(session, "SELECT count(*) FROM pg_locks WHERE NOT granted", 1)
    told = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(each) for each in told} == {Aborted if ends else tuple}


@pytest.mark.parametrize("children", [{"b"}, set()])
async def test_an_end_waits_for_a_child_under_way(pair: Pair, session: asyncpg.Connection, children: set[str]) -> None:
    """A child that is stored but not committed when its parent ends is seen, and ends with it, be it the only one or not."""
    one, other = pair
    await one.ledger.create_run(run())
    (root,) = await other.ledger.move(ROOT, Move(to=Phase.RUNNING))
    for name in children:
        await one.ledger.enqueue(action(name), spec())
    gate = "SELECT pg_advisory_xact_lock(77)"

    def held() -> Work[None]:
        yield from store.add_action(action("late"), None)
        yield text(gate)

    await session.execute("SELECT pg_advisory_lock(77)")
    adding = asyncio.create_task(one.database.write(held))
    await _becomes(session, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted", 1)
    ending = asyncio.create_task(other.ledger.move(ROOT, Move(to=Phase.SUCCEEDED), known=root))
    await _becomes(session, "SELECT count(*) FROM pg_locks WHERE NOT granted", 2)
    await session.execute("SELECT pg_advisory_unlock(77)")
    await adding
    assert {each.key.name for each in await ending} == {"a0", "late"} | children
    assert await one.ledger.live() == []


async def test_an_archived_project_takes_no_work_on_any_replica(pair: Pair) -> None:
    """Though the others had looked at it before; and takes it again once it is active."""
    one, other = pair
    project = idl.Project(id="p")
    await one.projects.create(project)
    await other.projects.check("p", "development")
    for state, takes in ((1, False), (0, True)):
        project.state = state  # type: ignore[assignment]  # a number
        await one.projects.update(project)
        async with asyncio.timeout(20):
            while await _takes(other, "p") is not takes:  # noqa: ASYNC110  # each turn lets the feed read
                await asyncio.sleep(0)


async def test_what_was_remembered_before_a_failover_is_asked_again(pair: Pair, session: asyncpg.Connection) -> None:
    """The server that a connection comes back to may have lost the last commits, and says nothing of it."""
    one, other = pair
    await one.projects.create(idl.Project(id="p"))
    assert await _takes(other, "p")
    await session.execute("UPDATE projects SET state = 1")
    assert await _takes(other, "p")
    await session.execute(CUT_FEEDS)
    async with asyncio.timeout(20):
        while await _takes(other, "p"):  # noqa: ASYNC110  # as above
            await asyncio.sleep(0)


async def test_a_domain_is_there_on_every_replica_or_on_none(pair: Pair) -> None:
    """Though the others had looked at them all before."""
    one, other = pair
    await one.projects.create(idl.Project(id="p"))
    assert [domain.id for domain in await other.projects.domains.all()] == ["development"]
    for change, there in (
        (lambda: one.projects.domains.create("qa", "Quality"), ["development", "qa"]),
        (lambda: one.projects.domains.delete("qa"), ["development"]),
    ):
        await change()
        async with asyncio.timeout(20):
            while [domain.id for domain in await other.projects.domains.all()] != there:  # noqa: ASYNC110  # as above
                await asyncio.sleep(0)


async def _takes(replica: Replica, project: str) -> bool:
    try:
        await replica.projects.check(project, "development")
    except FailedPrecondition:
        return False
    return True


@pytest.mark.parametrize("how", ["release", "result", "unheard"])
async def test_who_waits_for_a_cached_result_is_woken_by_another_replica(
    pair: Pair, session: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """By a release, a result, or when a feed that was away can't say any more; long before the reservation expires."""
    one, other = pair
    await one.cache.reserve("k", "owner", heartbeat=10.0)
    waiting = asyncio.create_task(other.cache.freed("k"))
    await other.cache.freed("nobody's")  # a turn for the one before, to read and wait
    assert not waiting.done()
    if how == "result":
        await one.cache.put("k", "/out", b"", overwrite=False, max_age=None)
    elif how == "release":
        await one.cache.release("k", "owner")
    else:
        monkeypatch.setattr(feed, "_KEPT", 0.0)
        await session.execute(CUT_FEEDS)
    async with asyncio.timeout(5):
        await waiting


async def test_a_server_that_may_make_no_function_writes_all_the_same(postgres: PostgresServer) -> None:
    """Where sessions may have nothing of their own, each write is a transaction: with a child that ends with its parent."""
    administrator = await asyncpg.connect(postgres.url())
    await administrator.execute("CREATE ROLE guest LOGIN")
    await administrator.execute("CREATE DATABASE guests")
    await administrator.execute("REVOKE TEMPORARY ON DATABASE guests FROM PUBLIC")
    inside = await asyncpg.connect(postgres.url("guests"))
    await inside.execute("GRANT ALL ON SCHEMA public TO guest")
    await inside.close()
    database = PostgresDatabase(postgres.url("guests").replace("flyte@", "guest@"))
    await database.start()
    try:
        ledger = Ledger(database=database, clock=SystemClock())
        _, root, _ = await ledger.create_run(run())
        (root,) = await ledger.move(root.key, Move(to=Phase.RUNNING), known=root)
        child, _ = await ledger.enqueue(action("b"))
        changed = await ledger.move(root.key, Move(to=Phase.SUCCEEDED), known=root)
        assert [(each.key, each.phase) for each in changed] == [(root.key, Phase.SUCCEEDED), (child.key, Phase.ABORTED)]
    finally:
        await database.stop()
        await administrator.execute("DROP DATABASE guests WITH (FORCE)")
        await administrator.execute("DROP ROLE guest")
        await administrator.close()
