"""From templates to what is sent: variables where they may be, and nothing that a value could break."""

from __future__ import annotations

import json
from dataclasses import replace
from email import message_from_bytes, policy

import pytest
from flyteidl2.core import execution_pb2, types_pb2
from flyteidl2.workflow import run_definition_pb2
from hypothesis import given
from hypothesis import strategies as st

from flyte_unified.core.clock import SECOND, Micros
from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.phases import Phase
from flyte_unified.ledger.api import Action
from flyte_unified.notifications import messages, templates
from tests.unit.ledger import births
from tests.unit.notifications.world import email, webhook

NASTY = 'a "word"\r\nBcc: x@y\n<b>&'


def root(phase: Phase = Phase.FAILED, error: str = NASTY) -> Action:
    raw = execution_pb2.ExecutionError(message=error).SerializeToString()
    return replace(births.action("a0", parent=None), phase=phase, error=raw)


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("{{.Run.Name}} is {{ .Phase }}", "r is FAILED"),
        ("{{- .Run.Project -}}/{{.Run.Domain}}{{.Run.Org}}", "p/development"),
        (
            "{task.name} $x {{DATE(2017, SHORT)}} {{foo}} { {.Phase} }",
            "{task.name} $x {{DATE(2017, SHORT)}} {{foo}} { {.Phase} }",
        ),
    ],
)
def test_variables_are_put_in(text: str, rendered: str) -> None:
    """As Go writes them; what is no action of Go's stays as it is."""
    templates.check(text, templates.OF_RUNS, field="f")
    assert templates.render(text, messages.values_of(root())) == rendered


@pytest.mark.parametrize(
    "text", ["{{.Run.Nmae}}", "{{.run.name}}", "{{if .Error}}x{{end}}", "{{ printf .Phase }}", "{{.Prompt}}"]
)
def test_what_would_not_be_put_in_is_refused(text: str) -> None:
    """When the run is made, and not when somebody gets braces."""
    with pytest.raises(InvalidArgument, match="f: "):
        templates.check(text, templates.OF_RUNS, field="f")


@given(value=st.text())
def test_a_value_stays_in_its_string(value: str) -> None:
    """A body that is JSON is JSON afterwards, with the same shape, whatever a value holds."""
    template = json.dumps({"text": "<{{.Error}}>", "list": ["{{.Error}}", 1, None], "{{.Error}}!": True})
    body, is_json = templates.render_body(template, {"Error": value})
    assert is_json
    assert json.loads(body) == {"text": f"<{value}>", "list": [value, 1, None], f"{value}!": True}


def test_a_webhook() -> None:
    """Values are escaped in the address and of one line in headers; a body that is no JSON is text."""
    call = messages.webhook(
        webhook("http://h/{{.Run.Name}}?e={{.Error}}", "{{.Phase}}!", **{"x-error": "{{.Error}}"}).webhook,
        messages.values_of(root()),
        key="k",
    )
    assert (call.method, call.url) == ("POST", "http://h/r?e=a%20%22word%22%20Bcc%3A%20x%40y%20%3Cb%3E%26")
    assert call.headers == {"X-Error": 'a "word" Bcc: x@y <b>&', "Idempotency-Key": "k"}
    assert call.body == b"FAILED!"
    assert "h" not in repr(call).removeprefix("Call")
    typed = messages.webhook(webhook(body="{}", **{"content-type": "text/x"}).webhook, {}, key="k")
    assert typed.headers["Content-Type"] == "text/x"


def test_a_mail() -> None:
    """Its headers are ours alone; HTML is escaped, and left out where it is the SDK's word for none."""
    template = email("a@b.c", subject="{{.Error}}", text="{{.Error}}", html="<i>{{.Error}}</i>").email
    template.cc.add(name="Ä, Böse", address="c@b.c")
    template.bcc.add(address="hidden@b.c")
    at = Micros(1_700_000_000 * SECOND)
    mail = messages.mail(template, messages.values_of(root()), key="k", sender="F <f@x.y>", at=at)
    read = message_from_bytes(bytes(mail), policy=policy.default)
    assert read["Subject"] == 'a "word" Bcc: x@y <b>&'
    assert (read["Bcc"], read["Message-ID"], read["Cc"]) == (None, "<k@x.y>", '"Ä, Böse" <c@b.c>')
    assert "hidden" not in str(read)
    html = read.get_body(("html",))  # type: ignore[attr-defined]  # the policy makes EmailMessages
    assert "<b>" not in html.get_content()
    assert messages.recipients(template) == ["a@b.c", "c@b.c", "hidden@b.c"]
    template.inline.html_template = "No HTML body"
    assert not messages.mail(template, {}, key="k", sender="f@x", at=at).is_multipart()
    template.inline.text_template = ""
    template.inline.html_template = "<p>"
    assert messages.mail(template, {}, key="k", sender="f@x", at=at).get_content_type() == "text/html"


def test_what_is_said_of_ends_and_conditions() -> None:
    """An abort's reason is its error; a long error is cut."""
    aborted = replace(births.action("a0", parent=None), phase=Phase.ABORTED, reason="enough")
    assert messages.values_of(aborted)["Error"] == "enough"
    assert len(messages.values_of(root(error="x" * 100_000))["Error"]) == 8000
    told = run_definition_pb2.ConditionAction(
        name="ok",
        type=types_pb2.LiteralType(simple=types_pb2.BOOLEAN),
        prompt="Go on?",
        prompt_type=run_definition_pb2.CONDITION_PROMPT_TYPE_MARKDOWN,
    )
    told.webhook.url = "http://h/"
    told.webhook.payload.update({"a": ["x{callback_uri}", 1], "b": {"c": "{callback_uri}{callback_uri}"}})
    condition = replace(births.action("c"), spec=told.SerializeToString())
    values = messages.values_of(condition)
    assert values.keys() == templates.OF_CONDITIONS
    assert (values["Action.Name"], values["Prompt"], values["PromptType"]) == ("c", "Go on?", "MARKDOWN")
    call = messages.condition_webhook(condition, callback="u:1", key="k")
    assert json.loads(call.body) == {"a": ["xu:1", 1], "b": {"c": "u:1u:1"}}
