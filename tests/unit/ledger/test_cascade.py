"""Whatever is enqueued, moved and retried in whatever order: nothing lives below an end, and all that changed is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from flyteidl2.core import execution_pb2
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import Connection, StaticPool, create_engine

from flyte_unified.core.clock import Micros
from flyte_unified.core.errors import Aborted, AlreadyExists, NotFound
from flyte_unified.core.phases import Phase
from flyte_unified.db import schema
from flyte_unified.db.api import Work
from flyte_unified.db.batches import drive
from flyte_unified.ledger import store
from flyte_unified.ledger.api import Action, ActionType, Failure, Move, Retry
from tests.unit.ledger.births import RUN, action, run, spec

T = TypeVar("T")
ERROR = execution_pb2.ExecutionError(message="it broke")
names = st.sampled_from(["a0", "b", "c", "d", "e"])
phases = st.sampled_from([Phase.QUEUED, Phase.RUNNING, Phase.PAUSED, Phase.SUCCEEDED, Phase.FAILED, Phase.ABORTED])


def done(connection: Connection, work: Work[T]) -> T:
    """The result of ``work``, its statements run one by one."""
    return drive(connection, lambda: work)


class Tree(RuleBasedStateMachine):
    """One run on a database in memory, beside a plain picture of it."""

    @initialize()
    def begin(self) -> None:
        self.connection = self._open()
        _, root, _ = done(self.connection, store.add_run(run()))
        self.known: dict[str, Action] = {"a0": root}
        self.now = Micros(1)

    def _open(self) -> Connection:
        connection = create_engine("sqlite://", poolclass=StaticPool).connect()
        schema.create(connection)
        return connection

    def teardown(self) -> None:
        if hasattr(self, "connection"):
            self.connection.close()
            self.connection.engine.dispose()

    @rule(name=names, parent=names, kind=st.sampled_from([ActionType.TASK, ActionType.CONDITION]))
    def enqueue(self, name: str, parent: str, kind: ActionType) -> None:
        new = replace(action(name, parent=parent), action_type=kind)
        known, above = self.known.get(name), self.known.get(parent)
        try:
            stored, is_new = done(self.connection, store.add_action(new, spec().raw))
        except AlreadyExists:
            assert known is not None and (known.parent, known.action_type) != (parent, kind)
        except NotFound:
            assert known is None and above is None
        except Aborted:
            assert known is None and above is not None and above.terminal
        else:
            assert is_new == (known is None)
            self.known[name] = stored

    @rule(name=names, to=phases, stale=st.booleans())
    def move(self, name: str, to: Phase, stale: bool) -> None:
        if (known := self.known.get(name)) is not None:
            attempt = known.attempt - stale
            self._changed(known, store.move(known.key, [Move(to=to, attempt=attempt)], now=self._later()))

    @rule(name=names, failure=st.sampled_from(Failure))
    def retry(self, name: str, failure: Failure) -> None:
        if (known := self.known.get(name)) is not None:
            again = Retry(attempt=known.attempt, error=ERROR, failure=failure)
            self._changed(known, store.move(known.key, [again], now=self._later()))
            records = done(self.connection, store.get_attempts(known.key))
            assert [record.attempt for record in records] == list(range(1, self.known[name].attempt))

    @invariant()
    def what_was_told_is_what_is_stored(self) -> None:
        rows = {name: done(self.connection, store.get_action(RUN.action(name))) for name in self.known}
        assert rows == self.known

    @invariant()
    def nothing_lives_below_an_end(self) -> None:
        for each in self.known.values():
            above = self.known[each.parent] if each.parent is not None else None
            if above is not None and above.terminal and above.action_type is ActionType.TASK:
                assert each.terminal

    @invariant()
    def depths_are_right(self) -> None:
        for each in self.known.values():
            assert each.depth == (0 if each.parent is None else self.known[each.parent].depth + 1)

    def _changed(self, known: Action, work: Work[list[Action]]) -> None:
        changed = done(self.connection, work)
        if changed:
            assert changed[0].key == known.key
        for each in changed:
            before = self.known[each.key.name]
            assert not before.terminal
            assert each.version == before.version + 1
            self.known[each.key.name] = each

    def _later(self) -> Micros:
        self.now = Micros(self.now + 1)
        return self.now


TestTree: Any = Tree.TestCase
TestTree.settings = settings(max_examples=60, stateful_step_count=25, deadline=None, database=None)
