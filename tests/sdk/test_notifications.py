"""Whoever is to be told of a run's end is told, by HTTP and by mail; a condition's webhook leads back to its signal."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from flyte_unified.testing import Backend
from tests.sdk.conftest import SETTINGS, Client
from tests.sdk.receivers import Inbox, Received, receiving
from tests.sdk.test_waiting import Conversation

NAMES = """
deliveries:
  everybody:
    webhook: {{url: "{web}/everybody", method: POST, body_template: '{{"text": "{{{{.Phase}}}}"}}'}}
    email:
      to: [{{name: Everybody, address: all@example.com}}]
      inline: {{subject: "{{{{.Run.Name}}}}: {{{{.Error}}}}", text_template: "{{{{.Phase}}}}", html_template: ""}}
rules:
  oncall:
    - {{on_phases: [FAILED, TIMED_OUT], delivery_config_name: everybody}}
    - {{on_phases: [SUCCEEDED], delivery_template: {{webhook: {{url: "{web}/never", method: POST, body_template: "{{}}"}}}}}}
"""


@pytest.fixture(scope="module")
def inbox() -> Iterator[Inbox]:
    with receiving() as inbox:
        inbox.refuse = 2
        yield inbox


@pytest.fixture(scope="module")
def program(inbox: Inbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Conversation]:
    home: Path = tmp_path_factory.mktemp("notified")
    (home / "names.yaml").write_text(NAMES.format(web=inbox.web))
    settings = {
        **SETTINGS,
        "notifications.file": str(home / "names.yaml"),
        "notifications.smtp_host": "127.0.0.1",
        "notifications.smtp_port": inbox.smtp_port,
        "notifications.smtp_security": "none",
        "notifications.sender": "Flyte <flyte@example.com>",
    }
    with Backend(settings) as backend:
        client = Client(backend, home / "home", "flytesnacks")
        with client.popen("notifying.py", inbox.web) as process:
            try:
                yield Conversation(client, process)
            finally:
                process.kill()


def only(found: list[Received]) -> Received:
    """The same message may come more than once, under one key."""
    assert len({each.headers["idempotency-key"] for each in found}) == 1
    return found[-1]


def test_a_webhook_tells_how_a_run_ended(program: Conversation, inbox: Inbox) -> None:
    """Variables are put in wherever they stand; an error with quotes and lines stays one string of the JSON."""
    for case, phase, error in (
        ("good", "SUCCEEDED", ""),
        ("bad", "FAILED", 'a "quoted" word\nand another line'),
        ("stopped", "ABORTED", "enough of it"),
    ):
        run = program.hear(case)["run"]
        told = only(inbox.get(path=f"/hook/{run}"))
        assert (told.headers["x-phase"], told.headers["x-key"]) == (phase, "open-sesame")
        assert (told.body["run"], told.body["in"]) == (run, ["flytesnacks/development"])
        assert error in told.body["error"]


def test_slack_and_teams_are_webhooks(program: Conversation, inbox: Inbox) -> None:
    """Each for the phases that it asks for."""
    bad, good = program.hear("bad")["run"], program.hear("good")["run"]
    assert only(inbox.get(path="/slack")).body["text"].startswith(f"{bad} FAILED: ")
    assert only(inbox.get(path="/teams")).body["title"] == f"Run {good} SUCCEEDED"


def test_mail_goes_to_all_and_shows_no_blind_copy(program: Conversation, inbox: Inbox) -> None:
    """To, Cc and Bcc by the envelope; text alone where no HTML was given."""
    run = program.hear("good")["run"]
    (found,) = (each for each in inbox.get(to="a@example.com") if run in str(each.mail))
    assert found.to == ["a@example.com", "c@example.com", "blind@example.com"]
    assert found.mail is not None
    assert (found.mail["From"], found.mail["Subject"]) == ("Flyte <flyte@example.com>", f"Run {run} SUCCEEDED")
    assert "blind@example.com" not in str(found.mail)
    assert found.mail.get_content_type() == "text/plain"
    assert "flytesnacks/development" in found.mail.get_content()


def test_html_is_escaped_and_a_subject_is_one_line(program: Conversation, inbox: Inbox) -> None:
    """What an error says does not become a part of the page, or of the headers."""
    program.hear("bad")
    (found,) = inbox.get(to="html@example.com")
    assert found.mail is not None
    assert 'a "quoted" word and another line' in found.mail["Subject"]
    html = found.mail.get_body(("html",))
    assert html is not None
    assert "a &quot;quoted&quot; word" in html.get_content()


def test_named_rules_and_deliveries_are_the_server_s(program: Conversation, inbox: Inbox) -> None:
    """A rule by name brings its phases, a delivery by name all its ways."""
    named, stopped = program.hear("named")["run"], program.hear("stopped")["run"]
    mails = [each.mail for each in inbox.get(2, to="all@example.com") if each.mail is not None]
    assert {str(mail["Subject"]).partition(":")[0]: mail.get_content().strip() for mail in mails} == {
        named: "FAILED",
        stopped: "ABORTED",
    }
    assert {each.body["text"] for each in inbox.get(2, path="/everybody")} == {"FAILED", "ABORTED"}
    assert inbox.none(path="/never")


def test_a_condition_s_webhook_leads_back(program: Conversation, inbox: Inbox) -> None:
    """The address in its payload signals that condition: not with a wrong value, not with another address, and not twice."""
    program.hear("waiting")
    told = only(inbox.get(path="/asked"))
    assert told.body["what"] == "count"
    address = told.body["approve"][0].removeprefix("at ")
    assert post(address, "soon") == (400, "value: condition 'count' waits for an int")
    assert post(address[:-4] + "AAAA", 3)[0] == 404
    assert post(address, {"value": 3}) == (200, "")
    assert post(address, 3) == (200, "")
    assert post(address, 4)[0] == 409
    program.go_on()
    assert program.hear("answered")["outputs"] == [3]


def test_what_nobody_could_deliver_is_refused(program: Conversation) -> None:
    """Unknown names and variables, before the run begins."""
    program.go_on()
    assert "there is no rule 'nobody'" in program.hear("unknown rule")["error"]
    assert "there is no variable {{.Run.Nmae}}" in program.hear("unknown variable")["error"]


def post(address: str, value: object) -> tuple[int, str]:
    request = urllib.request.Request(address, json.dumps(value).encode(), method="POST")
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, ""
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)["error"]
