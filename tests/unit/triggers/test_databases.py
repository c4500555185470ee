"""Triggers on every database: what is stored, listed and planned there, and who is told of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from flyteidl2.common import identifier_pb2, list_pb2
from flyteidl2.task import task_definition_pb2, task_service_pb2
from flyteidl2.trigger import trigger_service_pb2 as idl
from flyteidl2.workflow import run_service_pb2

from flyte_unified.core.errors import Aborted
from flyte_unified.db.api import Database
from flyte_unified.triggers.api import TriggerKey
from tests.unit.manual_clock import ManualClock
from tests.unit.triggers.world import CTX, DOMAIN, MINUTE, PROJECT, TASK, World, cron, named, rate, world_in

IN_PROJECT = identifier_pb2.ProjectIdentifier(name=PROJECT, domain=DOMAIN)


@pytest.fixture
async def stored(tmp_path: Path, clock: ManualClock, database: Database) -> AsyncIterator[World]:
    world = await world_in(tmp_path, clock, database)
    yield world
    world.ledger.changes.close()
    await world.data.stop()


async def test_a_trigger_and_its_revisions(stored: World) -> None:
    """With their task, alone, paused and deleted; whoever plans is told after each commit."""
    told: list[TriggerKey | None] = []
    stored.triggers.subscribe(told.append)
    spec = task_definition_pb2.TaskTriggerSpec(active=True)
    attached = [task_definition_pb2.TaskTrigger(name=name, spec=spec, automation_spec=cron("@daily")) for name in ("a", "b")]
    await stored.deploy_task(*attached)
    assert sorted(await stored.listed(project_id=IN_PROJECT)) == ["a", "b"]
    request = task_service_pb2.ListTasksRequest(project_id=IN_PROJECT)
    (task,) = (await stored.tasks.list_tasks(request, CTX)).tasks
    assert task.metadata.triggers_summary.stats.total == 2
    await stored.switch("a", active=False)
    await stored.delete("b")
    assert await stored.history("a") == [(2, "DEACTIVATE"), (1, "DEPLOY")]
    assert await stored.history("b") == [(2, "DELETE"), (1, "DEPLOY")]
    assert [key.name for key in told if key is not None] == ["a", "b", "a", "b"]


async def test_deployments_at_one_time(stored: World) -> None:
    """Each makes a revision of its own; of those that mean the same one, one is made."""
    await stored.deploy_task()
    await asyncio.gather(*(stored.deploy(rate(number)) for number in range(1, 6)))
    assert [number for number, _ in await stored.history()] == [5, 4, 3, 2, 1]
    outcomes = await asyncio.gather(
        *(stored.deploy(rate(10 * number), revision=5) for number in range(1, 5)), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes if isinstance(outcome, Exception)] == [Aborted] * 3
    assert (await stored.get()).id.revision == 6


async def test_what_is_due(stored: World, clock: ManualClock) -> None:
    """By time; a step that was overtaken changes nothing."""
    await stored.deploy_task()
    await stored.deploy(rate(5), "late")
    await stored.deploy(rate(1), "soon")
    await stored.deploy(rate(1), "paused", active=False)
    now = clock.now()
    soon, late = (TriggerKey(PROJECT, DOMAIN, TASK, name) for name in ("soon", "late"))
    assert await stored.triggers.scheduled() == [(soon, now + MINUTE), (late, now + 5 * MINUTE)]
    trigger = await stored.triggers.latest(soon)
    assert trigger is not None
    for to in (now + 9 * MINUTE, now + 2 * MINUTE):
        await stored.triggers.advance(trigger, to)  # type: ignore[arg-type]
    assert await stored.triggers.scheduled() == [(late, now + 5 * MINUTE), (soon, now + 9 * MINUTE)]


async def test_runs_and_when_they_were(stored: World, clock: ManualClock) -> None:
    """A trigger's runs, page by page, by any order; the trigger that ran last comes first if that is asked."""
    await stored.deploy_task()
    for name in ("t", "never", "other"):
        await stored.deploy(None, name)
    made = []
    for _ in range(3):
        clock.pass_by(1)
        made.append((await stored.run()).action.id.run.name)
    clock.pass_by(1)
    message = run_service_pb2.CreateRunRequest(project_id=IN_PROJECT, trigger_name=named("other"))
    await stored.runs.create_run(message, CTX)

    sort = list_pb2.Sort(key="triggered_at", direction=list_pb2.Sort.DESCENDING)
    request = idl.ListTriggersRequest(project_id=IN_PROJECT, request=list_pb2.ListRequest(limit=1, sort_by=sort))
    seen = []
    while True:
        page = await stored.handlers.list_triggers(request, CTX)
        seen += [each.id.name.name for each in page.triggers]
        if not page.token:
            break
        request.request.token = page.token
    assert seen == ["other", "t", "never"]
    for key in ("created_at", "run_name", "phase"):
        runs = run_service_pb2.ListRunsRequest(
            trigger_name=named(), request=list_pb2.ListRequest(limit=2, sort_by=list_pb2.Sort(key=key))
        )
        found = []
        while True:
            listed = await stored.runs.list_runs(runs, CTX)
            found += [run.action.id.run.name for run in listed.runs]
            if not listed.token:
                break
            runs.request.token = listed.token
        assert sorted(found) == sorted(made), key
        assert key != "created_at" or found == made[::-1]
