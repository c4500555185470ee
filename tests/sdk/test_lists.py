"""Lists of runs by every filter that the SDK has."""

from __future__ import annotations

import re

from tests.sdk.conftest import Client

_FOUND = {
    "oldest first": ["good", "bad"],
    "newest first": ["bad", "good"],
    "mine": ["good", "bad"],
    "nobody's": [],
    "failed": ["bad"],
    "failed or running": ["bad"],
    "of a task": ["good"],
    "red": ["good"],
    "red and good": ["good"],
    "red and bad": [],
    "of any kind": ["good"],
    "since": ["good", "bad"],
    "before": [],
    "unchanged": [],
    "paused": [],
    "actions": ["listed.good", "listed.child"],
}


def test_what_the_sdk_asks_for_is_what_it_gets(newcomer: Client) -> None:
    """Phases, tasks, people, labels, times and what waits, alone and together."""
    said = newcomer.say("listed")
    assert {case: facts["found"] for case, facts in said.items()} == _FOUND


def test_mine_by_label(newcomer: Client) -> None:
    """``flyte get run`` asks who calls, and for the label."""
    found = re.search(r"runs/(r\w+)", newcomer.flyte("run", "--label", "team=red", "hello.py", "square", "--x", "2"))
    assert found
    name = found[1]
    assert name in newcomer.flyte("get", "run", "--only-mine", "--with-label", "team=red")
    assert name not in newcomer.flyte("get", "run", "--only-mine", "--with-label", "team=blue")
