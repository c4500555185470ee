"""How an attempt ended, from its files and its exit."""

from __future__ import annotations

import signal

import pytest
from flyteidl2.core import execution_pb2
from flyteidl2.task import common_pb2

from flyte_unified.executor.outcome import Failed, Outcome, Succeeded, judge
from flyte_unified.ledger.api import Failure
from flyte_unified.plugins.api import Exit

UNKNOWN, USER, SYSTEM = (execution_pb2.ExecutionError.ErrorKind.Value(name) for name in ("UNKNOWN", "USER", "SYSTEM"))
RECOVERABLE = execution_pb2.ContainerError.RECOVERABLE


def verdict(
    ending: Exit = Exit(code=0),  # noqa: B008  # frozen
    *,
    error: bytes | None = None,
    outputs: bytes | None = None,
    names: tuple[str, ...] = (),
    runtime: bool = True,
) -> Outcome:
    return judge(
        error_file=error,
        outputs_file=outputs,
        outputs=names,
        ending=ending,
        environment="It ran in /python.",
        runtime=runtime,
    )


def failed(outcome: Outcome) -> Failed:
    assert isinstance(outcome, Failed)
    return outcome


def error_file(
    code: str = "ValueError",
    message: str = "no",
    *,
    recoverable: bool = False,
    origin: int = execution_pb2.ExecutionError.UNKNOWN,
) -> bytes:
    document = execution_pb2.ErrorDocument()
    document.error.code, document.error.message = code, message
    document.error.origin = origin
    if recoverable:
        document.error.kind = RECOVERABLE
    return bytes(document.SerializeToString())


def outputs_file(*names: str) -> bytes:
    outputs = common_pb2.Outputs()
    for name in names:
        outputs.literals.add(name=name).value.scalar.primitive.string_value = "x" * 100
    return bytes(outputs.SerializeToString())


@pytest.mark.parametrize(
    "ending", [Exit(code=0), Exit(code=1), Exit(signal=signal.SIGABRT), Exit(signal=signal.SIGKILL), Exit()]
)
def test_complete_outputs_are_a_success_whatever_the_exit(ending: Exit) -> None:
    """A library may crash when the interpreter ends, after the work is done."""
    assert verdict(ending, outputs=outputs_file("o0", "o1"), names=("o0", "o1")) == Succeeded()


def test_an_error_comes_before_outputs() -> None:
    """A task that wrote both has failed."""
    outcome = failed(verdict(error=error_file(), outputs=outputs_file("o0"), names=("o0",)))
    assert (outcome.error.code, outcome.error.message, outcome.error.kind) == ("ValueError", "no", USER)


@pytest.mark.parametrize(
    "outputs",
    [None, b"", outputs_file("o0")[:-20], outputs_file("o1"), b"\xff\xff"],
    ids=["absent", "empty", "cut", "another's", "garbage"],
)
def test_outputs_that_are_not_whole_are_none(outputs: bytes | None) -> None:
    """Where outputs are due, a file without them is no success, not even at exit code 0."""
    outcome = failed(verdict(outputs=outputs, names=("o0",)))
    assert (outcome.error.code, outcome.failure, outcome.retryable) == ("ProcessExited", Failure.SYSTEM, True)


def test_a_task_without_outputs_writes_an_empty_file() -> None:
    """The SDK's file for nothing has no bytes; no file at all means that the task did not get there."""
    assert verdict(outputs=b"") == Succeeded()
    assert failed(verdict()).failure is Failure.SYSTEM


def test_a_program_without_flyte_need_not_say_that_it_has_no_outputs() -> None:
    """Its exit code does; and outputs that were promised are due."""
    assert verdict(runtime=False) == Succeeded()
    for ending in (Exit(code=1), Exit(signal=signal.SIGKILL), Exit()):
        assert isinstance(verdict(ending, runtime=False), Failed)
    assert isinstance(verdict(names=("o0",), runtime=False), Failed)


@pytest.mark.parametrize("error", [b"", b"\xff\xff", error_file()[:-1]], ids=["empty", "garbage", "cut"])
def test_an_error_that_cannot_be_read_is_none(error: bytes) -> None:
    """The other evidence decides."""
    assert verdict(error=error, outputs=outputs_file("o0"), names=("o0",)) == Succeeded()
    assert failed(verdict(Exit(code=1), error=error, names=("o0",))).error.code == "ProcessExited"


@pytest.mark.parametrize("recoverable", [True, False])
def test_the_task_says_whether_another_try_may_help(recoverable: bool) -> None:
    """Its verdict decides about the user's retries."""
    outcome = failed(verdict(error=error_file(recoverable=recoverable)))
    assert (outcome.failure, outcome.retryable) == (Failure.USER, recoverable)
    assert outcome.error.recoverability == (RECOVERABLE if recoverable else execution_pb2.ContainerError.NON_RECOVERABLE)


def test_an_error_of_system_origin_is_charged_to_the_system() -> None:
    """The runtime says that it was not the task's fault."""
    outcome = failed(verdict(error=error_file(recoverable=True, origin=SYSTEM)))
    assert (outcome.failure, outcome.error.kind) == (Failure.SYSTEM, SYSTEM)


@pytest.mark.parametrize(
    ("code", "message", "hint"),
    [
        ("ModuleNotFoundError", "No module named 'numpy'", True),
        ("RuntimeError", "cannot import: ModuleNotFoundError", True),
        ("UnpicklingError", "pickle data was truncated", True),
        ("ValueError", "no", False),
    ],
)
def test_errors_of_the_wrong_environment_say_where_the_task_ran(code: str, message: str, hint: bool) -> None:
    """Other errors are left alone."""
    told = failed(verdict(error=error_file(code, message))).error.message
    assert told == (f"{message}\nIt ran in /python." if hint else message)


@pytest.mark.parametrize(
    ("ending", "code", "words", "failure"),
    [
        (Exit(code=3), "ProcessExited", "code 3", Failure.SYSTEM),
        (Exit(signal=signal.SIGSEGV), "Interrupted", "SIGSEGV", Failure.SYSTEM),
        (Exit(signal=63), "Interrupted", "63", Failure.SYSTEM),
        (Exit(), "Interrupted", "nobody saw it end", Failure.SYSTEM),
        (Exit(signal=signal.SIGKILL, out_of_memory=True), "OOMKilled", "memory", Failure.USER),
    ],
)
def test_a_crash_without_files(ending: Exit, code: str, words: str, failure: Failure) -> None:
    """Charged to the system and worth another try; too much memory is the user's."""
    outcome = failed(verdict(ending))
    assert (outcome.error.code, outcome.failure, outcome.retryable) == (code, failure, True)
    assert words in outcome.error.message
    assert outcome.error.kind == (USER if failure is Failure.USER else SYSTEM)
