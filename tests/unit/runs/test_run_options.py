"""What a run's spec means for its actions: their queue, and who is told of them."""

from __future__ import annotations

import pytest
from flyteidl2.core import types_pb2
from flyteidl2.task import run_pb2

from flyte_unified.core.context import Identity
from flyte_unified.core.errors import InvalidArgument, NotFound
from flyte_unified.core.phases import Phase
from flyte_unified.notifications import store
from tests.unit.notifications.world import PAUSED, asking, rule, webhook
from tests.unit.runs.world import A0, World, task_spec


async def test_actions_are_in_their_run_s_queue(world: World) -> None:
    """Unless their task names another; one that no queue has is refused, of a run as of a task."""
    await world.run(run_spec=run_pb2.RunSpec(queue="gpu"))
    child = await world.child("c1")
    message = world._action(A0.sibling("c2"), A0)
    message.task.spec.CopyFrom(task_spec("env.other"))
    message.task.queue = "q"
    await world.actions.enqueue(message, Identity())
    queues = [(await world.ledger.action(key)).queue for key in (A0, child, A0.sibling("c2"))]
    assert queues == ["gpu", "gpu", "q"]
    message.action_id.name, message.task.queue = "c3", "qq"
    with pytest.raises(InvalidArgument, match=r"action\.task\.queue: there is no queue 'qq'; known are default, gpu, q"):
        await world.actions.enqueue(message, Identity())
    with pytest.raises(InvalidArgument, match=r"run_spec\.queue: there is no queue 'qq'"):
        await world.run("r2", run_spec=run_pb2.RunSpec(queue="qq"))
    with pytest.raises(NotFound):
        await world.ledger.action(A0._replace(run="r2"))


async def test_what_is_owed_is_there_with_its_cause(world: World) -> None:
    """Of a run with its first commit, of a condition with its own; a spec that is wrong makes neither."""
    told = asking(rule(webhook()), rule(webhook(), PAUSED))
    await world.run(run_spec=told)
    condition = await world.condition("ok", kind=types_pb2.BOOLEAN)
    of_run, of_condition = [await world.ledger.read(lambda key=key: store.of_action(key)) for key in (A0, condition)]
    assert [list(each.rule_message.on_phases) for each in of_run] == [[Phase.SUCCEEDED, Phase.FAILED]]
    assert [list(each.rule_message.on_phases) for each in of_condition] == [[Phase.PAUSED]]
    assert (of_run[0].due_at, of_condition[0].due_at) == (None, of_condition[0].created_at)
    with pytest.raises(InvalidArgument, match=r"run_spec\.notification_rules\.rules\[0\]"):
        await world.run("r2", run_spec=asking(rule(webhook("nowhere"))))
    with pytest.raises(NotFound):
        await world.ledger.action(A0._replace(run="r2"))
    message = world._action(A0.sibling("bad"), A0)
    message.condition.name, message.condition.webhook.url = "bad", "nowhere"
    message.condition.type.simple = types_pb2.BOOLEAN
    with pytest.raises(InvalidArgument, match=r"condition\.webhook\.url"):
        await world.actions.enqueue(message, Identity())
