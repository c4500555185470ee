"""What was promised holds when the server is killed: how many compute at once, and that somebody is told of the end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from flyteidl2.common import identifier_pb2
from flyteidl2.workflow import run_service_pb2

from flyte_unified.core.phases import Phase
from tests.sdk.durability.stand import DOMAIN, PROJECT, Server, gone, standing
from tests.sdk.receivers import Inbox, receiving
from tests.sdk.test_durability import LEAVES, check
from tests.sdk.test_slots import leaves, lives, peak, processes
from tests.unit.notifications.world import asking, rule, webhook


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    with receiving() as inbox:
        yield inbox


async def again(server: Server, run: str, url: str) -> str:
    """The same once more, and ``url`` is told of its end."""
    root = await server.details(run, "a0")
    key = identifier_pb2.ActionIdentifier(run=root.id.run, name="a0")
    message = run_service_pb2.GetActionDataRequest(action_id=key)
    data = await server.call("workflow.RunService", "GetActionData", message, run_service_pb2.GetActionDataResponse)
    project = identifier_pb2.ProjectIdentifier(name=PROJECT, domain=DOMAIN)
    spec = asking(rule(webhook(url, '"{{.Phase}}"')))
    request = run_service_pb2.CreateRunRequest(project_id=project, task_spec=root.task, inputs=data.inputs, run_spec=spec)
    reply = await server.call("workflow.RunService", "CreateRun", request, run_service_pb2.CreateRunResponse)
    return str(reply.run.action.id.run.name)


async def test_promises_outlive_a_killed_server(tmp_path: Path, inbox: Inbox) -> None:
    """Of a queue of two, two compute before and after kill -9; a notification that nobody took is sent again under its key."""
    async with standing(tmp_path, EXECUTION_SLOTS="8", QUEUES_MAX_CONCURRENCY="default=2", NOTIFICATIONS_RETRY_MAX="1s") as (
        server,
        gate,
    ):
        run = await server.run(gate, "fan", LEAVES)
        await gate.until(lambda: len(gate.visits) == 3)
        await server.kill()
        first = gate.visits[1]
        first.go()
        await gone(first.pid)
        await server.start()
        await gate.until(lambda: len(gate.visits) == 4)
        assert [await server.metric(name) for name in ("active_slots", "waiting_actions")] == [2, 1]
        gate.open()
        await check(server, gate, run)
        assert peak(processes(leaves(await lives(server, run)))) == 2

        inbox.refuse = 1_000_000
        told = await again(server, run, f"{inbox.web}/end")
        assert await server.phase(told) is Phase.SUCCEEDED
        (refused, *_) = await asyncio.to_thread(inbox.get, path="/end")
        await server.kill()
        inbox.refuse = 0
        before = len(inbox.get(path="/end"))
        await server.start()
        *_, taken = await asyncio.to_thread(inbox.get, before + 1, path="/end")
        assert (taken.body, taken.headers["idempotency-key"]) == ("SUCCEEDED", refused.headers["idempotency-key"])
