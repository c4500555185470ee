"""What the console watches and the SDK does not: RunService's streams, and what it tells of an action's data and logs.

The clients are Flyte's own Connect ones. Each stream tells what is, then what changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from flyteidl2.common import list_pb2, phase_pb2
from flyteidl2.dataproxy import dataproxy_service_pb2 as dataproxy_pb2
from flyteidl2.task import common_pb2
from flyteidl2.workflow import events_proxy_service_pb2, run_definition_pb2, run_logs_service_pb2, run_service_pb2
from flyteidl2.workflow.events_proxy_service_connect import EventsProxyServiceClient
from flyteidl2.workflow.run_logs_service_connect import RunLogsServiceClient
from flyteidl2.workflow.run_service_connect import RunServiceClient

from tests.edge.wire import examples
from tests.edge.wire import world as facts
from tests.edge.wire.raw import SECONDS
from tests.edge.wire.world import World, action_id, project_id, run_id

QUEUED, RUNNING = phase_pb2.ACTION_PHASE_QUEUED, phase_pb2.ACTION_PHASE_RUNNING
SUCCEEDED, ABORTED, PAUSED = phase_pb2.ACTION_PHASE_SUCCEEDED, phase_pb2.ACTION_PHASE_ABORTED, phase_pb2.ACTION_PHASE_PAUSED
LIVE = {QUEUED, phase_pb2.ACTION_PHASE_WAITING_FOR_RESOURCES, phase_pb2.ACTION_PHASE_INITIALIZING, RUNNING}

T = TypeVar("T")


@pytest.fixture
def runs(address: str) -> RunServiceClient:
    return RunServiceClient(address)


class Stream:
    """A server's messages, one by one, each within the patience of a test."""

    def __init__(self, messages: Any) -> None:
        self._messages = messages

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._messages.aclose()

    async def next(self) -> Any:
        async with asyncio.timeout(SECONDS):
            return await anext(self._messages)

    async def until(self, wanted: Any) -> Any:
        """The first message that is ``wanted``."""
        async with asyncio.timeout(SECONDS):
            async for message in self._messages:
                if wanted(message):
                    return message
        raise AssertionError("the stream ended")


async def all_of(messages: AsyncIterator[T]) -> list[T]:
    """The messages of a stream that ends."""
    async with asyncio.timeout(SECONDS):
        return [message async for message in messages]


async def test_run_details(runs: RunServiceClient, world: World) -> None:
    """The run as it is at once, then with its root's phases; the stream ends with the run."""
    name = facts.new_name("watched")
    await world.create(name)
    async with Stream(runs.watch_run_details(run_service_pb2.WatchRunDetailsRequest(run_id=run_id(name)))) as stream:
        first = (await stream.next()).details
        assert first.action.id == action_id(name)
        assert first.action.task.task_template.type == "core-sleep"
        assert first.action.status.phase in LIVE
        if first.action.status.phase != RUNNING:
            await stream.until(lambda message: message.details.action.status.phase == RUNNING)
        await world.abort(name)
        last = (await stream.until(lambda message: message.details.action.status.phase == ABORTED)).details
        assert last.action.abort_info.reason == "the test is over"
        with pytest.raises(StopAsyncIteration):
            await stream.next()
    (again,) = await all_of(runs.watch_run_details(run_service_pb2.WatchRunDetailsRequest(run_id=run_id(name))))
    assert again.details == last


async def test_runs(runs: RunServiceClient, world: World) -> None:
    """The newest runs, then a new one and its changes; runs of other projects are not told."""
    before = facts.new_name("before")
    await world.create(before, timedelta(0))
    async with Stream(runs.watch_runs(run_service_pb2.WatchRunsRequest(project_id=project_id()))) as stream:
        there = {run.action.id.run.name for run in (await stream.next()).runs}
        assert before in there
        name = facts.new_name("new")
        await world.create(name)
        told = await stream.until(lambda message: any(run.action.id.run.name == name for run in message.runs))
        assert told.runs[-1].action.metadata.task.short_name == "nap"
        await world.abort(name)
        await stream.until(
            lambda message: any(run.action.id.run.name == name and run.action.status.phase == ABORTED for run in message.runs)
        )
    elsewhere = run_service_pb2.WatchRunsRequest(project_id={"name": "system", "domain": "development"})
    async with Stream(runs.watch_runs(elsewhere)) as stream:
        assert not (await stream.next()).runs


async def test_actions(runs: RunServiceClient, world: World) -> None:
    """The tree as it is, with counts of what is below; then a child, its end, and its parent's new counts."""
    name = facts.new_name("tree")
    await world.create(name)
    await world.enqueue(name, "n0")
    async with Stream(runs.watch_actions(run_service_pb2.WatchActionsRequest(run_id=run_id(name)))) as stream:
        root, child = (await stream.next()).enriched_actions
        assert (root.action.id.name, child.action.id.name, child.action.metadata.parent) == ("a0", "n0", "a0")
        assert sum(root.children_phase_counts.values()) == 1
        await world.condition(name, "c0", parent="n0")
        await stream.until(lambda message: any(one.children_phase_counts.get(PAUSED) == 1 for one in message.enriched_actions))
        await world.abort(name)
        await stream.until(lambda message: any(one.children_phase_counts.get(ABORTED) == 2 for one in message.enriched_actions))


async def test_filtered_actions(runs: RunServiceClient, world: World) -> None:
    """By phase: what matches, and the way to it; what matches no more is told once as such."""
    name = facts.new_name("filtered")
    await world.create(name)
    await world.enqueue(name, "n0")
    await world.condition(name, "c0", parent="n0")
    paused = facts.where("PHASE", str(PAUSED), function=list_pb2.Filter.VALUE_IN)
    request = run_service_pb2.WatchActionsRequest(run_id=run_id(name), filter=[paused])
    async with Stream(runs.watch_actions(request)) as stream:
        told = (await stream.next()).enriched_actions
        assert [(one.action.id.name, one.meets_filter) for one in told] == [("a0", True), ("n0", True), ("c0", True)]
        signal = run_service_pb2.SignalEventRequest(action_id=action_id(name, "c0"), payload={"bool_value": True})
        await runs.signal_event(signal)
        gone = (await stream.next()).enriched_actions
        assert {(one.action.id.name, one.meets_filter) for one in gone} == {("a0", False), ("n0", False), ("c0", False)}
    await world.abort(name)


async def test_groups(runs: RunServiceClient, world: World) -> None:
    """One group a task, the sentinel, then the groups that change; with an end date the stream ends."""
    task = facts.new_name("grouped.")
    spec = facts.nap_spec(task)
    for _ in range(2):
        name = facts.new_name("g")
        await world.create(name, timedelta(0), spec=spec)
        await world.ended(name)
    request = run_service_pb2.WatchGroupsRequest(
        project_id=project_id(), request=list_pb2.ListRequest(filters=[facts.where("task_name", task)])
    )
    request.start_date.seconds = 1
    async with Stream(runs.watch_groups(request)) as stream:
        (group,) = (await stream.next()).task_groups
        assert (group.task_name, group.total_runs, group.average_failure_rate) == (task, 2, 0.0)
        assert [(count.phase, count.count) for count in group.phase_counts] == [(SUCCEEDED, 2)]
        assert (await stream.next()).sentinel
        last = facts.new_name("g")
        await world.create(last, spec=spec)
        changed = await stream.until(lambda message: message.task_groups[0].total_runs == 3)
        assert changed.task_groups[0].recent_statuses[0].run_name == last
    await world.abort(last)
    request.end_date.seconds = 4_000_000_000
    groups = await all_of(runs.watch_groups(request))
    assert [message.sentinel for message in groups] == [False, True]


async def test_cluster_events(runs: RunServiceClient, world: World, address: str) -> None:
    """Those of an attempt, then new ones as they are reported, until the attempt has ended."""
    name = facts.new_name("events")
    await world.create(name)
    events = EventsProxyServiceClient(address)
    first, second = examples.event(name, "a0"), examples.event(name, "a0")
    second.cluster_events[0].message = "started the container"
    await events.record(_record(first))
    async with Stream(runs.watch_cluster_events(run_service_pb2.WatchClusterEventsRequest(id=action_id(name), attempt=1))) as s:
        assert "pulled the image" in _messages(await s.next())
        await events.record(_record(second))
        await s.until(lambda message: "started the container" in _messages(message))
        await world.abort(name)
        with pytest.raises(StopAsyncIteration):
            while True:
                await s.next()
    with pytest.raises(ConnectError, match="attempt") as caught:
        await all_of(runs.watch_cluster_events(run_service_pb2.WatchClusterEventsRequest(id=action_id(name), attempt=9)))
    assert caught.value.code is Code.NOT_FOUND


def _record(*events: run_definition_pb2.ActionEvent) -> events_proxy_service_pb2.RecordRequest:
    return events_proxy_service_pb2.RecordRequest(events=events)


def _messages(message: run_service_pb2.WatchClusterEventsResponse) -> list[str]:
    return [event.message for event in message.cluster_events]


async def test_data_and_where_it_is(runs: RunServiceClient, world: World) -> None:
    """Inputs at once, outputs when it has succeeded: those of a task without any are empty, a signal's value is ``o0``."""
    name = facts.new_name("data")
    await world.create(name, timedelta(seconds=5))
    await world.condition(name, "c0")
    data = await runs.get_action_data(run_service_pb2.GetActionDataRequest(action_id=action_id(name)))
    assert data.inputs == facts.nap_inputs(timedelta(seconds=5))
    assert data.outputs == common_pb2.Outputs()
    uris = await runs.get_action_data_u_r_is(run_service_pb2.GetActionDataURIsRequest(action_id=action_id(name)))
    assert common_pb2.Inputs.FromString(Path(uris.inputs_uri).read_bytes()) == data.inputs
    assert uris.outputs_uri == ""
    await runs.signal_event(run_service_pb2.SignalEventRequest(action_id=action_id(name, "c0"), payload={"bool_value": True}))
    signalled = await runs.get_action_data(run_service_pb2.GetActionDataRequest(action_id=action_id(name, "c0")))
    (output,) = signalled.outputs.literals
    assert (output.name, output.value) == ("o0", facts.truth(True))
    await world.abort(name)
    with pytest.raises(ConnectError) as caught:
        await runs.get_action_data(run_service_pb2.GetActionDataRequest(action_id=action_id("nobody")))
    assert caught.value.code is Code.NOT_FOUND


async def test_logs(runs: RunServiceClient, world: World, address: str) -> None:
    """A task without a process has no log: both streams end with the reason of its end; the log's context is NotFound."""
    name = facts.new_name("logs")
    await world.create(name)
    context = run_service_pb2.GetActionLogContextRequest(action_id=action_id(name), attempt=1)
    with pytest.raises(ConnectError, match="has no logs of attempt 1") as caught:
        await runs.get_action_log_context(context)
    assert caught.value.code is Code.NOT_FOUND
    logs = RunLogsServiceClient(address)
    request = run_logs_service_pb2.TailLogsRequest(action_id=action_id(name), attempt=1)
    following = asyncio.create_task(all_of(logs.tail_logs(request)))
    await world.abort(name)
    lines = [line for message in await following for batch in message.logs for line in batch.lines]
    assert [line.message for line in lines] == ["aborted: the test is over\n"]
    older = await all_of(logs.tail_logs(request))
    newer = await world.raw.call(
        facts.DATA + "TailLogs", dataproxy_pb2.TailLogsRequest(action_id=action_id(name)), streams=True, patience=2
    )
    assert [message.SerializeToString() for message in older] == list(newer.bodies)
    request.attempt = 2
    with pytest.raises(ConnectError, match="has no attempt 2"):
        await all_of(logs.tail_logs(request))


async def test_a_reported_log_context(runs: RunServiceClient, world: World, address: str) -> None:
    """What an event tells of an attempt's logs is what is told of them."""
    name = facts.new_name("context")
    await world.create(name)
    event = examples.event(name, "a0")
    event.log_context.primary_pod_name = "pod-1"
    await EventsProxyServiceClient(address).record(_record(event))
    context = run_service_pb2.GetActionLogContextRequest(action_id=action_id(name))
    told = await runs.get_action_log_context(context)
    assert (told.log_context.primary_pod_name, told.cluster, told.HasField("end_time")) == ("pod-1", "far away", False)
    await world.abort(name)
    assert (await runs.get_action_log_context(context)).HasField("end_time")
