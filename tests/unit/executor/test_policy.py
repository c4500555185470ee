"""What a task's metadata allows."""

from __future__ import annotations

import pytest
from flyteidl2.core import tasks_pb2
from hypothesis import given
from hypothesis import strategies as st

from flyte_unified.executor.policy import LONGEST, Backoff, Limits, limits
from tests.unit.executor.world import spec


def test_nothing_said_means_no_bound() -> None:
    """No retry, and none of the times is limited."""
    assert limits(tasks_pb2.TaskMetadata()) == Limits()


def test_every_bound_is_read() -> None:
    """Retries with their backoff, and the three times, in seconds."""
    metadata = spec(retries=4, backoff=0.5, timeout=60.0, queued=30.0, deadline=3600.5).task_template.metadata
    metadata.retries.backoff.cap.FromSeconds(7)
    backoff = Backoff(base=0.5, factor=2.0, cap=7.0)
    assert limits(metadata) == Limits(retries=4, backoff=backoff, max_runtime=60.0, queued=30.0, deadline=3600.5)


@pytest.mark.parametrize(
    ("backoff", "delays"),
    [
        (Backoff(), [0.0, 0.0, 0.0]),
        (Backoff(base=3.0), [3.0, 3.0, 3.0]),
        (Backoff(base=1.0, factor=2.0), [1.0, 2.0, 4.0]),
        (Backoff(base=1.0, factor=10.0, cap=50.0), [1.0, 10.0, 50.0]),
    ],
)
def test_waits_grow_to_their_cap(backoff: Backoff, delays: list[float]) -> None:
    """base * factor**n, at most the cap."""
    assert [backoff.delay(n) for n in range(3)] == delays


@given(
    base=st.integers(-(2**63), 2**63 - 1),
    factor=st.floats(),
    cap=st.none() | st.integers(-(2**63), 2**63 - 1),
    retry=st.integers(0, 2000),
)
def test_any_wait_is_a_time_to_come(base: int, factor: float, cap: int | None, retry: int) -> None:
    """Whatever a client sends, an attempt that fails has a next one at a time that a database can hold."""
    metadata = tasks_pb2.TaskMetadata()
    asked = metadata.retries.backoff
    asked.base.seconds, asked.factor = base, factor
    if cap is not None:
        asked.cap.seconds = cap
    assert 0 <= limits(metadata).backoff.delay(retry) <= LONGEST


def test_a_wait_beyond_numbers_is_the_cap() -> None:
    """A task that is retried for ever does not overflow."""
    assert Backoff(base=1.0, factor=2.0, cap=60.0).delay(100_000) == 60.0
