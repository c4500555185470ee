"""From what is owed to what is sent. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from html import escape
from typing import Any
from urllib.parse import quote

from flyteidl2.notification import definition_pb2
from flyteidl2.workflow import run_definition_pb2
from google.protobuf import json_format

from flyte_unified.core.clock import Micros, timestamp
from flyte_unified.ledger.api import Action
from flyte_unified.net.webhooks import Call
from flyte_unified.notifications.templates import render, render_body

_NO_HTML = "No HTML body"
"""What the SDK sends where its user gave no HTML."""
_KEY = "Idempotency-Key"
_LONGEST = 8000
_SHORT = 1000
"""Characters of a value: in a body, and in an address or a header, of which receivers take less."""
_BREAKS = re.compile(r"[\x00-\x1f\x7f]+")


def values_of(action: Action) -> dict[str, str]:
    """What a root's end, or a condition, gives to templates. Runs have no org here."""
    run = {"Run.Org": "", "Run.Project": action.key.project, "Run.Domain": action.key.domain, "Run.Name": action.key.run}
    if action.parent is None:
        error = action.execution_error()
        told = error.message if error is not None else action.reason
        return {**run, "Phase": action.phase.name, "Error": told[:_LONGEST]}
    condition = run_definition_pb2.ConditionAction.FromString(action.spec or b"")
    kind = run_definition_pb2.ConditionPromptType.Name(condition.prompt_type).removeprefix("CONDITION_PROMPT_TYPE_")
    return {
        **{f"Action.{name}": value for name, value in run.items()},
        "Action.Name": action.key.name,
        "Prompt": condition.prompt,
        "Description": condition.description,
        "PromptType": "" if kind == "UNSPECIFIED" else kind,
    }


def webhook(template: definition_pb2.WebhookDeliveryTemplate, values: Mapping[str, str], *, key: str) -> Call:
    short = {name: _line(value)[:_SHORT] for name, value in values.items()}
    body, is_json = render_body(template.body_template, values)
    headers = {"Content-Type": "application/json"} if is_json else {}
    headers |= {_titled(name): _line(render(value, short)) for name, value in template.headers.items()}
    return Call(
        method=definition_pb2.HttpMethod.Name(template.method).removeprefix("HTTP_METHOD_"),
        url=render(template.url, short, lambda value: quote(value, safe="")),
        headers=headers | {_KEY: key},
        body=body.encode(),
    )


def condition_webhook(action: Action, *, callback: str, key: str) -> Call:
    """``{callback_uri}`` stands in any text of the payload for the address that signals."""
    asked = run_definition_pb2.ConditionAction.FromString(action.spec or b"").webhook
    payload = _with_callback(json_format.MessageToDict(asked.payload), callback)
    headers = {"Content-Type": "application/json", _KEY: key}
    return Call(method="POST", url=asked.url, headers=headers, body=json.dumps(payload).encode())


def mail(
    template: definition_pb2.EmailDeliveryTemplate, values: Mapping[str, str], *, key: str, sender: str, at: Micros
) -> EmailMessage:
    """Of ``bcc`` nothing is in it: those are told by ``recipients`` alone."""
    message = EmailMessage()
    message["Subject"] = _line(render(template.inline.subject, values))
    message["From"] = sender
    message["To"] = [_address(each) for each in template.to]
    if template.cc:
        message["Cc"] = [_address(each) for each in template.cc]
    message["Date"] = format_datetime(timestamp(at).ToDatetime())
    message["Message-ID"] = f"<{key}@{sender.rpartition('@')[2].rstrip('>')}>"
    message["Auto-Submitted"] = "auto-generated"
    html = template.inline.html_template
    if text := template.inline.text_template:
        message.set_content(render(text, values))
        if html and html != _NO_HTML:
            message.add_alternative(render(html, values, escape), subtype="html")
    else:
        message.set_content(render(html, values, escape), subtype="html")
    return message


def recipients(template: definition_pb2.EmailDeliveryTemplate) -> list[str]:
    return [each.address for each in (*template.to, *template.cc, *template.bcc)]


def _address(recipient: definition_pb2.EmailRecipient) -> Address:
    return Address(display_name=recipient.name, addr_spec=recipient.address)


def _titled(name: str) -> str:
    """One spelling, so that no header is there twice."""
    return "-".join(part.capitalize() for part in name.split("-"))


def _line(text: str) -> str:
    return _BREAKS.sub(" ", text)


def _with_callback(tree: Any, callback: str) -> Any:
    match tree:
        case str():
            return tree.replace("{callback_uri}", callback)
        case list():
            return [_with_callback(item, callback) for item in tree]
        case dict():
            return {name: _with_callback(item, callback) for name, item in tree.items()}
    return tree
