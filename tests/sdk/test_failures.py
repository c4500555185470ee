"""How tasks fail, who pays for another attempt, and what is told of it."""

from __future__ import annotations

import itertools
import sys

import pytest

from tests.sdk.conftest import Client, Said

COLD = ("survivor", "crash at exit")
"""Ends of a process, whose parent is another one there; errors that are written to a file are alike from any start."""
WARM = (
    *COLD,
    *("lucky", "hopeless"),
    *("stubborn", "patient", "exits", "killed", "truncated", "missing", "library", "memory"),
    *("caught", "caught crash", "uncaught"),
)
SYSTEM_ATTEMPTS = 4
"""Of the setting execution.system_retries, one more."""


def told(client: Client) -> dict[str, Said]:
    return client.say("failures", *(WARM if client.warm else COLD))


def codes(said: dict[str, object]) -> list[tuple[str, str]]:
    attempts = said["attempts"]
    assert isinstance(attempts, list)
    return [(attempt["phase"], attempt["code"]) for attempt in attempts]


def test_a_task_is_tried_again_until_it_succeeds(client: Client) -> None:
    """A user's error costs one of the task's own retries; the attempt that succeeds is the last."""
    said = told(client)["lucky"]
    assert said["outputs"] == [2]
    assert codes(said) == [("FAILED", "ValueError"), ("FAILED", "ValueError"), ("SUCCEEDED", "")]


def test_a_crash_is_tried_again_though_the_task_asks_for_no_retries(either: Client) -> None:
    """A process that was killed is the system's failure."""
    said = told(either)["survivor"]
    assert said["outputs"] == [1]
    assert codes(said) == [("FAILED", "Interrupted"), ("SUCCEEDED", "")]


def test_a_crash_after_the_outputs_is_a_success(either: Client) -> None:
    """SIGABRT at interpreter exit does not undo what was done."""
    said = told(either)["crash at exit"]
    assert (said["phase"], said["outputs"]) == ("SUCCEEDED", [7])
    assert "ended by signal 6" in said["attempts"][0]["events"]


def test_an_error_that_forbids_retries_gets_none(client: Client) -> None:
    """NonRecoverableError ends the action, whatever retries are left."""
    said = told(client)["hopeless"]
    assert (said["message"], said["raised"]) == ("there is no other way", "RuntimeUserError")
    assert codes(said) == [("FAILED", "NonRecoverableError")]


def test_truncated_outputs_are_a_failure(client: Client) -> None:
    """Exit code 0 is not believed when outputs.pb can't be read."""
    said = told(client)["truncated"]
    assert codes(said) == [("FAILED", "ProcessExited")] * SYSTEM_ATTEMPTS
    assert "left a damaged outputs.pb" in said["message"]


def test_missing_outputs_are_a_failure(client: Client) -> None:
    """Exit code 0 is not believed when there is no outputs.pb."""
    said = told(client)["missing"]
    assert (said["phase"], said["raised"]) == ("FAILED", "RuntimeSystemError")
    assert "exited with code 0, told no error and left no outputs" in said["message"]


def test_each_attempt_keeps_its_own_error(client: Client) -> None:
    """The details of an action show what went wrong in every attempt."""
    said = told(client)["stubborn"]
    assert [attempt["message"] for attempt in said["attempts"]] == [f"no luck in attempt {number}" for number in range(3)]
    assert {attempt["phase"] for attempt in said["attempts"]} == {"FAILED"}
    assert said["message"] == "no luck in attempt 2"


def test_retries_are_paced(client: Client) -> None:
    """The n-th retry starts no sooner than ``min(base * factor**n, cap)`` after the failure before it."""
    attempts = told(client)["patient"]["attempts"]
    waits = [after["phases"]["INITIALIZING"] - before["end"] for before, after in itertools.pairwise(attempts)]
    assert len(waits) == 3
    assert all(wait >= least for wait, least in zip(waits, (0.3, 0.6, 0.8), strict=True)), waits


def test_crashes_have_a_budget_of_their_own(client: Client) -> None:
    """A task that always exits early burns none of its five retries, and ends."""
    said = told(client)["exits"]
    assert codes(said) == [("FAILED", "ProcessExited")] * SYSTEM_ATTEMPTS
    assert "exited with code 41" in said["message"]
    assert said["message"].endswith("tried 4 times, and execution.system_retries allows no more")


def test_a_signal_is_named(client: Client) -> None:
    """A killed task's message says by which signal, and what that often means."""
    said = told(client)["killed"]
    assert said["code"] == "Interrupted"
    assert [attempt["events"][-1] for attempt in said["attempts"]] == ["ended by signal 9"] * SYSTEM_ATTEMPTS
    assert "ended by signal SIGKILL, which often means that the machine ran out of memory" in said["message"]


def test_a_missing_module_names_the_interpreter(client: Client) -> None:
    """Whoever reads the error learns where the task ran, and how to have it run elsewhere."""
    said = told(client)["library"]
    assert said["code"] == "ModuleNotFoundError"
    assert f"This task ran in {sys.executable}." in said["message"]
    assert "FLYTE_UNIFIED_PYTHON=PATH" in said["message"]


def test_a_module_that_cannot_be_imported_is_told(client: Client) -> None:
    """An error before the task's first line is an error of the user's, with the interpreter's name."""
    said = client.say("broken")["import"]
    assert (said["phase"], said["raised"]) == ("FAILED", "RuntimeUserError")
    assert "a_library_that_nobody_has" in said["message"]
    assert f"This task ran in {sys.executable}." in said["message"]


def test_memory_has_a_limit(client: Client) -> None:
    """A task that takes more than its limit is killed, uses its own retries, and its parent gets an OOMError."""
    said = told(client)
    assert said["memory"]["outputs"] == ["the task used more memory than its limit allows and was killed"]
    (child,) = said["memory children"]["actions"]
    assert codes(child) == [("FAILED", "OOMKilled")] * 2
    assert {attempt["events"][-1] for attempt in child["attempts"]} == {"killed: it used more memory than its limit"}


def test_what_the_machine_does_not_have_is_told_at_once(client: Client) -> None:
    """A task that asks for more GPUs than there are does not wait for them."""
    said = client.say("failures", "graphics")["graphics"]
    if said["phase"] == "SUCCEEDED":
        pytest.skip("this machine has a GPU")
    assert codes(said) == [("FAILED", "ResourcesUnavailable")]
    assert "the task asks for 1 GPU(s), more than this machine has" in said["message"]


def test_a_parent_catches_what_its_child_raised(client: Client) -> None:
    """Code and message of a child's error arrive in the parent's exception, a crash as a system error."""
    said = told(client)
    assert said["caught"]["outputs"] == ["RuntimeUserError NonRecoverableError: there is no other way"]
    assert said["caught crash"]["outputs"] == ["RuntimeSystemError Interrupted"]


def test_an_error_that_nobody_catches_ends_the_run(client: Client) -> None:
    """The child's error is the parent's."""
    said = told(client)
    assert (said["uncaught"]["phase"], said["uncaught"]["code"]) == ("FAILED", "NonRecoverableError")
    assert [child["phase"] for child in said["uncaught children"]["actions"]] == ["FAILED"]
