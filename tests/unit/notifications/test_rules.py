"""What a run may ask for, and the names that a server knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import structlog.testing
from flyteidl2.notification import definition_pb2
from flyteidl2.task import run_pb2

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.phases import Phase
from flyte_unified.notifications.model import Channel
from flyte_unified.notifications.rules import Names, read_names
from tests.unit.notifications.world import ENDS, PAUSED, asking, email, rule, webhook

FILE = """
deliveries:
  oncall:
    webhook: {url: "https://h/{{.Run.Name}}", method: post, headers: {X: y}, body_template: "{}"}
    email: {to: [{address: a@b}], inline: {subject: s, html_template: h}}
rules:
  night:
    - {on_phases: [FAILED, ACTION_PHASE_TIMED_OUT], delivery_config_name: oncall}
    - {onPhases: [aborted], deliveryTemplate: {webhook: {url: "http://h", method: PUT}}}
"""


def broken(template: definition_pb2.DeliveryConfigTemplate, **changes: Any) -> run_pb2.InlineRule:
    part = template.webhook if template.HasField("webhook") else template.email
    for name, value in changes.items():
        setattr(part, name, value)
    return rule(template)


def provided() -> definition_pb2.DeliveryConfigTemplate:
    template = email("a@b")
    template.email.provider_template.template_id = "x"
    return template


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (run_pb2.InlineRule(delivery_template=webhook()), "on_phases: one or more of"),
        (rule(webhook(), PAUSED, *ENDS), "or PAUSED alone"),
        (rule(webhook(), int(Phase.RUNNING)), "on_phases"),
        (run_pb2.InlineRule(on_phases=ENDS), "delivery: one of"),
        (rule(definition_pb2.DeliveryConfigTemplate()), "delivery_template: one of webhook and email"),
        (rule(webhook("ftp://h")), "webhook.url: an address"),
        (broken(webhook(), method=0), "webhook.method"),
        (broken(webhook(), method=definition_pb2.HTTP_METHOD_CONNECT), "webhook.method"),
        (rule(webhook(**{"a b": "c"})), "'a b' is no header's name"),
        (rule(webhook(a="{{.B}}")), r"headers\['a'\]: there is no variable"),
        (rule(webhook(body="{{.Prompt}}")), "body_template: there is no variable {{.Prompt}}"),
        (rule(webhook(body="{{.Error}}"), PAUSED), "there is no variable {{.Error}}; known are {{.Action.Name}}"),
        (rule(email()), "email.to is empty"),
        (rule(email("nobody")), "'nobody' is no e-mail address"),
        (rule(email("a@b\r\nBcc: c@d")), "is no e-mail address"),
        *((rule(email(wrong)), "is no e-mail address") for wrong in ("a@", "@", " a@b", "a b@c", "a@b, c@d", "<a@b>", "ä@b")),
        (rule(email("a@b", subject="{{.X}}")), "inline.subject"),
        (rule(provided()), "knows no e-mail provider"),
    ],
)
def test_what_could_not_be_delivered_is_refused(wrong: run_pb2.InlineRule, told: str) -> None:
    """With the place in the run's spec."""
    with pytest.raises(InvalidArgument, match=r"^run_spec\.notification_rules\.rules\[1\]\..*" + told):
        Names().rules_of(asking(rule(webhook()), wrong))


def test_names_are_those_of_the_file(tmp_path: Path) -> None:
    """Phases and methods in their short forms, too."""
    (tmp_path / "n.yaml").write_text(FILE)
    names = read_names(str(tmp_path / "n.yaml"))
    first, second = names.rules_of(run_pb2.RunSpec(notification_rule_name="night"))
    assert [list(first.on_phases), list(second.on_phases)] == [[Phase.FAILED, Phase.TIMED_OUT], [Phase.ABORTED]]
    assert list(names.channels(first)) == [Channel.WEBHOOK, Channel.EMAIL]
    assert names.template(first).webhook.method == definition_pb2.HTTP_METHOD_POST
    with pytest.raises(InvalidArgument, match=r"there is no rule 'day' in notifications\.file; known are night"):
        names.rules_of(run_pb2.RunSpec(notification_rule_name="day"))
    with pytest.raises(InvalidArgument, match="there is no delivery 'x'"):
        names.rules_of(asking(run_pb2.InlineRule(on_phases=ENDS, delivery_config_name="x")))


def test_a_server_without_names_runs_what_names_some() -> None:
    """The same program, tried on a laptop: it runs, nobody is told, and the log says so."""
    with structlog.testing.capture_logs() as log:
        assert read_names("").rules_of(run_pb2.RunSpec(notification_rule_name="night")) == []
        assert Names().rules_of(asking(run_pb2.InlineRule(on_phases=ENDS, delivery_config_name="x"))) == []
    assert [each["log_level"] for each in log] == ["warning", "warning"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[a]", "deliveries and rules are expected"),
        ("delivery: {}", "deliveries and rules are expected"),
        ("deliveries: {a: {webhok: {}}}", "webhok"),
        ("deliveries: {a: {webhook: {url: http://h, method: SHOUT}}}", "SHOUT"),
        ("deliveries: {a: {webhook: {url: http://h}}}", "deliveries.a.webhook.method"),
        ("rules: {a: [{on_phases: [FAILED], delivery_config_name: b}]}\ndeliveries: {c: {}}", "deliveries.c: one of"),
        ("rules: {a: 1}", "n.yaml"),
        (": :", "n.yaml"),
    ],
)
def test_a_file_that_is_wrong_keeps_the_server_from_starting(tmp_path: Path, text: str, told: str) -> None:
    """And says where."""
    (tmp_path / "n.yaml").write_text(text)
    with pytest.raises(InvalidArgument, match=f"notifications.file: .*{told}"):
        read_names(str(tmp_path / "n.yaml"))
    with pytest.raises(InvalidArgument, match="No such file"):
        read_names(str(tmp_path / "none.yaml"))


def test_the_page_s_example_is_read(tmp_path: Path) -> None:
    """What people copy from there."""
    page = Path(__file__).parents[3] / "docs" / "run-options.md"
    (block,) = (part for part in page.read_text().split("```") if part.startswith("yaml\ndeliveries:"))
    (tmp_path / "n.yaml").write_text(block.removeprefix("yaml"))
    names = read_names(str(tmp_path / "n.yaml"))
    assert (list(names.deliveries), list(names.rules)) == (["oncall"], ["nightly"])
