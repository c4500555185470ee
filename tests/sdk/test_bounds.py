"""Bounds on time: each ends an action as TIMED_OUT, with the code that the SDK makes its own exception of."""

from __future__ import annotations

from tests.sdk.conftest import Client


def test_a_task_may_not_run_for_too_long(client: Client) -> None:
    """``max_runtime`` ends a running attempt, soon after it is due."""
    said = client.say("bounds")["slow"]
    assert (said["phase"], said["code"]) == ("TIMED_OUT", "MAX_RUNTIME_EXCEEDED")
    assert said["raised"] == "MaxRuntimeExceededError"
    (attempt,) = said["attempts"]
    assert 0.5 <= attempt["end"] - attempt["phases"]["RUNNING"] < 5


def test_a_slow_attempt_may_be_repeated(client: Client) -> None:
    """``max_runtime`` is each attempt's own, and a retry of the task is used for the next."""
    attempts = client.say("bounds")["slow twice"]["attempts"]
    assert [(attempt["phase"], attempt["code"]) for attempt in attempts] == [("TIMED_OUT", "MAX_RUNTIME_EXCEEDED")] * 2
    assert all(attempt["end"] - attempt["phases"]["RUNNING"] >= 0.5 for attempt in attempts)


def test_a_deadline_is_for_all_attempts_together(client: Client) -> None:
    """``deadline`` ends the action whatever retries are left."""
    said = client.say("bounds")["overdue"]
    assert (said["phase"], said["code"], said["raised"]) == ("TIMED_OUT", "DEADLINE_EXCEEDED", "DeadlineExceededError")
    assert said["attempts"][-1]["end"] - said["attempts"][0]["phases"]["QUEUED"] >= 1.5
    assert {attempt["code"] for attempt in said["attempts"][:-1]} <= {"ValueError"}


def test_a_task_may_not_wait_for_too_long(client: Client) -> None:
    """``max_queued_time`` ends an attempt that finds no room on the machine; nothing of it ever ran."""
    said = client.say("bounds")
    assert said["queued"]["outputs"] == ["MaxQueuedTimeExceededError"]
    actions = {action["task"]: action for action in said["queued children"]["actions"]}
    assert (actions["crowded_out"]["phase"], actions["crowded_out"]["code"]) == ("TIMED_OUT", "QUEUED_TIMEOUT_EXCEEDED")
    assert "RUNNING" not in actions["crowded_out"]["attempts"][0]["phases"]


def test_a_parent_learns_which_bound_it_was(client: Client) -> None:
    """The exception in the parent is the one of the bound."""
    assert client.say("bounds")["told"]["outputs"] == [["MaxRuntimeExceededError", "DeadlineExceededError"]]
