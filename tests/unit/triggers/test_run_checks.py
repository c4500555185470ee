"""What would refuse each run of a trigger refuses the trigger: else its fires would be dropped, and nobody would see it."""

from __future__ import annotations

import pytest
from flyteidl2.task import run_pb2, task_definition_pb2
from flyteidl2.trigger import trigger_service_pb2 as idl

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.queues import Queues
from flyte_unified.db.api import Database
from flyte_unified.ledger.api import TaskId
from flyte_unified.notifications.rules import Names
from flyte_unified.notifications.service import Notifications
from flyte_unified.triggers.service import Triggers
from tests.unit.manual_clock import ManualClock
from tests.unit.notifications.world import asking, rule, webhook
from tests.unit.triggers.world import DOMAIN, PROJECT, TASK, cron, named, task_spec

GOOD = asking(rule(webhook(body="{{.Error}}")))
GOOD.queue = "gpu"
WRONG = (run_pb2.RunSpec(queue="gup"), asking(rule(webhook(body="{{.Eror}}"))))


@pytest.fixture
def triggers(database: Database, clock: ManualClock) -> Triggers:
    checks = (Queues(("gpu",)).check_run, Notifications(names=Names()).check)
    return Triggers(database=database, clock=clock, checks=checks)


@pytest.mark.parametrize("wrong", WRONG)
async def test_it_is_refused_when_it_is_deployed(triggers: Triggers, wrong: run_pb2.RunSpec) -> None:
    """Alone, and with its task."""
    message = idl.DeployTriggerRequest(name=named(), automation_spec=cron("@daily"))
    message.spec.active, message.spec.task_version = True, "v1"
    message.spec.run_spec.CopyFrom(wrong)
    with pytest.raises(InvalidArgument, match=r"^run_spec"):
        await triggers.deploy(message, task_spec(), by="ada")
    each = task_definition_pb2.TaskTrigger(name="t", automation_spec=cron("@daily"))
    each.spec.run_spec.CopyFrom(wrong)
    with pytest.raises(InvalidArgument, match=r"^run_spec"):
        triggers.attach(TaskId(PROJECT, DOMAIN, TASK, "v1"), task_spec(), [each], by="ada")
    message.spec.run_spec.CopyFrom(GOOD)
    assert (await triggers.deploy(message, task_spec(), by="ada")).trigger.active
