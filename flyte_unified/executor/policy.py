"""What task and run allow and ask for: how often, how long, after which wait, beside how many. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from flyteidl2.core import literals_pb2, tasks_pb2

from flyte_unified.core import queues
from flyte_unified.core.clock import seconds
from flyte_unified.executor.lines import DEFAULT_CPU, Claim
from flyte_unified.plugins.api import Process, Resources, TaskContext, Work

LONGEST = 36_525 * 86_400.0
"""Seconds in a century: what nobody waits for, and every database can note"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Waits between attempts: ``base * factor**n`` seconds before the n-th retry (from 0), at most ``cap``."""

    base: float = 0.0
    factor: float = 1.0
    cap: float = LONGEST

    def delay(self, retry: int) -> float:
        try:
            return min(self.base * self.factor**retry, self.cap) if self.base else 0.0
        except OverflowError:
            return self.cap


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds in seconds; 0 means none."""

    retries: int = 0
    backoff: Backoff = Backoff()  # frozen
    max_runtime: float = 0.0
    """RUNNING, per attempt"""
    queued: float = 0.0
    """before RUNNING, per attempt"""
    deadline: float = 0.0
    """since the action's creation, whatever its attempts"""


def limits(metadata: tasks_pb2.TaskMetadata) -> Limits:
    """The bounds that a task asks for (flyteidl2/core/tasks.proto)."""
    return Limits(
        retries=metadata.retries.retries,
        backoff=_backoff(metadata.retries),
        max_runtime=seconds(metadata.timeout),
        queued=seconds(metadata.timeouts.queued_timeout),
        deadline=seconds(metadata.timeouts.deadline),
    )


def _backoff(strategy: literals_pb2.RetryStrategy) -> Backoff:
    """Clients may send what no SDK does: each number as it can be meant."""
    asked = strategy.backoff
    return Backoff(
        base=max(0.0, seconds(asked.base)),
        factor=asked.factor if asked.factor > 0 else 1.0,
        cap=min(max(0.0, seconds(asked.cap)), LONGEST) if asked.HasField("cap") else LONGEST,
    )


def claim(context: TaskContext, work: Work) -> Claim:
    """What an attempt takes while it computes."""
    asked = work.resources if isinstance(work, Process) else Resources()
    return Claim(
        depth=context.action.depth,
        cpu=asked.cpu or DEFAULT_CPU,
        memory=asked.memory,
        gpu=asked.gpu,
        process=isinstance(work, Process),
        queue=context.action.queue or context.run_spec.queue or queues.DEFAULT,
        run_bound=context.run_spec.max_action_concurrency,
    )
