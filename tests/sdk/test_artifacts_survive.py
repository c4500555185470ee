"""Artifacts and what they start, when servers are killed between a task's end and all that follows from it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

from flyteidl2.artifact import artifact_service_pb2 as idl
from flyteidl2.common import identifier_pb2
from flyteidl2.task import common_pb2, task_definition_pb2, task_service_pb2
from flyteidl2.trigger import trigger_definition_pb2, trigger_service_pb2
from flyteidl2.workflow import run_service_pb2

from flyte_unified.core.phases import Phase
from tests.edge.wire.world import nap_inputs, nap_spec, trigger_name
from tests.sdk.durability.stand import DOMAIN, PATIENCE, PROJECT, Server, gone, standing

TASK = "watcher"
PLACE = identifier_pb2.ProjectIdentifier(name=PROJECT, domain=DOMAIN)


async def watch(server: Server) -> None:
    """A task that naps when there is an artifact ``made``."""
    task = task_definition_pb2.TaskIdentifier(project=PROJECT, domain=DOMAIN, name=TASK, version="1")
    deploy = task_service_pb2.DeployTaskRequest(task_id=task, spec=nap_spec(TASK))
    await server.call("task.TaskService", "DeployTask", deploy, task_service_pb2.DeployTaskResponse)
    automation = common_pb2.TriggerAutomationSpec(
        type=common_pb2.TYPE_ARTIFACT, artifact=common_pb2.ArtifactTrigger(artifact_name="made")
    )
    spec = trigger_definition_pb2.TriggerSpec(active=True, task_version="1", inputs=nap_inputs(timedelta(0)))
    trigger = trigger_service_pb2.DeployTriggerRequest(name=trigger_name("t", TASK), spec=spec, automation_spec=automation)
    await server.call("trigger.TriggerService", "DeployTrigger", trigger, trigger_service_pb2.DeployTriggerResponse)


async def fired(server: Server) -> None:
    """Returns when the trigger has started a run."""
    message = run_service_pb2.WatchRunsRequest(project_id=PLACE)
    stream = server.stream("workflow.RunService", "WatchRuns", message, run_service_pb2.WatchRunsResponse)
    async with asyncio.timeout(PATIENCE), aclosing(stream) as updates:  # type: ignore[type-var]
        async for update in updates:
            if any(run.action.metadata.trigger_id.name.name == "t" for run in update.runs):
                return
    raise AssertionError("the watch ended")


async def test_killed_servers_neither_lose_nor_repeat(tmp_path: Path) -> None:
    """The task ends while no server runs, and the next ones are killed at once: it leaves one artifact, and that one fire."""
    async with standing(tmp_path) as (server, gate):
        await watch(server)
        run = await server.run(gate, "maker", 0)
        maker = await gate.comes("maker")
        await server.kill()
        maker.go()
        await gone(maker.pid)
        for _ in range(2):
            await server.start()
            await server.kill()
        await server.start()
        assert await server.phase(run) is Phase.SUCCEEDED
        await fired(server)
        await server.restart()
        message = idl.ListArtifactsRequest(project_id=PLACE, name="made")
        found = await server.call("artifact.ArtifactService", "ListArtifacts", message, idl.ListArtifactsResponse)
        assert [each.artifact_id.version for each in found.artifacts] == [f"{run}-a0-0"]
        runs = run_service_pb2.ListRunsRequest(trigger_name=trigger_name("t", TASK))
        listed = await server.call("workflow.RunService", "ListRuns", runs, run_service_pb2.ListRunsResponse)
        assert len(listed.runs) == 1
