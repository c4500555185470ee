"""By which way it goes, and what is said of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import structlog.testing
from flyteidl2.notification import definition_pb2
from flyteidl2.task import run_pb2

from flyte_unified.core.errors import FailedPrecondition
from flyte_unified.core.phases import Phase
from flyte_unified.db.api import Database
from flyte_unified.ledger.api import Action
from flyte_unified.notifications import store
from flyte_unified.notifications.model import Channel, Delivery
from flyte_unified.notifications.outgoing import Outgoing
from flyte_unified.notifications.postman import Patience, Postman
from flyte_unified.notifications.rules import Names
from flyte_unified.settings.sections import Notifications
from tests.unit.ledger import births
from tests.unit.manual_clock import ManualClock
from tests.unit.notifications.world import ENDS, World, asking, email, rule, webhook, world_of

SETTINGS = Notifications(smtp_password="SECRET", smtp_host="127.0.0.1", smtp_port=1, smtp_security="none")


def outgoing(names: Names | None = None) -> Outgoing:
    return Outgoing(SETTINGS, names=names or Names(), callback=str)


@pytest.fixture
async def world(database: Database, clock: ManualClock) -> AsyncIterator[World]:
    world = world_of(clock, database)
    yield world
    world.ledger.changes.close()


class Watched(Outgoing):
    """``tried`` is set when two were."""

    def __init__(self) -> None:
        super().__init__(SETTINGS, names=Names(), callback=str)
        self.tried = asyncio.Event()
        self._tries = 0

    async def send(self, each: Delivery, action: Action) -> None:
        try:
            await super().send(each, action)
        finally:
            self._tries += 1
            if self._tries == 2:
                self.tried.set()


async def test_secrets_are_in_no_log_and_no_row(world: World) -> None:
    """Of a call that failed the host is told, and no address, header, body or password."""
    told = webhook("http://127.0.0.1:1/services/SECRET?token=SECRET", '{"SECRET": 1}', **{"x-key": "SECRET"})
    told.MergeFrom(email("SECRET@example.com", subject="SECRET"))
    root = await world.run(asking(rule(told)))
    await world.end(root)
    with structlog.testing.capture_logs() as log:
        watched = Watched()
        postman = Postman(
            database=world.database,
            ledger=world.ledger,
            outgoing=watched,
            patience=Patience(longest=1, total=0, kept=0.0),
            clock=world.clock,
        )
        await postman.start()
        await watched.tried.wait()
        await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name().startswith("notification ")))
        await postman.close()
    owed = await world.owed(root)
    assert all(each.due_at is None for each in owed)
    assert [each.error.partition(":")[0] for each in owed] == [
        "127.0.0.1 could not be called",
        "the SMTP server could not be used",
    ]
    assert "SECRET" not in str([each.error for each in owed])
    assert len(log) == 2
    assert "SECRET" not in str(log)


async def test_a_name_that_is_gone_is_told(world: World) -> None:
    """The file was changed since the run began: the delivery is given up, and not sent elsewhere."""
    named = run_pb2.InlineRule(on_phases=ENDS, delivery_config_name="gone")
    each = Delivery(action=births.ROOT, number=0, channel=Channel.EMAIL, rule=named.SerializeToString(), created_at=births.BORN)
    action = replace(births.action("a0", parent=None), phase=Phase.FAILED)
    for names in (Names(), Names({"gone": webhook()}), Names({"gone": definition_pb2.DeliveryConfigTemplate()})):
        with pytest.raises(FailedPrecondition, match=r"notifications\.file has no email of this name"):
            await outgoing(names).send(each, action)
    assert await world.database.read(lambda: store.next_due(1)) == []
