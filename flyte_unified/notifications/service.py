"""What is owed from the beginning of a run or a condition: written in the transaction that makes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from flyteidl2.task import run_pb2
from flyteidl2.workflow import run_definition_pb2

from flyte_unified.core.clock import Micros
from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.ids import ROOT_ACTION, ActionKey, RunKey
from flyte_unified.core.phases import Phase
from flyte_unified.db.api import Work
from flyte_unified.ledger.api import Action
from flyte_unified.notifications import store
from flyte_unified.notifications.model import Channel, Delivery
from flyte_unified.notifications.rules import Names

Owing = Callable[[], Work[None]]
"""Writes it, as a part of another's transaction."""


class Notifications:
    """One for a server. ``names`` are the rules and deliveries that it knows."""

    def __init__(self, *, names: Names) -> None:
        self._names = names

    def check(self, spec: run_pb2.RunSpec) -> None:
        """Raises InvalidArgument naming the field of what ``of_run`` would refuse."""
        self._names.rules_of(spec)

    def of_run(self, key: RunKey, spec: run_pb2.RunSpec, *, now: Micros) -> Owing | None:
        """For a run's end; None where nothing is asked. Raises InvalidArgument naming the field that is wrong."""
        rules = [rule for rule in self._names.rules_of(spec) if Phase.PAUSED not in rule.on_phases]
        return _owing(self._owed(key.action(ROOT_ACTION), rules, now=now))

    def of_condition(self, condition: Action, spec: run_pb2.RunSpec) -> Owing | None:
        """For a condition that begins to wait. Raises InvalidArgument for a webhook of its own that is none."""
        told = run_definition_pb2.ConditionAction.FromString(condition.spec or b"")
        rules = [rule for rule in self._names.rules_of(spec) if Phase.PAUSED in rule.on_phases]
        now = condition.created_at
        owed = self._owed(condition.key, rules, now=now, ready=True)
        if told.HasField("webhook"):
            if not told.webhook.url.startswith(("http://", "https://")):
                raise InvalidArgument("action.condition.webhook.url: an address with http:// or https:// is expected")
            own = Delivery(action=condition.key, number=len(owed), channel=Channel.CONDITION, created_at=now)
            owed.append(replace(own, ready_at=now, due_at=now))
        return _owing(owed)

    def _owed(self, key: ActionKey, rules: Sequence[run_pb2.InlineRule], *, now: Micros, ready: bool = False) -> list[Delivery]:
        pairs = [(rule.SerializeToString(), channel) for rule in rules for channel in self._names.channels(rule)]
        at = now if ready else None
        return [
            Delivery(action=key, number=number, channel=channel, rule=rule, created_at=now, ready_at=at, due_at=at)
            for number, (rule, channel) in enumerate(pairs)
        ]


def _owing(owed: Sequence[Delivery]) -> Owing | None:
    return (lambda: store.add(owed)) if owed else None
