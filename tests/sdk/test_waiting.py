"""Conditions: a run pauses until somebody says a word, or until nobody did."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.sdk.conftest import Client


class Conversation:
    """With ``waiting.py``, which goes on when it is told to."""

    def __init__(self, client: Client, program: subprocess.Popen[str]) -> None:
        assert program.stdin is not None
        assert program.stdout is not None
        self.client = client
        self._to, self._from = program.stdin, program.stdout
        self._said: dict[str, dict[str, Any]] = {}

    def hear(self, case: str) -> dict[str, Any]:
        while case not in self._said:
            line = self._from.readline()
            assert line, f"the program ended before it said {case!r}"
            if line.startswith('{"case"'):
                facts = json.loads(line)
                self._said[facts["case"]] = facts
        return self._said[case]

    def go_on(self) -> None:
        self._to.write("\n")
        self._to.flush()


@pytest.fixture(scope="module")
def program(client: Client) -> Iterator[Conversation]:
    with client.popen("waiting.py") as process:
        try:
            yield Conversation(client, process)
        finally:
            process.kill()


def test_a_signal_has_the_condition_s_type(program: Conversation) -> None:
    """Conditions are listed while they wait, with the type that they expect; each value arrives as it was sent."""
    said = program.hear("signalled")
    assert said["seen"] == ["sure: bool", "count: int", "share: float", "word: str"]
    assert said["outputs"] == [["True", "7", "0.25", "'fine'"]]


def test_a_condition_times_out(program: Conversation) -> None:
    """When nobody signals in time, the condition is TIMED_OUT, and its task hears of it as an exception."""
    assert program.hear("timeout")["outputs"] == ["ConditionTimedoutError"]
    (condition,) = program.hear("timeout children")["actions"]
    assert (condition["task"], condition["phase"]) == ("anyone", "TIMED_OUT")
    assert condition["message"] == "nobody signalled within 0.3 s"


def test_the_command_line_signals(program: Conversation) -> None:
    """The command that the console shows refuses a value of another type, takes a right one, and is refused the second time."""
    waiting = program.hear("waiting")
    page = f"/v2/domain/development/project/programs/runs/{waiting['run']}?i={waiting['action']}"
    with urllib.request.urlopen(program.client.backend.address + page) as shown:
        found = re.search(r"<code>flyte (signal .+?)</code>", shown.read().decode())
    assert found
    verb, what, *where = found[1].split()
    assert (verb, what) == ("signal", "condition")
    assert waiting["condition"] in program.client.flyte("get", "condition", waiting["run"])
    assert "bool" in program.client.flyte("signal", "condition", *where, "perhaps", fails=True)
    program.client.flyte("signal", "condition", *where, "true")
    assert "was signalled with another" in program.client.flyte("signal", "condition", *where, "false", fails=True)
    program.go_on()
    assert program.hear("signalled from outside")["outputs"] == [True]
