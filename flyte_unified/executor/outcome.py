"""How an attempt ended, decided in one place from its files and its exit, alike for process and pod. Pure.

In this order: an error.pb that parses, unless all it says is what a container that failed did not leave; an outputs.pb that
parses and has every output of the interface (success, whatever the exit says: a library in the task may crash at interpreter
exit, after the work is done); then exit code or signal. A task that promises no outputs and has no runtime of Flyte's to write
their absence down, such as a Spark job of the JVM, needs but to exit with code 0.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass

from flyteidl2.core import execution_pb2
from flyteidl2.task import common_pb2
from google.protobuf.message import DecodeError

from flyte_unified.dataside import UNREADABLE
from flyte_unified.ledger.api import Failure
from flyte_unified.plugins.api import Exit


@dataclass(frozen=True, slots=True)
class Succeeded:
    """Outputs are there, or none were promised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """``failure`` says whose budget pays; ``retryable`` whether another attempt may help."""

    error: execution_pb2.ExecutionError
    failure: Failure
    retryable: bool


Outcome = Succeeded | Failed


def judge(
    *,
    error_file: bytes | None,
    outputs_file: bytes | None,
    outputs: Sequence[str],
    ending: Exit,
    environment: str,
    runtime: bool = True,
) -> Outcome:
    """``outputs`` are the names that the interface promises; files are None where absent. ``runtime``: the program is one that
    writes an outputs.pb in any case.

    ``environment`` tells people where the task ran, and how it could run elsewhere.
    """
    certain = ending.fault is not None and ending.fault.certain
    if (document := _document(error_file)) is not None and not (certain and document.error.code == UNREADABLE):
        return _user_error(document, environment)
    if not (runtime or outputs) and outputs_file is None and ending == Exit(code=0):
        return Succeeded()
    fault = _fault(outputs_file, outputs)
    return _crash(ending, fault) if fault or certain else Succeeded()


def _document(content: bytes | None) -> execution_pb2.ErrorDocument | None:
    if not content:
        return None
    try:
        document = execution_pb2.ErrorDocument.FromString(content)
    except DecodeError:
        return None
    return document if document.HasField("error") else None


def _user_error(document: execution_pb2.ErrorDocument, environment: str) -> Failed:
    error = document.error
    kind = error.origin or execution_pb2.ExecutionError.USER
    system = kind == execution_pb2.ExecutionError.SYSTEM
    return Failed(
        error=execution_pb2.ExecutionError(
            code=error.code, message=error.message + _hint(error, environment), kind=kind, recoverability=error.kind
        ),
        failure=Failure.SYSTEM if system else Failure.USER,
        retryable=error.kind == execution_pb2.ContainerError.RECOVERABLE,
    )


def _hint(error: execution_pb2.ContainerError, environment: str) -> str:
    """Most such errors mean that the task ran in another environment than its author's."""
    if not any(name in error.code or name in error.message for name in ("ModuleNotFoundError", "ImportError", "pickle")):
        return ""
    return f"\n{environment}"


def _fault(content: bytes | None, names: Sequence[str]) -> str:
    """What is wrong with the outputs; empty when they are complete."""
    if content is None:
        return "left no outputs"
    try:
        found = {literal.name for literal in common_pb2.Outputs.FromString(content).literals}
    except DecodeError:
        return "left a damaged outputs.pb"
    lacking = [name for name in names if name not in found]
    return f"left an outputs.pb without {', '.join(lacking)}" if lacking else ""


def _crash(ending: Exit, fault: str) -> Failed:
    if (known := ending.fault) is not None:
        return _failed(known.code, known.message, known.failure, retryable=known.retryable)
    if ending.out_of_memory:
        return _failed("OOMKilled", "the task used more memory than its limit allows and was killed", Failure.USER)
    if ending.signal is not None:
        name = signal.Signals(ending.signal).name if ending.signal in set(signal.Signals) else str(ending.signal)
        guess = ", which often means that the machine ran out of memory" if ending.signal == signal.SIGKILL else ""
        return _failed("Interrupted", f"the task's process was ended by signal {name}{guess}", Failure.SYSTEM)
    if ending.code is not None:
        told = f"the task's process exited with code {ending.code}, told no error and {fault}"
        return _failed("ProcessExited", told, Failure.SYSTEM)
    return _failed("Interrupted", "the task's process is gone, and nobody saw it end", Failure.SYSTEM)


def _failed(code: str, message: str, failure: Failure, *, retryable: bool = True) -> Failed:
    kind = execution_pb2.ExecutionError.USER if failure is Failure.USER else execution_pb2.ExecutionError.SYSTEM
    document = execution_pb2.ContainerError
    recoverability = document.RECOVERABLE if retryable else document.NON_RECOVERABLE
    error = execution_pb2.ExecutionError(code=code, message=message, kind=kind, recoverability=recoverability)
    return Failed(error=error, failure=failure, retryable=retryable)
