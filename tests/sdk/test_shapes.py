"""What programs are made of works, and alike from warm and from cold processes."""

from __future__ import annotations

import sys

from tests.sdk.conftest import Client, Said

COLD = ("nested", "report", "checkpoint", "environment", "logs")
"""What the start of a process has a hand in: its arguments, variables, streams, and what it finds on the disk."""
WARM = (*COLD, "map", "trace", "starts", "deep", "group", "context", "files")


def told(client: Client) -> dict[str, Said]:
    return client.say("shapes", *(WARM if client.warm else COLD))


def test_tasks_call_tasks(either: Client) -> None:
    """A parent gets the results of its children, each an action of its own below the parent."""
    said = told(either)
    assert said["nested"]["outputs"] == [5]
    children = said["nested children"]["actions"]
    assert [child["task"] for child in children] == ["square"] * 3
    assert {child["parent"] for child in children} == {"a0"}


def test_a_map_is_a_group_of_actions(client: Client) -> None:
    """``flyte.map`` keeps the order of its inputs, and its actions share a group."""
    said = told(client)
    assert said["map"]["outputs"] == [[0, 2, 4]]
    children = said["map children"]["actions"]
    assert len(children) == 3
    assert len({child["group"] for child in children} - {""}) == 1


def test_a_trace_is_recorded_below_its_task(client: Client) -> None:
    """Each traced call is an action that has ended, without an attempt of its own to run."""
    said = told(client)
    assert said["trace"]["outputs"] == ["one two many"]
    assert [(child["task"], child["phase"]) for child in said["trace children"]["actions"]] == [("spelled", "SUCCEEDED")] * 3


def test_a_report_can_be_read(either: Client) -> None:
    """What a task flushed as its report is what ``run.get_report`` downloads."""
    assert "<h1>All is well</h1>" in told(either)["report"]["html"]


def test_a_checkpoint_reaches_the_next_attempt(either: Client) -> None:
    """An attempt loads what the attempt before it saved; attempts are numbered from 0 in the environment."""
    said = told(either)["checkpoint"]
    assert said["outputs"] == [["attempt0", "attempt1", "attempt2"]]
    assert [attempt["phase"] for attempt in said["attempts"]] == ["FAILED", "FAILED", "SUCCEEDED"]


def test_the_start_of_a_run_is_the_same_in_every_attempt(client: Client) -> None:
    """``run_start_time`` does not move when a task is retried."""
    (seen,) = told(client)["starts"]["outputs"]
    assert len(seen) == 2
    assert len(set(seen)) == 1


def test_variables_of_the_run_stand_above_those_of_the_task(either: Client) -> None:
    """Variables reach the process; what would lead it to another server does not."""
    (seen,) = told(either)["environment"]["outputs"]
    assert (seen["FROM_TASK"], seen["FROM_RUN"], seen["FROM_BOTH"]) == ("task", "run", "run")
    assert seen["FLYTE_ATTEMPT_NUMBER"] == "0"
    assert seen["DO_NOT_TRACK"] == "1"
    assert "FLYTECTL_CONFIG" not in seen
    assert seen["interpreter"] == sys.executable


def test_lines_of_both_streams_are_in_the_log(either: Client) -> None:
    """What a task writes to stdout and stderr is read back line by line, an unfinished last line too."""
    lines = [line.strip() for line in told(either)["logs"]["lines"]]
    assert [line for line in lines if "[flyte]" not in line] == ["first line", "to stderr", "a line without an end"]


def test_a_tower_of_tasks_stands(client: Client) -> None:
    """Parents that wait for parents that wait end in the right order."""
    assert told(client)["deep"]["outputs"] == [3]


def test_a_group_has_its_name(client: Client) -> None:
    """Actions that were started within ``flyte.group`` carry its name."""
    said = told(client)
    assert said["group"]["outputs"] == [61]
    assert [child["group"] for child in said["group children"]["actions"]] == ["pair", "pair"]


def test_custom_context_goes_down(client: Client) -> None:
    """A child sees the context of its run and what its parent added to it."""
    assert told(client)["context"]["outputs"] == [{"colour": "blue", "shade": "dark"}]


def test_files_and_directories_go_in_and_out(client: Client) -> None:
    """A local file is uploaded as an input; tasks hand files and directories on; a result is read by the client."""
    said = told(client)["files"]
    assert said["text"] == "QUIET WORDS"
    assert said["names"] == ["one.txt", "two.txt"]
