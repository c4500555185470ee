"""Work that is sent together ends as it would one by one: no order of statements within a batch breaks a rule."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import Connection, NullPool, delete, event, select
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from flyte_unified.core.clock import Micros
from flyte_unified.core.errors import NotFound, NotLeader
from flyte_unified.core.phases import Phase
from flyte_unified.db import schema, together
from flyte_unified.db.api import Work
from flyte_unified.db.batches import DirtyError, Job, drive
from flyte_unified.db.tables import actions, metadata
from flyte_unified.ledger import store
from flyte_unified.ledger.api import EXECUTOR, Action, Failure, Move, Retry, action_from
from tests.postgres import PostgresServer
from tests.unit.ledger.births import ROOT, RUN, action, run, spec
from tests.unit.ledger.test_cascade import ERROR

EPOCH = 7
names = st.sampled_from(["a0", "b", "c", "d", "e", "f"])
phases = st.sampled_from([Phase.QUEUED, Phase.RUNNING, Phase.PAUSED, Phase.SUCCEEDED, Phase.FAILED, Phase.ABORTED])
epochs = st.sampled_from([None, None, EPOCH, EPOCH - 1])
enqueues = st.tuples(st.just("enqueue"), names, names)
moves = st.tuples(st.just("move"), names, phases, epochs, st.booleans())
retries = st.tuples(st.just("retry"), names)
batches = st.lists(st.one_of(enqueues, moves, retries), min_size=1, max_size=8)


def _enqueue(new: Action) -> Work[list[Action]]:
    stored, is_new = yield from store.add_action(new, spec().raw)
    return [stored] if is_new else []


@pytest.fixture
async def connection(postgres: PostgresServer) -> AsyncIterator[AsyncConnection]:
    """In a transaction that is rolled back."""
    engine = create_async_engine("postgresql+asyncpg://" + postgres.url().partition("://")[2], poolclass=NullPool)
    async with engine.connect() as connection:
        yield connection
        await connection.rollback()
    await engine.dispose()


class Batches(RuleBasedStateMachine):
    """One run on a connection, and what was told of its actions."""

    connection: Connection

    @initialize()
    def begin(self) -> None:
        schema.prepare(self.connection)
        for table in reversed(metadata.sorted_tables):
            self.connection.execute(delete(table))
        _, root, _ = drive(self.connection, partial(store.add_run, run()))
        drive(self.connection, partial(store.take_lead, EXECUTOR, EPOCH, "here", now=Micros(1)))
        self.known: dict[str, Action] = {"a0": root}
        self.now = Micros(1)

    @rule(batch=batches)
    def together(self, batch: list[tuple[Any, ...]]) -> None:
        self.now = Micros(self.now + 1)
        jobs = [Job(self._work(*parts), None, None, cast("Any", None)) for parts in batch]
        try:
            self._run(jobs)
        except DirtyError:  # as the writer does: each for itself
            for job in jobs:
                self._run([job])
        for job, parts in zip(jobs, batch, strict=True):
            stale = parts[0] == "move" and parts[3] == EPOCH - 1
            assert isinstance(job.error, NotLeader | NotFound) if stale else not isinstance(job.error, NotLeader)
            for each in job.result or []:
                known = self.known.get(each.key.name)
                if known is None or known.version < each.version:
                    self.known[each.key.name] = each

    def _run(self, jobs: list[Job]) -> None:
        with self.connection.begin_nested():
            together.perform(self.connection, jobs)

    def _work(self, kind: str, name: str, *how: Any) -> Callable[[], Work[list[Action]]]:
        key, known = RUN.action(name), self.known.get(name)
        if kind == "enqueue":
            return partial(_enqueue, action(name, parent=how[0]))
        if kind == "move":
            to, epoch, seen = how
            return partial(store.move, key, [Move(to=to)], now=self.now, epoch=epoch, known=known if seen else None)
        again = Retry(attempt=known.attempt if known else 1, error=ERROR, failure=Failure.USER)
        return partial(store.move, key, [again], now=self.now)

    @invariant()
    def what_was_told_is_what_is_stored(self) -> None:
        rows = [action_from(row) for row in self.connection.execute(select(actions))]
        assert {each.key.name: each for each in rows} == self.known

    @invariant()
    def nothing_lives_below_an_end(self) -> None:
        for each in self.known.values():
            if each.parent is not None and self.known[each.parent].terminal:
                assert each.terminal


async def test_nothing_lives_below_an_end(connection: AsyncConnection) -> None:
    """Whatever is enqueued, moved and retried together: what was told is what is stored, and no stale leader is heard."""
    groups = 0

    def check(connection: Connection) -> None:
        machine = type("Bound", (Batches,), {"connection": connection})
        bounds = settings(max_examples=25, stateful_step_count=12, deadline=None, database=None)
        run_state_machine_as_test(machine, settings=settings(bounds, suppress_health_check=list(HealthCheck)))  # type: ignore[no-untyped-call]

    def count(*arguments: Any) -> None:
        nonlocal groups
        groups += "unnest(" in arguments[2]

    event.listen(connection.sync_connection, "before_cursor_execute", count)
    await connection.run_sync(check)
    assert groups > 100


async def test_a_run_is_never_seen_without_its_root(connection: AsyncConnection) -> None:
    """A call that is repeated within a batch finds all of what the first one stored, whatever else is under way."""

    def check(connection: Connection) -> None:
        schema.prepare(connection)
        for table in reversed(metadata.sorted_tables):
            connection.execute(delete(table))
        drive(connection, partial(store.add_run, run()))
        twice = partial(store.add_run, run(RUN._replace(run="r2").action("a0")))
        move = partial(store.move, ROOT, [Move(to=Phase.RUNNING)], now=Micros(2))
        jobs = [Job(work, None, None, cast("Any", None)) for work in (move, twice, twice)]
        together.perform(connection, jobs)
        assert [job.error for job in jobs] == [None, None, None]
        assert [job.result[2] for job in jobs[1:]] == [True, False]
        assert jobs[1].result[1] == jobs[2].result[1]

    await connection.run_sync(check)
