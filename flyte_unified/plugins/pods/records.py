"""What a pod and its events say to people: the log context of an attempt, its cluster events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flyteidl2.core import execution_pb2
from flyteidl2.workflow import run_definition_pb2

from flyte_unified.core.clock import Micros


def started_at(pod: Mapping[str, Any]) -> Micros | None:
    """When the primary container began to run; None if it has not."""
    return None


def log_context(pods: Iterable[Mapping[str, Any]], *, primary: str = "") -> execution_pb2.LogContext:
    """The containers of ``pods`` and when they ran. ``primary`` names the pod whose log is the attempt's; else the first."""
    return execution_pb2.LogContext()


def details(pod: Mapping[str, Any]) -> run_definition_pb2.ActionAttempt:
    """What an attempt's record takes from its pod; equal for equal pods, so that what is told again is kept once."""
    return run_definition_pb2.ActionAttempt(log_context=log_context([pod]))


def cluster_event(event: Mapping[str, Any]) -> run_definition_pb2.ClusterEvent | None:
    """A core v1 Event as the console shows it; None for one that says nothing."""
    return None
