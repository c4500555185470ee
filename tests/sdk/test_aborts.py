"""Ending runs and actions from outside: everything below ends too, and no process of it is left."""

from __future__ import annotations

import contextlib

import psutil
import pytest

from tests.sdk.conftest import Client


def gone(pids: list[int]) -> bool:
    """Whether the processes end, within the time that they are given."""
    _, alive = psutil.wait_procs([process for pid in pids if (process := _process(pid)) is not None], timeout=10)
    return not alive


def _process(pid: int) -> psutil.Process | None:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid)
    return None


def test_aborting_a_run_ends_all_of_it(client: Client) -> None:
    """The run, its tasks and the processes that those started are gone, also a task that does not listen to SIGTERM."""
    said = client.say("aborts")
    assert (said["run"]["phase"], said["run"]["reason"]) == ("ABORTED", "no longer wanted")
    assert said["run"]["raised"] == "ActionAbortedError"
    assert [child["phase"] for child in said["run children"]["actions"]] == ["ABORTED", "ABORTED"]
    assert len(said["run"]["pids"]) == 4
    assert gone(said["run"]["pids"])


def test_an_aborted_attempt_tells_why_it_was_stopped(client: Client) -> None:
    """Among its events, after the process that it was."""
    started, stopped = client.say("aborts")["run"]["attempts"][0]["events"]
    assert started.startswith("process ")
    assert stopped == "stopped: no longer wanted"


def test_aborting_an_action_is_told_to_its_parent(client: Client) -> None:
    """Only that action ends; its parent gets an exception, and goes on."""
    said = client.say("aborts")
    assert said["action"]["phase"] == "SUCCEEDED"
    assert said["action"]["outputs"][0].startswith("caught: ")
    (child,) = said["action children"]["actions"]
    assert (child["phase"], child["reason"]) == ("ABORTED", "this one only")
    assert gone(said["action"]["pids"])


@pytest.mark.parametrize(("parent", "phase"), [("failed parent", "FAILED"), ("late parent", "TIMED_OUT")])
def test_children_end_with_their_parent(client: Client, parent: str, phase: str) -> None:
    """A parent that fails, or is killed because its time is up, leaves no child running."""
    said = client.say("aborts")
    assert said[parent]["phase"] == phase
    assert ("stopped: " in said[parent]["attempts"][0]["events"][-1]) == (phase == "TIMED_OUT")
    (child,) = said[f"{parent} children"]["actions"]
    assert child["phase"] == "ABORTED"
    assert gone(said[parent]["pids"])
