"""The words between executor and plugins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from flyteidl2.core import execution_pb2
from flyteidl2.task import common_pb2, run_pb2, task_definition_pb2

from flyte_unified.ledger.api import Action, Run


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskContext:
    """One attempt, as a plugin sees it."""

    action: Action
    spec: task_definition_pb2.TaskSpec
    run: Run
    run_spec: run_pb2.RunSpec
    output_prefix: str
    """Where this attempt writes outputs.pb, error.pb, report.html."""
    previous_prefix: str
    """The same of the attempt before; empty for the first."""
    raw_prefix: str
    """Where this attempt may write data of its own."""
    endpoint: str
    """Where its process reaches the server: ``host:port/t/<run token>``"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What an attempt asks of the machine. 0 means: nothing said."""

    cpu: float = 0.0
    memory: int = 0
    """Bytes"""
    memory_limit: int = 0
    gpu: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A local process."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    """What the task and the run ask for; the launcher's own comes below it, the system's above."""
    system: Mapping[str, str]
    resources: Resources
    links: tuple[execution_pb2.TaskLog, ...] = ()
    """Of the task's own making: where else people may look while it runs."""


@dataclass(frozen=True, slots=True)
class Timer:
    """Nothing runs: the attempt succeeds after a time that its inputs tell. ``seconds`` raises InvalidArgument."""

    seconds: Callable[[common_pb2.Inputs], float]


@dataclass(frozen=True, slots=True)
class Refusal:
    """This server can't run it; ``message`` says what would."""

    code: str
    message: str


Work = Process | Timer | Refusal
