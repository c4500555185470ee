"""Triggers as the SDK deploys them, and as its command line shows and changes them; some fire, by the real clock."""

from __future__ import annotations

import re
import time
from datetime import datetime
from pathlib import Path

import pytest

from tests.sdk.conftest import Client, Said

BY_CLI, BY_SCHEDULE = 2, 3
"""flyteidl2.workflow.RunSource"""

PROGRAM = """
import flyte
from datetime import datetime

env = flyte.TaskEnvironment(name="nightly")


@env.task{triggers}
async def main(trigger_time: datetime = datetime(2000, 1, 1), x: int = 1) -> str:
    return f"{{trigger_time}} {{x}}"
"""


def said(client: Client) -> dict[str, Said]:
    return client.say("triggers")


def ticks(client: Client) -> list[list[str]]:
    """The words of the first three runs of the trigger that fires every second."""
    return [said(client)[f"tick {number}"]["outputs"][0].split() for number in range(3)]


def test_a_trigger_fires_every_second(client: Client) -> None:
    """Its times are a second apart; the task has each as its input and as the start of its run, the same to the microsecond."""
    whens = [datetime.fromisoformat(when) for when, *_ in ticks(client)]
    assert [(later - whens[0]).total_seconds() for later in whens] == [0, 1, 2]
    assert all(when == start for when, start, *_ in ticks(client))


def test_a_triggered_run_has_what_the_trigger_says(client: Client) -> None:
    """Inputs, context and labels; where it comes from is told with it."""
    for number, (_, _, x, who) in enumerate(ticks(client)):
        assert (x, who) == ("3", "trigger")
        origin = said(client)[f"tick {number}"]["origin"]
        assert origin["labels"] == {"made": "by-trigger"}
        assert (origin["trigger"], origin["task"], origin["revision"]) == ("tick", "triggers.stamp", 1)
        assert origin["source"] == BY_SCHEDULE


def test_a_paused_trigger_is_still(client: Client) -> None:
    paused = said(client)["paused"]
    assert paused["before"] == paused["after"] >= 3


def test_a_rate_begins_at_its_start(client: Client) -> None:
    """``FixedRate(..., start_time=...)``: the first fire is the start itself."""
    once = said(client)["once"]
    assert once["outputs"] == [once["start"]]
    assert once["origin"]["source"] == BY_SCHEDULE


def test_a_trigger_is_run_by_hand(client: Client) -> None:
    """``flyte.run(trigger)``: with its own inputs, or others; one that is paused too, whose time is then the run's."""
    default = "2000-01-01T00:00:00+00:00"
    words = said(client)["by hand"]["outputs"][0].split()
    assert (words[0], words[2:]) == (default, ["5", "None"])
    assert said(client)["by hand"]["origin"]["trigger"] == "by_hand"
    assert said(client)["with another input"]["outputs"][0].split()[2] == "9"
    when, start, x, who = said(client)["a paused one"]["outputs"][0].split()
    assert (when, x, who) == (start, "11", "trigger")


def test_triggers_are_listed(client: Client) -> None:
    """Page by page; what starts at an artifact is kept like the others; details say when it fired last."""
    assert said(client)["listed"]["triggers"] == {"by_hand": True, "on_model": True, "tick": False}
    assert said(client)["details"]["last"] > time.time() - 600
    assert said(client)["details"]["revision"] == 2


def active(client: Client, name: str, task: str) -> str:
    """As the list of a task's triggers shows it."""
    (line,) = [line for line in client.flyte("get", "trigger", task).splitlines() if name in line]
    (shown,) = re.findall(r"True|False", line)
    return str(shown)


@pytest.fixture
def nightly(newcomer: Client, tmp_path: Path) -> Path:
    """A directory with a program, deployed without triggers."""
    directory = tmp_path / "nightly"
    directory.mkdir()
    (directory / "program.py").write_text(PROGRAM.format(triggers=""))
    newcomer.flyte("deploy", "program.py", "env", cwd=directory)
    return directory


def test_the_command_line(newcomer: Client, nightly: Path) -> None:
    """``create``, ``get``, ``update`` and ``delete trigger``, and what is said of one that is unknown or can't be."""
    task = "nightly.main"
    created = newcomer.flyte("create", "trigger", task, "daily", "--schedule", "0 6 * * *", "--description", "at six")
    assert "Trigger daily created" in created
    newcomer.flyte("create", "trigger", task, "manual")
    assert "1 fields" in newcomer.flyte("create", "trigger", task, "broken", "--schedule", "daily", fails=True)
    listed = newcomer.flyte("get", "trigger")
    assert "cron: 0 6 * * * (UTC)" in listed
    assert "manual" in listed
    newcomer.flyte("update", "trigger", "daily", task, "--deactivate")
    assert active(newcomer, "daily", task) == "False"
    newcomer.flyte("update", "trigger", "daily", task, "--activate")
    assert active(newcomer, "daily", task) == "True"
    newcomer.flyte("delete", "trigger", "manual", task)
    assert "manual" not in newcomer.flyte("get", "trigger")
    assert "no trigger 'none'" in newcomer.flyte("get", "trigger", task, "none", fails=True)
    assert "no trigger 'none'" in newcomer.flyte("update", "trigger", "none", task, "--activate", fails=True)


def test_a_redeployment_replaces_triggers(newcomer: Client, nightly: Path) -> None:
    """Those of the code are all that the task has; where the code has none any more, they stay, as nothing says otherwise."""

    def deploy(triggers: str) -> list[str]:
        (nightly / "program.py").write_text(PROGRAM.format(triggers=triggers))
        newcomer.flyte("deploy", "program.py", "env", cwd=nightly)
        listed = newcomer.flyte("get", "trigger", "nightly.main")
        return [name for name in ("daily", "hourly", "manual") if name in listed]

    newcomer.flyte("create", "trigger", "nightly.main", "manual")
    assert deploy("(triggers=[flyte.Trigger.daily(), flyte.Trigger.hourly('trigger_time')])") == ["daily", "hourly"]
    assert deploy("(triggers=flyte.Trigger.hourly('trigger_time'))") == ["hourly"]
    assert deploy("") == ["hourly"]
