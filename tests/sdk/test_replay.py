"""A parent that is started again goes on where it was."""

from __future__ import annotations

import pytest

from tests.sdk.conftest import Client


@pytest.mark.parametrize("how", ["killed", "raised"])
def test_what_was_done_is_not_done_again(client: Client, how: str) -> None:
    """After a crash, and after an error of its own, a parent gets the results of children and traces that had succeeded."""
    said = client.say("replay")
    assert said[how]["outputs"] == [["FIRST", "Second", "a trace may fail", "THIRD", "Fourth"]]
    assert [attempt["phase"] for attempt in said[how]["attempts"]] == ["FAILED", "SUCCEEDED"]
    lines = said[f"{how} diary"]["lines"]
    assert [line for line in lines if line != "trace that fails"] == [
        "child first",
        "trace second",
        "child third",
        "trace fourth",
    ]


@pytest.mark.parametrize("how", ["killed", "raised"])
def test_a_trace_that_failed_is_tried_again(client: Client, how: str) -> None:
    """Its action is known as failed, with its error, which does not keep the next attempt from trying."""
    said = client.say("replay")
    assert said[f"{how} diary"]["lines"].count("trace that fails") == 2
    (failed,) = [child for child in said[f"{how} children"]["actions"] if child["task"] == "fails"]
    assert (failed["phase"], failed["message"]) == ("FAILED", "a trace may fail")
    assert failed["attempts"][0]["code"] == "ValueError"
