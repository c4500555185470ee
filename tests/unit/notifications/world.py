"""What tests of notifications stand on: a real ledger, real rules, and receivers that the test plays."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from flyteidl2.common import phase_pb2
from flyteidl2.core import execution_pb2, types_pb2
from flyteidl2.notification import definition_pb2
from flyteidl2.task import run_pb2
from flyteidl2.workflow import run_definition_pb2

from flyte_unified.core.clock import Clock
from flyte_unified.core.errors import FlyteUnifiedError
from flyte_unified.core.ids import ActionKey
from flyte_unified.core.phases import Phase
from flyte_unified.db.api import Database
from flyte_unified.ledger.api import Action, ActionType, Ledger, Move, TaskId, first_record
from flyte_unified.notifications import store
from flyte_unified.notifications.model import Channel, Delivery
from flyte_unified.notifications.outgoing import Outgoing
from flyte_unified.notifications.postman import Patience, Postman
from flyte_unified.notifications.rules import Names
from flyte_unified.notifications.service import Notifications
from tests.unit.ledger import births

ENDS = (phase_pb2.ACTION_PHASE_SUCCEEDED, phase_pb2.ACTION_PHASE_FAILED)
PAUSED = phase_pb2.ACTION_PHASE_PAUSED


def webhook(url: str = "http://h/", body: str = "", **headers: str) -> definition_pb2.DeliveryConfigTemplate:
    template = definition_pb2.DeliveryConfigTemplate()
    template.webhook.url, template.webhook.method, template.webhook.body_template = url, definition_pb2.HTTP_METHOD_POST, body
    template.webhook.headers.update(headers)
    return template


def email(*to: str, subject: str = "{{.Phase}}", text: str = "t", html: str = "") -> definition_pb2.DeliveryConfigTemplate:
    inline = definition_pb2.InlineEmailTemplate(subject=subject, text_template=text, html_template=html)
    recipients = [definition_pb2.EmailRecipient(address=address) for address in to]
    return definition_pb2.DeliveryConfigTemplate(email=definition_pb2.EmailDeliveryTemplate(to=recipients, inline=inline))


def rule(template: definition_pb2.DeliveryConfigTemplate, *phases: int) -> run_pb2.InlineRule:
    return run_pb2.InlineRule(on_phases=phases or ENDS, delivery_template=template)  # type: ignore[arg-type]  # numbers will do


def asking(*rules: run_pb2.InlineRule) -> run_pb2.RunSpec:
    return run_pb2.RunSpec(notification_rules=run_pb2.InlineRuleList(rules=rules))


KEPT = 86_400.0


@dataclass
class Receivers(Outgoing):
    """What was sent, by whom it was owed; ``answers`` are raised, the first first."""

    sent: list[tuple[str, str, Channel]] = field(default_factory=list)
    answers: list[FlyteUnifiedError | None] = field(default_factory=list)

    async def send(self, each: Delivery, action: Action) -> None:
        self.sent.append((each.id, f"{action.key.run}/{action.key.name}", each.channel))
        if self.answers and (answer := self.answers.pop(0)) is not None:
            raise answer

    async def close(self) -> None:
        pass

    @property
    def told(self) -> list[str]:
        return [action for _, action, _ in self.sent]


@dataclass
class World:
    clock: Clock
    database: Database
    ledger: Ledger
    notifications: Notifications
    patience: Patience

    @asynccontextmanager
    async def leading(self, receivers: Receivers | None = None) -> AsyncIterator[tuple[Postman, Receivers]]:
        """A server that leads, until it is killed."""
        receivers = receivers or Receivers()
        postman = Postman(
            database=self.database, ledger=self.ledger, outgoing=receivers, patience=self.patience, clock=self.clock
        )
        await postman.start()
        try:
            yield postman, receivers
        finally:
            await postman.close()

    async def run(self, spec: run_pb2.RunSpec, name: str = "r") -> ActionKey:
        root = births.ROOT._replace(run=name)
        new = births.run(root, content=name)
        owing = self.notifications.of_run(root.run_key, spec, now=self.clock.now())
        await self.ledger.create_run(
            replace(new, run=replace(new.run, run_spec=spec.SerializeToString(), created_at=self.clock.now()), beside=owing)
        )
        return root

    async def condition(
        self, spec: run_pb2.RunSpec, *, url: str = "", name: str = "c", parent: ActionKey = births.ROOT
    ) -> ActionKey:
        told = run_definition_pb2.ConditionAction(
            name="ok", type=types_pb2.LiteralType(simple=types_pb2.BOOLEAN), prompt="Go on?"
        )
        if url:
            told.webhook.url = url
        now = self.clock.now()
        new = Action(
            key=parent.sibling(name),
            parent=parent.name,
            depth=0,
            action_type=ActionType.CONDITION,
            phase=Phase.PAUSED,
            created_at=now,
            updated_at=now,
            task=TaskId(name="ok"),
            spec=told.SerializeToString(),
            record=first_record(Phase.PAUSED, at=now).SerializeToString(),
        )
        await self.ledger.enqueue(new, beside=self.notifications.of_condition(new, spec))
        return new.key

    async def end(self, key: ActionKey, phase: Phase = Phase.SUCCEEDED, *, error: str = "") -> None:
        told = execution_pb2.ExecutionError(message=error) if error else None
        steps = () if phase is Phase.ABORTED else (Move(to=Phase.RUNNING),)
        await self.ledger.move(key, *steps, Move(to=phase, error=told, reason="enough" if phase is Phase.ABORTED else ""))

    async def owed(self, key: ActionKey) -> list[Delivery]:
        return await self.database.read(lambda: store.of_action(key))


def world_of(clock: Clock, database: Database, names: Names | None = None) -> World:
    return World(
        clock,
        database,
        Ledger(database=database, clock=clock),
        Notifications(names=names or Names()),
        Patience(longest=60.0, total=600.0, kept=KEPT),
    )
