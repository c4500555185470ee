"""Artifacts as the SDK publishes, finds and binds them, as its command line shows them, and what they start."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.sdk.conftest import Client, Said

ARTIFACT_TRIGGER, TYPE_ARTIFACT, ON_ARTIFACT = 5, 3, 5
"""flyteidl2.workflow.RunSource; flyteidl2.task.TriggerAutomationSpecType; flyteidl2.common.RelationType"""

MONDAY, TUESDAY = "2026-09-14", "2026-09-15"


def said(client: Client) -> dict[str, Said]:
    return client.say("artifacts")


def test_what_a_task_produced_is_an_artifact(client: Client) -> None:
    """With its version by the action, its kind, card, attrs and partitions; its value tells where it comes from."""
    facts, run = said(client)["latest"], said(client)["run 2"]["run"]
    assert facts["version"] == f"{run}-a0-0"
    assert facts["source"] == f"run {run}/a0 (attempt 0)"
    assert facts["stamp"] == f"events@{run}-a0-0"
    assert (facts["kind"], facts["card"], facts["description"]) == ("data", "data", "of eu")
    assert facts["partitions"] == {"date": TUESDAY, "region": "eu"}
    assert facts["created_by"]


def test_artifacts_are_found(client: Client) -> None:
    """By partition, run, kind and attrs, a range of days, part of a name; with the values that a partition has."""
    facts = said(client)
    assert facts["of a partition"]["partitions"] == {"date": MONDAY, "region": "us"}
    assert [each["version"] for each in facts["of a run"]["found"]] == [facts["latest"]["version"]]
    assert facts["of a kind"]["regions"] == ["eu", "eu", "us"]
    assert facts["in a range"]["found"] == [{"date": TUESDAY, "region": "eu"}]
    assert facts["schema"] == {"case": "schema", "keys": ["date", "region"], "declared": False}
    assert (facts["values"]["regions"], facts["values"]["days"]) == (["eu", "us"], [MONDAY, TUESDAY])
    assert facts["of a day"]["regions"] == ["eu"]
    assert facts["groups"]["groups"] == [["events", 3, TUESDAY]]
    assert "there is no artifact 'nothing'" in facts["unknown"]["error"]


def test_only_a_success_produces_and_once(client: Client) -> None:
    """Of a task that is tried again there is the second attempt's; a result that comes from the cache is no version more."""
    (steady,) = said(client)["steady"]["found"]
    assert steady["source"].endswith("(attempt 1)")
    (cleaned,) = said(client)["cleaned"]["found"]
    assert (cleaned["version"], cleaned["parents"]) == ("v-a", ["v0"])
    assert cleaned["source"].startswith(f"run {said(client)['cached 0']['run']}/")


def test_a_declaration_that_can_not_be_met_is_told(client: Client) -> None:
    """The task succeeds: its attempt tells which version exists with another content."""
    facts = said(client)["clumsy"]
    assert facts["phase"] == "SUCCEEDED"
    (told,) = [event for event in facts["attempts"][0]["events"] if "artifact events" in event]
    assert "'pinned' exists, with another spec.value" in told


def test_artifacts_are_published_by_hand(client: Client) -> None:
    """Twice the same is one; another content, or other partitions than the name's, is refused and told why."""
    facts = said(client)
    assert (facts["published"]["same"], facts["published"]["kind"]) == (True, "model")
    assert facts["published"]["source"] == "hub://model"
    assert facts["imported"]["versions"] == ["1"]
    assert "with another spec.value" in facts["other content"]["error"]
    assert facts["declared"] == {"case": "declared", "keys": ["date", "region"], "declared": True}
    assert "date (day), region, not the partition keys region" in facts["no fit"]["error"]


def test_a_task_publishes_by_a_call(client: Client) -> None:
    """And is the source of what it publishes."""
    facts = said(client)
    assert facts["publisher"]["outputs"] == ["1"]
    assert facts["inside"]["source"] == f"run {facts['publisher']['run']}/a0 (attempt 0)"


def test_artifacts_are_inputs(client: Client) -> None:
    """Alone and in lists; the run's inputs say which version they are."""
    assert said(client)["as inputs"]["outputs"] == [["by hand"] * 3]
    assert said(client)["stamped"]["version"] == "1"


def test_an_artifact_starts_runs(client: Client) -> None:
    """Those whose partitions match, each once, with the file, its day and region as inputs; the run that made it is related."""
    facts = said(client)
    for number, day in enumerate((MONDAY, TUESDAY)):
        fired = facts[f"on events {number}"]
        assert fired["outputs"] == [f"eu {day} | {day} | eu | 3"]
        made_by = facts[f"run {number + 1}"]["run"]
        assert fired["origin"] == {"source": ARTIFACT_TRIGGER, "type": TYPE_ARTIFACT, "related": made_by}
        assert (fired["relation"], fired["labels"]) == (ON_ARTIFACT, {"made": "by-trigger"})
    assert facts["fired"]["runs"] == {"on_events": 2, "pinned": 1, "paused": 0}
    assert facts["pinned"]["outputs"] == ["by hand | 2000-01-01 | none | 0"]


def shown(client: Client, *arguments: str, **options: Any) -> str:
    """What ``flyte`` says, without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", client.flyte(*arguments, **options))


def test_the_command_line(newcomer: Client, tmp_path: Path) -> None:
    """``create artifact`` and ``get artifact``: names, versions, one version, one partition, and what is unknown."""
    (tmp_path / "model.pt").write_text("weights")
    for version, day in (("1", MONDAY), ("2", TUESDAY)):
        published = shown(
            newcomer, "create", "artifact", "weights", "--from-file", "model.pt", "--version", version, "--kind", "model",
            "--attr", "framework=torch", "--partition", f"date={day}", cwd=tmp_path,
        )  # fmt: skip
        assert f"Published artifact weights@{version}" in published
    get = ("get", "artifact")
    assert "'versions': '2'" in shown(newcomer, "-of", "json", *get, "--search", "weigh")
    versions = shown(newcomer, "-of", "json", *get, "weights", "--attr", "framework=torch", "--kind", "model")
    assert versions.index("'version': '2'") < versions.index("'version': '1'")
    assert "'version'" not in shown(newcomer, "-of", "json", *get, "weights", "--attr", "framework=jax")
    assert "'framework': 'torch'" in shown(newcomer, *get, "weights", "1")
    assert "'version': '1'" in shown(newcomer, *get, "weights", "--partition", f"date={MONDAY}")
    assert "there is no artifact weights@3" in newcomer.flyte(*get, "weights", "3", fails=True)
