"""The port to where work runs: local processes, pods, operators' resources, remote jobs.

A launcher is told what an attempt is and tells what becomes of it. It decides nothing: outcome, retries and limits are the
executor's. Work goes on when the server dies; ``start`` finds it again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from flyteidl2.workflow import run_definition_pb2

from flyte_unified.core.clock import Micros
from flyte_unified.core.errors import FailedPrecondition, InvalidArgument
from flyte_unified.core.ids import ActionKey
from flyte_unified.core.phases import Phase
from flyte_unified.plugins.api import Exit, Runnable

INTERPRETER = "FLYTE_UNIFIED_PYTHON"
"""The variable with which a task or a run chooses the Python that its local processes run in."""


class Unlaunchable(FailedPrecondition):
    """An attempt that can't run here as it asks until somebody changes something. ``reason`` is its error's code."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class WorkId(NamedTuple):
    """One attempt of one action."""

    action: ActionKey
    attempt: int

    def __str__(self) -> str:
        """Fit for a file name; a comma stands in no id."""
        return ",".join((*self.action, str(self.attempt)))

    @classmethod
    def parse(cls, text: str) -> WorkId:
        parts = text.split(",")
        if len(parts) != 5 or not parts[4].isdecimal():
            raise InvalidArgument(f"{text!r} names no attempt")
        return cls(ActionKey._make(parts[:4]), int(parts[4]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What is to run."""

    id: WorkId
    work: Runnable
    gpus: tuple[int, ...] = ()
    """Of this machine, for it alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """An attempt has come to ``phase``, short of running, or there is more to tell of it."""

    id: WorkId
    at: Micros
    phase: Phase
    details: run_definition_pb2.ActionAttempt | None = None
    """For the attempt's record: cluster events, links, log context. What is told again is kept once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """An attempt runs."""

    id: WorkId
    at: Micros
    pid: int = 0
    """Of a local process"""
    where: str = ""
    """For people: the interpreter, the node."""
    details: run_definition_pb2.ActionAttempt | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """An attempt's process or object is at its end, and its log is kept."""

    id: WorkId
    at: Micros
    exit: Exit
    details: run_definition_pb2.ActionAttempt | None = None


Event = Progress | Started | Ended


class Launcher(Protocol):
    """One place where work runs. Events are passed to the callable on the event loop, in order for each attempt."""

    async def start(self, on_event: Callable[[Event], None]) -> list[Event]:
        """Begins, and tells what runs already (its Started) or ended unseen (its Ended)."""

    async def launch(self, attempt: Attempt) -> None:
        """Starts it unless it runs already. Raises FlyteUnifiedError when it can't: Unlaunchable where its user can mend it."""

    async def kill(self, work: WorkId, *, grace: float) -> None:
        """Asks it to end, and makes it end after ``grace`` seconds. Its Ended follows."""

    async def forget(self, work: WorkId) -> None:
        """Its end is known: it need not be told again."""

    async def clear(self, action: ActionKey, *, attempts: int) -> None:
        """Frees what the attempts of an ended action left behind, but their logs."""

    async def stop(self, *, grace: float) -> None:
        """Ends everything within ``grace`` seconds, telling each end."""

    async def close(self) -> None:
        """Lets go of everything; work that runs goes on where it can outlive the server."""
