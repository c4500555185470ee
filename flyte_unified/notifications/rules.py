"""What a run spec says of notifications, checked; and the names that the server knows. Pure, but for the reading of a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.errors import MessageError
from email.headerregistry import Address
from pathlib import Path
from typing import Any

import structlog
from flyteidl2.notification import definition_pb2
from flyteidl2.task import run_pb2
from google.protobuf import json_format

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.phases import Phase
from flyte_unified.notifications import templates
from flyte_unified.notifications.model import Channel

_log = structlog.get_logger(__name__)

_ENDS = frozenset({Phase.SUCCEEDED, Phase.FAILED, Phase.ABORTED, Phase.TIMED_OUT})
_SCHEMES = ("http://", "https://", "{{")
_UNUSABLE = frozenset({definition_pb2.HTTP_METHOD_UNSPECIFIED, definition_pb2.HTTP_METHOD_CONNECT})


@dataclass(frozen=True, slots=True)
class Names:
    """Rules and deliveries that runs may name. A server without any leaves names alone: nobody is told."""

    deliveries: Mapping[str, definition_pb2.DeliveryConfigTemplate] = field(default_factory=dict)
    rules: Mapping[str, tuple[run_pb2.InlineRule, ...]] = field(default_factory=dict)

    def rules_of(self, spec: run_pb2.RunSpec) -> list[run_pb2.InlineRule]:
        """What a run asks for, with known names. Raises InvalidArgument naming the field."""
        match spec.WhichOneof("notification_settings"):
            case "notification_rule_name":
                return list(self._rule(spec.notification_rule_name))
            case "notification_rules":
                rules = spec.notification_rules.rules
                where = "run_spec.notification_rules.rules"
                return [rule for index, rule in enumerate(rules) if self.check(rule, field=f"{where}[{index}]")]
        return []

    def template(self, rule: run_pb2.InlineRule) -> definition_pb2.DeliveryConfigTemplate:
        """What ``rule`` delivers; empty where its name is known no more."""
        if rule.WhichOneof("delivery") == "delivery_template":
            return rule.delivery_template
        return self.deliveries.get(rule.delivery_config_name) or definition_pb2.DeliveryConfigTemplate()

    def channels(self, rule: run_pb2.InlineRule) -> Iterator[Channel]:
        template = self.template(rule)
        for channel in (Channel.WEBHOOK, Channel.EMAIL):
            if template.HasField(str(channel)):
                yield channel

    def _rule(self, name: str) -> tuple[run_pb2.InlineRule, ...]:
        if (found := self.rules.get(name)) is not None:
            return found
        self._unknown("rule", name, self.rules, field="run_spec.notification_rule_name")
        return ()

    def check(self, rule: run_pb2.InlineRule, *, field: str) -> bool:
        """Whether it leads anywhere. Raises InvalidArgument naming what is wrong."""
        known = check_phases(rule, field=field)
        match rule.WhichOneof("delivery"):
            case "delivery_template":
                check_template(rule.delivery_template, known, field=f"{field}.delivery_template")
            case "delivery_config_name":
                name = rule.delivery_config_name
                if name not in self.deliveries:
                    return self._unknown("delivery", name, self.deliveries, field=f"{field}.delivery_config_name")
                check_template(self.deliveries[name], known, field=f"{field}.delivery_config_name")
            case _:
                raise InvalidArgument(f"{field}.delivery: one of delivery_config_name and delivery_template must be set")
        return True

    def _unknown(self, kind: str, name: str, known: Mapping[str, Any], *, field: str) -> bool:
        if self.deliveries or self.rules:
            names = ", ".join(sorted(known)) or "none"
            raise InvalidArgument(f"{field}: there is no {kind} {name[:64]!r} in notifications.file; known are {names}")
        _log.warning(
            "a run asks for a notification by name, and notifications.file is empty: nobody will be told", name=name[:64]
        )
        return False


def check_phases(rule: run_pb2.InlineRule, *, field: str) -> frozenset[str]:
    """The variables that templates of ``rule`` may use."""
    phases = set(rule.on_phases)
    if phases == {Phase.PAUSED}:
        return templates.OF_CONDITIONS
    if not phases or not phases <= _ENDS:
        known = ", ".join(sorted(phase.name for phase in _ENDS))
        raise InvalidArgument(f"{field}.on_phases: one or more of {known} are expected, or PAUSED alone")
    return templates.OF_RUNS


def check_template(template: definition_pb2.DeliveryConfigTemplate, known: frozenset[str], *, field: str) -> None:
    """Raises InvalidArgument naming what is wrong."""
    if not template.HasField("webhook") and not template.HasField("email"):
        raise InvalidArgument(f"{field}: one of webhook and email must be set")
    if template.HasField("webhook"):
        _check_webhook(template.webhook, known, field=f"{field}.webhook")
    if template.HasField("email"):
        _check_email(template.email, known, field=f"{field}.email")


def _check_webhook(webhook: definition_pb2.WebhookDeliveryTemplate, known: frozenset[str], *, field: str) -> None:
    if not webhook.url.startswith(_SCHEMES):
        raise InvalidArgument(f"{field}.url: an address that begins with http:// or https:// is expected")
    if webhook.method in _UNUSABLE:
        raise InvalidArgument(f"{field}.method is not set to one that can be used here")
    for name, value in webhook.headers.items():
        if not name.isascii() or not name.isprintable() or any(mark in name for mark in ' ":(),/;<=>?@[]{}\\'):
            raise InvalidArgument(f"{field}.headers: {name[:64]!r} is no header's name")
        templates.check(value, known, field=f"{field}.headers[{name!r}]")
    templates.check(webhook.url, known, field=f"{field}.url")
    templates.check(webhook.body_template, known, field=f"{field}.body_template")


def _check_email(email: definition_pb2.EmailDeliveryTemplate, known: frozenset[str], *, field: str) -> None:
    if not email.to:
        raise InvalidArgument(f"{field}.to is empty")
    for recipient in (*email.to, *email.cc, *email.bcc):
        if not _is_address(recipient):
            raise InvalidArgument(f"{field}: {recipient.address[:64]!r} is no e-mail address")
    if email.WhichOneof("content") != "inline":
        raise InvalidArgument(f"{field}.inline is not set: this server knows no e-mail provider that has templates of its own")
    for part in ("subject", "html_template", "text_template"):
        templates.check(getattr(email.inline, part), known, field=f"{field}.inline.{part}")


def _is_address(recipient: definition_pb2.EmailRecipient) -> bool:
    """Whether a message can have it."""
    try:
        mailbox = Address(display_name=recipient.name, addr_spec=recipient.address)
    except (ValueError, IndexError, MessageError):
        return False
    whole = bool(mailbox.domain) and mailbox.addr_spec == recipient.address
    return whole and (recipient.name + recipient.address).isprintable()


def read_names(file: str) -> Names:
    """From a YAML file: ``deliveries`` (flyteidl2.notification.DeliveryConfigTemplate by name) and ``rules`` (lists of
    flyteidl2.task.InlineRule by name), as their JSON has them. Raises InvalidArgument naming what is wrong.
    """
    if not file:
        return Names()
    import yaml  # most servers have none

    try:
        return _names(yaml.safe_load(Path(file).read_text()) or {})
    except InvalidArgument as error:
        raise InvalidArgument(f"notifications.file: {file}: {error.message}") from error
    except (OSError, ValueError, yaml.YAMLError, json_format.ParseError) as error:
        raise InvalidArgument(f"notifications.file: {file}: {error}") from error


def _names(tree: Any) -> Names:
    known = {"deliveries", "rules"}
    if not isinstance(tree, dict) or tree.keys() - known or not all(isinstance(part, dict) for part in tree.values()):
        raise InvalidArgument("deliveries and rules are expected, each a mapping, and nothing else")
    template = definition_pb2.DeliveryConfigTemplate
    deliveries = {name: _parsed(told, template()) for name, told in tree.get("deliveries", {}).items()}
    rules = {name: _parsed({"rules": told}, run_pb2.InlineRuleList()) for name, told in tree.get("rules", {}).items()}
    names = Names(deliveries, {name: tuple(found.rules) for name, found in rules.items()})
    for name, found in deliveries.items():
        check_template(found, templates.OF_RUNS | templates.OF_CONDITIONS, field=f"deliveries.{name}")
    for name, of_name in names.rules.items():
        for index, rule in enumerate(of_name):
            names.check(rule, field=f"rules.{name}[{index}]")
    return names


def _parsed(told: Any, message: Any) -> Any:
    return json_format.ParseDict(_full(told), message)


_PREFIXES = {"method": "HTTP_METHOD_", "on_phases": "ACTION_PHASE_", "onPhases": "ACTION_PHASE_"}


def _full(told: Any, prefix: str = "") -> Any:
    """With the names of enumerations as protobuf writes them: ``POST`` is short for ``HTTP_METHOD_POST``."""
    match told:
        case dict():
            return {name: _full(value, _PREFIXES.get(name, "")) for name, value in told.items()}
        case list():
            return [_full(value, prefix) for value in told]
        case str() if prefix and not told.startswith(prefix):
            return prefix + told.upper()
    return told
