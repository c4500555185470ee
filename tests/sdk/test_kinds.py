"""Tasks that are more than a function: some need no process, some run as any other, some not here."""

from __future__ import annotations

import re
import sys

import pytest

from tests.sdk.conftest import Client


def test_a_sleeping_task_needs_no_process(client: Client) -> None:
    """``Sleep`` tasks last as long as their input says, twenty at once no longer than one."""
    said = client.say("kinds")
    (attempt,) = said["nap"]["attempts"]
    assert attempt["phases"]["SUCCEEDED"] - attempt["phases"]["RUNNING"] == pytest.approx(0.2)
    assert attempt["events"] == []
    naps = said["naps children"]["actions"]
    assert [nap["phase"] for nap in naps] == ["SUCCEEDED"] * 20
    assert said["naps"]["outputs"][0][0] < 20 * 0.3


@pytest.mark.parametrize("case", ["reused", "pod", "named pod"])
def test_reuse_and_pods_are_ordinary_processes(client: Client, case: str) -> None:
    """What a cluster would make of a task's environment does not matter on a laptop."""
    said = client.say("kinds")[case]
    assert said["phase"] == "SUCCEEDED"
    (pid,) = said["outputs"]
    assert f"process {pid} started" in said["attempts"][0]["events"][0]


def test_they_are_children_too(client: Client) -> None:
    """Such tasks can be called by others; each call has a process of its own."""
    (pids,) = client.say("kinds")["children"]["outputs"]
    assert len(set(pids)) == 2


@pytest.mark.parametrize(
    ("case", "code", "sentence"),
    [
        ("spark", "MissingLibrary", "needs the module 'pyspark', and {python} has none: uv pip install --python {python} "),
        ("unknown", "UnsupportedTaskType", "of type 'quantum' is run by a connector, and connectors.endpoints names none"),
    ],
)
def test_what_cannot_run_here_fails_at_once(client: Client, case: str, code: str, sentence: str) -> None:
    """One attempt that never ran, and a sentence that says what would run the task."""
    said = client.say("kinds")[case]
    assert (said["phase"], said["code"]) == ("FAILED", code)
    assert sentence.format(python=sys.executable) in said["message"]
    (attempt,) = said["attempts"]
    assert "RUNNING" not in attempt["phases"]


def test_a_task_may_have_links_of_its_own(client: Client) -> None:
    """They stand beside the link to its log, without a variable left in them."""
    said = client.say("kinds")["tracker children"]
    (child,) = said["actions"]
    tracker = f"https://tracker.example/programs/{said['run']}/{child['name']}/{said['run']}-{child['name']}-0-"
    assert re.fullmatch(rf"{re.escape(tracker)}[0-9a-f]{{6}}", child["attempts"][0]["links"]["Tracker"])
    assert child["attempts"][0]["links"]["Log"].startswith(client.backend.address)
