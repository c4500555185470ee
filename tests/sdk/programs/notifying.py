"""Runs whose ends are told, by every way that the SDK has; and a condition that brings its own webhook."""

from __future__ import annotations

import sys

import flyte
import flyte.errors
from flyte import notify
from flyte.models import ActionPhase
from speak import say, tell

env = flyte.TaskEnvironment(name="notifying")
ENDS = (ActionPhase.SUCCEEDED, ActionPhase.FAILED, ActionPhase.ABORTED)


@env.task
async def fine() -> int:
    return 1


@env.task
async def broken() -> int:
    raise ValueError('a "quoted" word\nand another line')


@env.task
async def asks(url: str) -> int:
    webhook = flyte.ConditionWebhook(url=url, payload={"approve": ["at {callback_uri}"], "what": "count"})
    condition = await flyte.new_condition.aio("count", prompt="How many?", data_type=int, webhook=webhook)
    return await condition.wait.aio()


def notifications(base: str) -> tuple[notify.Notification, ...]:
    return (
        notify.Webhook(
            on_phase=ENDS,
            url=base + "/hook/{{.Run.Name}}",
            headers={"X-Phase": "{{.Phase}}", "X-Key": "open-sesame"},
            body={"run": "{{.Run.Name}}", "in": ["{{.Run.Project}}/{{.Run.Domain}}"], "error": "{{.Error}}"},
        ),
        notify.Slack(on_phase=ActionPhase.FAILED, webhook_url=base + "/slack", message="{{.Run.Name}} {{.Phase}}: {{.Error}}"),
        notify.Teams(on_phase=ActionPhase.SUCCEEDED, webhook_url=base + "/teams"),
        notify.Email(on_phase=ENDS, recipients=("a@example.com",), cc=("c@example.com",), bcc=("blind@example.com",)),
        notify.Email(
            on_phase=ActionPhase.FAILED, recipients=("html@example.com",), html_body="<b>{{.Error}}</b>", subject="{{.Error}}"
        ),
        notify.NamedDelivery(on_phase=ActionPhase.ABORTED, name="everybody"),
    )


if __name__ == "__main__":
    flyte.init_from_config()
    base = sys.argv[1]
    asked = flyte.with_runcontext(notifications=notifications(base))
    good = asked.run(fine)
    bad = asked.run(broken)
    stopped = asked.run(asks, url=base + "/unused")
    waiting = flyte.run(asks, url=base + "/asked")
    named = flyte.with_runcontext(notifications=notify.NamedRule("oncall")).run(broken)
    stopped.abort(reason="enough of it")
    for case, run in (("good", good), ("bad", bad), ("stopped", stopped), ("named", named)):
        tell(case, run)
    say("waiting", run=waiting.name)
    sys.stdin.readline()
    tell("answered", waiting)
    for name, wrong in (
        ("unknown rule", notify.NamedRule("nobody")),
        ("unknown variable", notify.Slack(on_phase=ActionPhase.FAILED, webhook_url=base, message="{{.Run.Nmae}}")),
    ):
        try:
            flyte.with_runcontext(notifications=wrong).run(fine)
        except flyte.errors.RuntimeUserError as error:
            say(name, error=str(error))
