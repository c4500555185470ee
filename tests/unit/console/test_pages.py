"""Pages of runs and actions: what they show, and where they lead."""

from __future__ import annotations

from dataclasses import replace

import pytest
from flyteidl2.core import catalog_pb2, execution_pb2
from flyteidl2.workflow import run_definition_pb2

from flyte_unified.core.clock import timestamp
from flyte_unified.core.ids import RunKey
from flyte_unified.core.phases import Phase
from flyte_unified.db.api import Database
from flyte_unified.ledger.api import ActionType, Failure, Move, Retry
from flyte_unified.notifications import store
from flyte_unified.notifications.model import Channel, Delivery
from tests.unit.console.conftest import ROOT, START, Console, outline

PROJECT = "/v2/domain/development/project/flytesnacks"
PAGE = f"{PROJECT}/runs/rfirst"
ERROR = execution_pb2.ExecutionError(code="OOMKilled", message="too much", kind=execution_pb2.ExecutionError.SYSTEM)


async def test_a_run_at_the_address_that_the_sdk_prints(console: Console) -> None:
    """Phase, task, labels, inputs, outputs and the actions it started stand on one page."""
    await console.run(labels={"team": "core"}, x=41)
    await console.end(await console.child("step1"), seconds=2.5)
    await console.end(ROOT, o0=42)
    page = await console.see(PAGE)
    for text in ("main Succeeded", "rfirst", "pipeline.main", "team core", "x 41", "o0 42", "step step1 Succeeded", "2.5 s"):
        assert text in page.text, text
    assert page.refreshes() is None


async def test_an_action_chosen_as_the_sdk_does(console: Console) -> None:
    """``?i=`` shows that action, below the ones it comes from; what it started is its own."""
    await console.run()
    await console.child("outer", task="pipeline.outer")
    await console.child("inner", parent="outer", task="pipeline.inner", x=1)
    await console.child("other", task="pipeline.other")
    page = await console.see(f"{PAGE}?i=outer")
    assert "Task outer Queued" in page.text
    assert "inner inner Queued" in page.text
    assert "other" not in page.text
    assert page.links["rfirst"] == PAGE
    assert page.links["inner"] == f"{PAGE}?i=inner"


async def test_every_attempt_is_told(console: Console) -> None:
    """Each attempt has its phases, error and log; the last error stands at the top."""
    await console.run()
    await console.ledger.move(ROOT, Move(to=Phase.RUNNING))
    await console.ledger.move(ROOT, Retry(attempt=1, error=ERROR, failure=Failure.SYSTEM))
    await console.end(ROOT, Phase.FAILED)
    page = await console.see(PAGE)
    assert "ValueError (user error) bad value" in page.text
    assert "Attempt 1 Failed" in page.text
    assert "OOMKilled too much" in page.text
    assert page.text.index("Attempt 2") < page.text.index("Attempt 1")
    logs = {attributes.get("href") for element, attributes in page.elements if element == "a"}
    assert {console.pages.log_link(ROOT, attempt) for attempt in (1, 2)} <= logs


async def test_a_notification_that_nobody_took(console: Console, database: Database) -> None:
    """Is told on its run's page, with the reason and what comes of it."""
    await console.run()
    given_up = Delivery(action=ROOT, number=0, channel=Channel.WEBHOOK, created_at=START, tries=1, error="h answered 404")
    waiting = replace(given_up, number=1, due_at=START, error="<h> answered 503")
    await database.write(lambda: store.add([given_up, waiting]))
    page = await console.see(PAGE)
    assert "Not delivered webhook: h answered 404; given up webhook: <h> answered 503; tried again" in page.text


async def test_links_of_an_attempt(console: Console) -> None:
    """A plugin's links are shown; our own log once; what is no web address is no link."""
    await console.run()
    details = run_definition_pb2.ActionAttempt()
    for name, uri in {
        "Log": f"http://localhost:30080{console.pages.log_link(ROOT, 1)}",
        "Dashboard": "https://ray.example.org/",
        "Trap": "javascript:alert(1)",
    }.items():
        details.log_info.add(name=name, uri=uri)
    details.cluster_events.add(occurred_at=timestamp(console.clock.now()), reason="Started", message="process 7 started")
    await console.ledger.move(ROOT, Move(to=Phase.RUNNING, details=details))
    page = await console.see(PAGE)
    assert page.links["Log"] == console.pages.log_link(ROOT, 1)
    assert page.links["Dashboard"] == "https://ray.example.org/"
    assert "Trap" in page.text
    assert "Trap" not in page.links
    assert page.text.count("Log") == 1
    assert "Started process 7 started" in page.text


async def test_a_cached_action_has_no_log(console: Console) -> None:
    """A hit ran nothing: its cache status stands where its log would."""
    await console.run()
    await console.ledger.move(ROOT, Move(to=Phase.SUCCEEDED, cache_status=catalog_pb2.CACHE_HIT))
    page = await console.see(PAGE)
    assert "Cache Hit" in page.text
    assert "Log" not in page.links


async def test_an_aborted_run_says_why_and_by_whom(console: Console) -> None:
    """The reason of an abort is shown like an error."""
    await console.run()
    await console.ledger.move(ROOT, Move(to=Phase.ABORTED, reason="no longer needed", principal="ada"))
    assert "Aborted by ada no longer needed" in (await console.see(PAGE)).text


async def test_a_condition_says_how_to_answer(console: Console) -> None:
    """A condition that waits shows its prompt and the command; an answered one its value."""
    await console.run()
    spec = run_definition_pb2.ConditionAction(name="approve", prompt="Ship it?").SerializeToString()
    await console.note("approve", ActionType.CONDITION, spec=spec, phase=Phase.PAUSED)
    page = await console.see(f"{PAGE}?i=approve")
    assert "Condition approve Paused" in page.text
    assert "Ship it? flyte signal condition -p flytesnacks -d development rfirst approve takes the answer." in page.text
    assert "Log" not in page.links


async def test_a_page_refreshes_while_it_is_live(console: Console) -> None:
    """Often at first, less later; not when paused, and not after the end."""
    await console.run()
    young = await console.see(PAGE)
    assert young.refreshes() == "2"
    assert young.links["Pause"] == f"{PAGE}?live=off"
    paused = await console.see(f"{PAGE}?live=off")
    assert paused.refreshes() is None
    assert paused.links["Go on"] == PAGE
    assert (await console.see("/v2")).refreshes() == "5"
    console.clock.pass_(3600)
    assert (await console.see(PAGE)).refreshes() == "15"
    await console.end(ROOT)
    assert (await console.see(PAGE)).refreshes() is None
    assert (await console.see("/v2")).refreshes() is None


async def test_a_pause_keeps_what_is_chosen(console: Console) -> None:
    """Pausing leads to the same page."""
    await console.run()
    await console.child("one")
    assert (await console.see(f"{PAGE}?i=one")).links["Pause"] == f"{PAGE}?i=one&live=off"


async def test_actions_by_phase(console: Console) -> None:
    """Counts of the whole run lead to its actions in that phase, however deep."""
    await console.run()
    await console.child("outer")
    await console.end(await console.child("deep", parent="outer"), Phase.FAILED)
    page = await console.see(PAGE)
    assert page.links["1 failed"] == f"{PAGE}?phase=failed"
    failed = await console.see(page.links["1 failed"])
    assert "Failed 1 of 3 in the run" in failed.text
    assert f"{PAGE}?i=deep" in failed.links.values()
    assert f"{PAGE}?i=outer" not in failed.links.values()


@pytest.mark.parametrize(
    ("path", "status", "sentence"),
    [
        (f"{PROJECT}/runs/rnone", 404, "There is no run flytesnacks/development/rnone."),
        (f"{PAGE}?i=none", 404, "There is no action flytesnacks/development/rfirst/none."),
        (f"{PAGE}/actions/a0/attempts/2/log", 404, "Action flytesnacks/development/rfirst/a0 has no attempt 2"),
        (f"{PAGE}/actions/none/attempts/1/log", 404, "There is no action"),
        (f"{PAGE}/actions/a0/attempts/1/report", 404, "There isn't a report of attempt 1"),
        (f"{PAGE}/actions/a0/outputs", 404, "There isn't a file with outputs"),
        (f"{PROJECT}/apps/one", 404, "There is no such page"),
        (f"{PROJECT}/artifacts/model", 404, "`flyte get artifact -p flytesnacks -d development model` shows this one"),
        (f"{PROJECT}/runs/<b>", 400, "'<b>'"),
        (f"{PAGE}?phase=none", 400, "Phase: 'none' is none"),
        (f"{PAGE}?after=x", 400, "After: 'x' is no place in this list"),
        ("/v2?after=1,2", 400, "is no place in this list"),
    ],
)
async def test_what_does_not_exist_is_said_in_a_sentence(console: Console, path: str, status: int, sentence: str) -> None:
    """A page with a sentence, and the status that programs look at."""
    await console.run()
    response = await console.get(path)
    assert response.status == status
    assert sentence in outline(response).text


@pytest.mark.parametrize(
    ("path", "to"), [("/", "/v2"), ("/v2/", "/v2"), (f"{PROJECT}/", PROJECT), ("/v2/a\r\n/", "/v2/a%0D%0A")]
)
async def test_home_leads_to_the_runs(console: Console, path: str, to: str) -> None:
    """The server's own address shows what runs on it, and a slash too many does no harm."""
    response = await console.get(path)
    assert (response.status, dict(response.headers)["location"]) == (302, to)


async def test_browsers_find_an_icon(console: Console) -> None:
    """Where they look by themselves, also from logs and reports."""
    response = await console.get("/favicon.ico")
    assert (response.status, dict(response.headers)["content-type"]) == (200, "image/svg+xml")


async def test_nothing_ran_yet(console: Console) -> None:
    """An empty list says what will appear in it."""
    assert "Nothing has run here yet" in (await console.see("/v2")).text


async def test_recent_runs_of_everything_a_project_and_a_task(console: Console) -> None:
    """The newest first; a project's page has its own runs only, a task's those of that task, as has that of its trigger."""
    await console.run(RunKey("flytesnacks", "development", "rone"))
    console.clock.pass_(90)
    await console.run(RunKey("other", "production", "rtwo"), name="etl.load")
    everything = await console.see("/v2")
    assert everything.text.index("rtwo") < everything.text.index("rone")
    assert "pipeline.main rone Queued flytesnacks / development 1 min ago 1 min 30 s" in everything.text
    for page in (PROJECT, f"{PROJECT}/runs"):
        assert "rtwo" not in (await console.see(page)).text
    for page in (f"{PROJECT}/tasks/etl.load", f"{PROJECT}/triggers/etl.load/nightly"):
        of_task = await console.see(page)
        assert "Runs of etl.load" in of_task.text
        assert "rtwo" in of_task.text
        assert "rone" not in of_task.text
