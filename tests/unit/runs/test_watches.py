"""WatchRuns, WatchActions and WatchGroups: complete at once, then every change, coalesced and never lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from flyteidl2.common import list_pb2
from flyteidl2.core import execution_pb2
from flyteidl2.workflow import run_definition_pb2, run_service_pb2

from flyte_unified.core.clock import timestamp
from flyte_unified.core.errors import InvalidArgument, NotFound
from flyte_unified.core.ids import ROOT_ACTION, ActionKey, RunKey
from flyte_unified.core.phases import Phase
from flyte_unified.ledger.api import Move
from tests.unit.runs.world import A0, ORG, R1, World, context, task_spec

_EPOCH = timestamp(0)


def _runs(world: World, request: run_service_pb2.WatchRunsRequest) -> AsyncGenerator[run_service_pb2.WatchRunsResponse]:
    return world.handlers.watch_runs(request, context())


def _told(response: run_service_pb2.WatchRunsResponse) -> dict[str, int]:
    return {run.action.id.run.name: run.action.status.phase for run in response.runs}


def _of_project(name: str = "p") -> run_service_pb2.WatchRunsRequest:
    request = run_service_pb2.WatchRunsRequest()
    request.project_id.organization, request.project_id.name, request.project_id.domain = ORG, name, "development"
    return request


async def test_runs_are_pushed_as_they_come_and_change(world: World) -> None:
    """First what there is, if only to say that there is nothing; then new runs and every phase, of the scope only."""
    async with aclosing(_runs(world, _of_project())) as updates:
        assert _told(await anext(updates)) == {}
        await world.run("s1", project="q")
        await world.run("r1")
        assert _told(await anext(updates)) == {"r1": int(Phase.QUEUED)}
        await world.move(A0, Phase.RUNNING)
        await world.run("r2")
        await world.move(A0, Phase.SUCCEEDED)
        assert _told(await anext(updates)) == {"r1": int(Phase.SUCCEEDED), "r2": int(Phase.QUEUED)}
    async with aclosing(_runs(world, _of_project())) as updates:
        assert _told(await anext(updates)) == {"r2": int(Phase.QUEUED), "r1": int(Phase.SUCCEEDED)}


async def test_scopes_of_watched_runs(world: World) -> None:
    """Of a task, of a cluster (there is one) and of an org (there is one)."""
    of_task = run_service_pb2.WatchRunsRequest()
    of_task.task_id.project, of_task.task_id.name, of_task.task_id.version = "p", "env.other", "v1"
    of_cluster = run_service_pb2.WatchRunsRequest()
    of_cluster.cluster_id.name = "c"
    wholes = [of_cluster, run_service_pb2.WatchRunsRequest(org="127")]
    async with aclosing(_runs(world, of_task)) as narrow, aclosing(_runs(world, wholes[0])) as wide:
        await anext(narrow)
        await anext(wide)
        await world.run("r1")
        await world.run("r2", spec=task_spec("env.other"))
        assert set(_told(await anext(narrow))) == {"r2"}
        assert set(_told(await anext(wide))) == {"r1", "r2"}
    async with aclosing(_runs(world, wholes[1])) as wide:
        assert set(_told(await anext(wide))) == {"r1", "r2"}


def _actions(world: World, *filters: list_pb2.Filter, run: RunKey = R1) -> AsyncGenerator[run_service_pb2.WatchActionsResponse]:
    request = run_service_pb2.WatchActionsRequest(run_id=run.idl(ORG), filter=filters)
    return world.handlers.watch_actions(request, context())


def _counts(update: run_service_pb2.WatchActionsResponse) -> dict[str, dict[int, int]]:
    return {action.action.id.name: dict(action.children_phase_counts) for action in update.enriched_actions}


async def test_a_tree_tells_what_changed_and_all_above(world: World) -> None:
    """With counts of all descendants; new actions are pushed; a deeper one shows in the root."""
    await world.run()
    child = await world.child("child")
    async with aclosing(_actions(world)) as updates:
        first = await anext(updates)
        assert _counts(first) == {"a0": {1: 1}, "child": {}}
        assert all(action.meets_filter for action in first.enriched_actions)
        assert first.enriched_actions[1].action.metadata.parent == "a0"
        deep = await world.child("deep", child)
        await world.child("other")
        assert _counts(await anext(updates)) == {"a0": {1: 3}, "child": {1: 1}, "deep": {}, "other": {}}
        await world.move(deep, Phase.RUNNING, Phase.SUCCEEDED)
        assert _counts(await anext(updates)) == {"a0": {1: 2, 5: 1}, "child": {5: 1}, "deep": {}}


async def test_a_filtered_tree_shows_the_way(world: World) -> None:
    """To what failed; and hides it all when it is asked for running ones and they end."""
    await world.run()
    child = await world.child("child")
    deep = await world.child("deep", child)
    await world.child("other")
    running = list_pb2.Filter(function=list_pb2.Filter.VALUE_IN, field="PHASE", values=["4"])
    async with aclosing(_actions(world, running)) as updates:
        assert _counts(await anext(updates)) == {}
        await world.move(deep, Phase.RUNNING)
        assert set(_counts(await anext(updates))) == {"a0", "child", "deep"}
        await world.move(deep, Phase.FAILED)
        hidden = await anext(updates)
        assert {action.action.id.name: action.meets_filter for action in hidden.enriched_actions} == {
            "a0": False,
            "child": False,
            "deep": False,
        }


async def test_a_large_run_is_told_completely(world: World) -> None:
    """In several messages, parents first, each action once."""
    await world.run()
    parent = await world.child("z-parent")
    await asyncio.gather(*(world.child(f"c{number}", parent) for number in range(1100)))
    updates = _actions(world)
    async with aclosing(updates):
        pages = [await anext(updates) for _ in range(3)]
    names = [action.action.id.name for page in pages for action in page.enriched_actions]
    assert names[:2] == ["a0", "z-parent"]
    assert (len(names), len(set(names))) == (1102, 1102)
    assert _counts(pages[0])["a0"] == {1: 1101}


async def test_no_change_is_lost_to_a_watcher_however_slow(world: World) -> None:
    """What a watcher last saw of each action is what the ledger holds, though it was not told of every step."""
    await world.run()
    keys = [await world.child(f"c{number}") for number in range(20)]
    last: dict[str, run_definition_pb2.EnrichedAction] = {}

    async def watch() -> None:
        async with aclosing(_actions(world)) as updates:
            async for update in updates:
                last.update({action.action.id.name: action for action in update.enriched_actions})
                if last["a0"].children_phase_counts == {int(Phase.SUCCEEDED): 20}:
                    return

    async def work(key: ActionKey) -> None:
        for phase in (Phase.INITIALIZING, Phase.RUNNING, Phase.SUCCEEDED):
            await world.move(key, phase)

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(watch())
        for key in keys:
            group.create_task(work(key))
    assert Counter(action.action.status.phase for action in last.values()) == {int(Phase.SUCCEEDED): 20, 1: 1}


async def test_watches_of_actions_that_are_refused(world: World) -> None:
    """A run that does not exist, a filter that is none."""
    with pytest.raises(NotFound):
        await anext(_actions(world))
    await world.run()
    with pytest.raises(InvalidArgument, match="filter"):
        await anext(_actions(world, list_pb2.Filter(field="GROUP", values=["x"])))


def _groups(world: World, **fields: object) -> AsyncGenerator[run_service_pb2.WatchGroupsResponse]:
    request = run_service_pb2.WatchGroupsRequest(**{"start_date": _EPOCH, **fields})
    request.project_id.organization, request.project_id.name, request.project_id.domain = ORG, "p", "development"
    return world.handlers.watch_groups(request, context())


async def test_a_group_sums_up_a_tasks_runs(world: World) -> None:
    """How many, how they ended, how long they took, the latest first; then the sentinel."""
    user = execution_pb2.ExecutionError(kind=execution_pb2.ExecutionError.USER)
    for number in range(12):
        root = await world.run(f"r{number}", subject="ann" if number else "bob")
        await world.move(root, Phase.RUNNING)
        if number % 4 == 0:
            await world.ledger.move(root, Move(to=Phase.FAILED, error=user))
        elif number < 11:
            await world.move(root, Phase.SUCCEEDED)
    await world.run("s1", project="q")
    async with aclosing(_groups(world)) as updates:
        (group,) = (await anext(updates)).task_groups
        assert (await anext(updates)).sentinel
    assert (group.task_name, group.environment_name, group.short_name, group.total_runs) == ("env.main", "env", "main", 12)
    assert [recent.run_name for recent in group.recent_statuses] == [f"r{number}" for number in range(11, 1, -1)]
    assert {count.phase: count.count for count in group.phase_counts} == {4: 1, 5: 8, 6: 3}
    assert group.average_failure_rate == 0.25
    assert (group.error_counts.user_error, group.error_counts.system_error) == (3, 0)
    assert [who.user.id.subject for who in group.created_by] == ["ann", "bob"]
    assert group.average_duration.ToMicroseconds() >= group.average_time_to_running.ToMicroseconds() > 0
    assert group.latest_finished_time.ToMicroseconds() > group.latest_run_time.ToMicroseconds() - 10_000_000


async def test_groups_are_pushed_when_their_runs_change(world: World) -> None:
    """Only those that changed; one whose runs no longer meet the filter is to be deleted."""
    await world.run("r1")
    await world.run("r2", spec=task_spec("env.other"))
    queued = list_pb2.ListRequest(filters=[list_pb2.Filter(field="phase", values=["1"])])
    async with aclosing(_groups(world, request=queued)) as updates:
        assert [group.task_name for group in (await anext(updates)).task_groups] == ["env.other", "env.main"]
        assert (await anext(updates)).sentinel
        await world.run("r3", spec=task_spec("env.other"))
        assert [(group.task_name, group.total_runs) for group in (await anext(updates)).task_groups] == [("env.other", 2)]
        await world.child("c1")
        await world.move(A0, Phase.RUNNING)
        (gone,) = (await anext(updates)).task_groups
        assert (gone.task_name, gone.should_delete) == ("env.main", True)


async def test_groups_of_a_time_that_is_over(world: World) -> None:
    """Are told once; what began outside of it does not count; oldest first if so asked."""
    for name in ("r1", "r2", "r3"):
        await world.run(name, spec=task_spec(f"env.{name}"))
    until = (await world.ledger.action(RunKey("p", "development", "r2").action(ROOT_ACTION))).created_at
    oldest_first = run_service_pb2.WatchGroupsRequest.KnownSortField(created_at=list_pb2.Sort.ASCENDING)
    responses = [response async for response in _groups(world, end_date=timestamp(until), known_sort_fields=[oldest_first])]
    assert [group.task_name for response in responses for group in response.task_groups] == ["env.r1", "env.r2"]
    assert responses[-1].sentinel


async def test_groups_need_a_beginning(world: World) -> None:
    """And a project: InvalidArgument names what is missing."""
    with pytest.raises(InvalidArgument, match="start_date"):
        await anext(_groups(world, start_date=None))
    with pytest.raises(InvalidArgument, match="project_id"):
        await anext(world.handlers.watch_groups(run_service_pb2.WatchGroupsRequest(), context()))
