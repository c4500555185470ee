"""Whatever happens to an action, in whatever order it is told, its row and its records agree."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from flyteidl2.core import execution_pb2
from flyteidl2.workflow import run_definition_pb2
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from flyte_unified.core.clock import Micros, micros
from flyte_unified.core.ids import ActionKey
from flyte_unified.core.phases import Phase
from flyte_unified.ledger import moves
from flyte_unified.ledger.api import Action, ActionType, Failure, Move, Retry, first_record

KEY = ActionKey("p", "development", "r", "a0")
ERROR = execution_pb2.ExecutionError(code="Boom", message="it broke", kind=execution_pb2.ExecutionError.USER)
BORN = Micros(1_000_000)

phases = st.sampled_from([phase for phase in Phase if phase is not Phase.UNSPECIFIED])
attempts = st.sampled_from([None, -1, 0, 0, 0, 1])
"""What attempt is spoken of: none in particular, the one before, this one, one to come."""
times = st.none() | st.integers(-2_000_000, 2_000_000)
"""When it happened, seen from now: clocks of pods differ, and words are late."""


class Life(RuleBasedStateMachine):
    """One action, from its enqueueing on."""

    @initialize()
    def begin(self) -> None:
        record = first_record(Phase.QUEUED, at=BORN).SerializeToString()
        self.action = Action(
            key=KEY,
            parent=None,
            depth=0,
            action_type=ActionType.TASK,
            phase=Phase.QUEUED,
            created_at=BORN,
            updated_at=BORN,
            record=record,
        )
        self.finished: list[run_definition_pb2.ActionAttempt] = []
        self.charged: list[Failure] = []
        self.now = BORN

    @rule(to=phases, spoken_of=attempts, at=times, later=st.integers(0, 1_000_000))
    def told(self, to: Phase, spoken_of: int | None, at: int | None, later: int) -> None:
        before = self.action
        move = Move(
            to=to, attempt=self._attempt(spoken_of), at=self._at(at, later), error=ERROR if to is Phase.FAILED else None
        )
        after = moves.apply(before, move, now=self.now)
        if before.terminal or spoken_of in (-1, 1):
            assert after is None
        if after is not None:
            self._became(after)

    @rule(spoken_of=attempts.filter(lambda each: each is not None), failure=st.sampled_from(Failure), at=times)
    def retried(self, spoken_of: int, failure: Failure, at: int | None) -> None:
        before = self.action
        retry = Retry(attempt=before.attempt + spoken_of, error=ERROR, failure=failure, at=self._at(at, 1))
        renewed = moves.retry(before, retry, now=self.now)
        assert (renewed is None) == (before.terminal or spoken_of != 0)
        if renewed is not None:
            self._became(renewed[0])
            self.finished.append(renewed[1])
            self.charged.append(failure)

    @invariant()
    def the_record_is_the_rows(self) -> None:
        record = self.action.latest()
        assert record.phase == self.action.phase
        assert record.attempt == self.action.attempt
        assert record.HasField("end_time") == self.action.terminal
        assert (self.action.ended_at is not None) == self.action.terminal
        if self.action.ended_at is not None:
            assert micros(record.end_time) == self.action.ended_at

    @invariant()
    def times_are_in_order(self) -> None:
        """One attempt after the other, one phase after the other, without gaps; the row's times within them."""
        before = BORN
        for record in (*self.finished, self.action.latest()):
            steps = record.phase_transitions
            assert before <= micros(record.start_time) == micros(steps[0].start_time)
            for step, following in pairwise(steps):
                assert micros(step.start_time) <= micros(step.end_time) == micros(following.start_time)
            before = micros(steps[-1].start_time)
        known = (self.action.created_at, self.action.started_at, self.action.ended_at)
        in_row = [at for at in known if at is not None]
        assert in_row == sorted(in_row)

    @invariant()
    def every_attempt_is_kept(self) -> None:
        assert [record.attempt for record in self.finished] == list(range(1, self.action.attempt))
        for record in self.finished:
            assert record.phase == record.phase_transitions[-1].phase == Phase.FAILED
            assert record.error_info.message == ERROR.message
            assert micros(record.end_time) == micros(record.phase_transitions[-1].end_time)

    @invariant()
    def each_failure_is_charged_once(self) -> None:
        """Retries that the user asked for are spent by the task's own failures only."""
        assert self.action.user_failures == self.charged.count(Failure.USER)
        assert self.action.system_failures == self.charged.count(Failure.SYSTEM)
        assert self.action.interruptions == self.charged.count(Failure.INTERRUPTION)

    def _became(self, after: Action) -> None:
        assert not self.action.terminal
        assert after.version == self.action.version + 1
        assert after.updated_at == self.now
        self.action = after

    def _attempt(self, spoken_of: int | None) -> int | None:
        return None if spoken_of is None else self.action.attempt + spoken_of

    def _at(self, at: int | None, later: int) -> Micros | None:
        self.now = Micros(self.now + later)
        return None if at is None else Micros(self.now + at)


TestLife: Any = Life.TestCase
TestLife.settings = settings(max_examples=80, stateful_step_count=20, deadline=None, database=None)


def test_a_phase_told_twice_adds_to_the_record_only() -> None:
    """Logs and links that come while an action runs are kept, and no step is recorded again."""
    life = Life()
    life.begin()
    running = moves.apply(life.action, Move(to=Phase.RUNNING), now=BORN)
    assert running is not None
    more = run_definition_pb2.ActionAttempt(logs_available=True)
    told = moves.apply(running, Move(to=Phase.RUNNING, details=more), now=BORN)

    assert told is not None
    assert told.latest().logs_available
    assert list(told.latest().phase_transitions) == list(running.latest().phase_transitions)


def test_an_error_keeps_its_words() -> None:
    """Message, code and kind of an attempt's error stand in its record; the whole error in the row."""
    life = Life()
    life.begin()
    failed = moves.apply(life.action, Move(to=Phase.FAILED, error=ERROR), now=BORN)
    assert failed is not None
    info = failed.latest().error_info
    assert (info.message, info.code, info.kind) == ("it broke", "Boom", run_definition_pb2.ErrorInfo.KIND_USER)
    assert failed.execution_error() == ERROR
