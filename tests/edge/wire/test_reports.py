"""What other parts of Flyte tell the server and the SDK does not: reports of actions, in single calls and in streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import grpc.aio
import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from connectrpc.protocol import ProtocolType
from flyteidl2.actions import actions_service_pb2 as actions_pb2
from flyteidl2.actions.actions_service_connect import ActionsServiceClient
from flyteidl2.common import phase_pb2
from flyteidl2.workflow import internal_run_service_pb2 as internal_pb2
from flyteidl2.workflow import queue_service_pb2, run_definition_pb2, run_service_pb2, state_service_pb2
from flyteidl2.workflow.internal_run_service_connect import InternalRunServiceClient
from flyteidl2.workflow.internal_run_service_pb2_grpc import InternalRunServiceStub
from flyteidl2.workflow.queue_service_connect import QueueServiceClient
from flyteidl2.workflow.state_service_connect import StateServiceClient
from google.protobuf.message import Message
from pyqwest import Client, HTTPTransport, HTTPVersion

from flyte_unified.testing import Backend
from tests.edge.wire import examples
from tests.edge.wire import world as facts
from tests.edge.wire.raw import SECONDS
from tests.edge.wire.world import World, action_id, run_id

RUNNING, SUCCEEDED = phase_pb2.ACTION_PHASE_RUNNING, phase_pb2.ACTION_PHASE_SUCCEEDED
FAILED, ABORTED, PAUSED = phase_pb2.ACTION_PHASE_FAILED, phase_pb2.ACTION_PHASE_ABORTED, phase_pb2.ACTION_PHASE_PAUSED

T = TypeVar("T")
Streams = Callable[[str, Sequence[Message]], AsyncIterator[Any]]


async def in_turns(requests: Sequence[Message], call: Callable[[Any], Any]) -> AsyncIterator[Any]:
    """Each request is sent when the one before it was answered."""
    turn = asyncio.Semaphore(1)

    async def sent() -> AsyncIterator[Message]:
        for request in requests:
            await turn.acquire()
            yield request

    async with asyncio.timeout(SECONDS):
        async for answer in call(sent()):
            yield answer
            turn.release()


@pytest.fixture(params=["grpc", "connect over HTTP/2", "grpc by the Connect client"])
async def streams(request: pytest.FixtureRequest, server: Backend) -> AsyncIterator[Streams]:
    """InternalRunService's streams by the name of the RPC, in turns."""
    if request.param == "grpc":
        async with grpc.aio.insecure_channel(server.endpoint) as channel:
            stub: Any = InternalRunServiceStub(channel)
            yield lambda rpc, requests: in_turns(requests, getattr(stub, rpc))
        return
    protocol = ProtocolType.CONNECT if request.param.startswith("connect") else ProtocolType.GRPC
    http = Client(HTTPTransport(http_version=HTTPVersion.HTTP2))
    client = InternalRunServiceClient(server.address, http_client=http, protocol=protocol)
    names = {
        "RecordActionStream": client.record_action_stream,
        "UpdateActionStatusStream": client.update_action_status_stream,
        "RecordActionEventStream": client.record_action_event_stream,
    }
    yield lambda rpc, requests: in_turns(requests, names[rpc])


async def test_actions_in_a_stream(streams: Streams, world: World) -> None:
    """Each is answered before the next is sent; what is wrong with one does not end the stream."""
    run = facts.new_name("streamed")
    await world.create(run)
    traces = [facts.trace_request(run, f"t{number}").action for number in range(3)]
    traces[1].action_id.name = "no name"
    requests = [
        internal_pb2.RecordActionStreamRequest(
            request=internal_pb2.RecordActionRequest(action_id=trace.action_id, parent="a0", trace=trace.trace)
        )
        for trace in traces
    ]
    answers = [answer.response async for answer in streams("RecordActionStream", requests)]
    assert [answer.status.code for answer in answers] == [0, 3, 0]
    assert [answer.action_id.name for answer in answers] == ["t0", "no name", "t2"]
    assert "action_id.name: 'no name'" in answers[1].status.message
    assert (await world.details(run, "t2")).metadata.trace.name == "spelled"
    await world.abort(run)


async def test_statuses_in_a_stream(streams: Streams, world: World) -> None:
    """Each with its nonce; the action goes through the phases, and past its end it stays."""
    run = facts.new_name("statuses")
    await world.create(run)
    await world.condition(run, "c0")

    def told(phase: int, nonce: int) -> internal_pb2.UpdateActionStatusStreamRequest:
        status = run_definition_pb2.ActionStatus(phase=phase, attempts=1)
        update = internal_pb2.UpdateActionStatusRequest(action_id=action_id(run, "c0"), status=status)
        return internal_pb2.UpdateActionStatusStreamRequest(request=update, nonce=nonce)

    requests = [told(RUNNING, 7), told(99, 8), told(FAILED, 9), told(FAILED, 10), told(SUCCEEDED, 11)]
    answers = [answer async for answer in streams("UpdateActionStatusStream", requests)]
    assert [answer.nonce for answer in answers] == [7, 8, 9, 10, 11]
    assert [answer.response.status.code for answer in answers] == [0, 3, 0, 0, 9]
    assert "status.phase: there is no phase 99" in answers[1].response.status.message
    assert (await world.details(run, "c0")).status.phase == FAILED
    await world.abort(run)


async def test_events_in_a_stream(streams: Streams, world: World) -> None:
    """Each with its nonce; an event that is told twice is one event."""
    run = facts.new_name("eventful")
    await world.create(run)
    event = examples.event(run, "a0")
    lost = examples.event(run, "nobody")
    requests = [
        internal_pb2.RecordActionEventStreamRequest(request={"event": one}, nonce=nonce)
        for nonce, one in enumerate([event, event, lost], start=1)
    ]
    answers = [answer async for answer in streams("RecordActionEventStream", requests)]
    assert [(answer.nonce, answer.response.status.code) for answer in answers] == [(1, 0), (2, 0), (3, 5)]
    (attempt,) = (await world.details(run)).attempts
    assert [seen.message for seen in attempt.cluster_events if seen.reason == "Pulled"] == ["pulled the image"]
    assert attempt.cluster == "far away"
    await world.abort(run)


async def test_single_reports(world: World, address: str) -> None:
    """The same in calls of their own: a task is recorded and run, events are told, an end is an end."""
    run = facts.new_name("single")
    await world.create(run)
    client = InternalRunServiceClient(address)
    task = (await world.enqueue_request(run, "n0", timedelta(0))).action
    record = internal_pb2.RecordActionRequest(
        action_id=task.action_id, parent="a0", input_uri=task.input_uri, group="pair", task=task.task
    )
    assert (await client.record_action(record)).status.code == 0
    details = await world.ended(run, "n0")
    assert (details.status.phase, details.metadata.group, details.metadata.parent) == (SUCCEEDED, "pair", "a0")
    events = internal_pb2.RecordActionEventsRequest(events=[examples.event(run, "a0")])
    assert (await client.record_action_events(events)).status.code == 0
    status = run_definition_pb2.ActionStatus(phase=ABORTED, attempts=1)
    update = internal_pb2.UpdateActionStatusRequest(action_id=action_id(run), status=status, abort_reason="elsewhere")
    assert (await client.update_action_status(update)).status.code == 0
    assert (await world.ended(run)).abort_info.reason == "elsewhere"


async def test_an_action_from_its_parent_s_side(world: World, address: str) -> None:
    """ActionsService: what is there, the sentinel, an update, a signal, and the end of all with an abort."""
    run = facts.new_name("parent")
    await world.create(run)
    await world.condition(run, "c0")
    client = ActionsServiceClient(address)
    watched = client.watch_for_updates(actions_pb2.WatchForUpdatesRequest(parent_action_id=action_id(run)))
    try:
        async with asyncio.timeout(SECONDS):
            first = [(await anext(watched)).action_update.action_id.name for _ in range(2)]
            assert sorted(first) == ["a0", "c0"]
            assert (await anext(watched)).control_message.sentinel
            running = run_definition_pb2.ActionStatus(phase=RUNNING)
            await client.update(actions_pb2.UpdateRequest(action_id=action_id(run, "c0"), attempt=1, status=running))
            assert await _phase_of(watched, "c0", RUNNING)
            with pytest.raises(ConnectError, match=r"^value: .* waits for a bool") as caught:
                await client.signal(_signal(run, "c0", "text"))
            assert caught.value.code is Code.INVALID_ARGUMENT
            await client.signal(_signal(run, "c0", True))
            done = await _phase_of(watched, "c0", SUCCEEDED)
            assert done.value == facts.truth(True)
            await client.signal(_signal(run, "c0", True))
            with pytest.raises(ConnectError, match="another value") as caught:
                await client.signal(_signal(run, "c0", False))
            assert caught.value.code is Code.FAILED_PRECONDITION
            await client.abort(actions_pb2.AbortRequest(action_id=action_id(run), reason="enough"))
            assert await _phase_of(watched, "a0", ABORTED)
    finally:
        await watched.aclose()
    assert (await world.details(run)).abort_info.reason == "enough"


async def _phase_of(watched: AsyncIterator[Any], name: str, phase: int) -> Any:
    async for message in watched:
        update = message.action_update
        if (update.action_id.name, update.phase) == (name, phase):
            return update
    raise AssertionError("the stream ended")


def _signal(run: str, name: str, value: bool | str) -> actions_pb2.SignalRequest:
    request = actions_pb2.SignalRequest(action_id=action_id(run, name), parent_action_name="a0")
    if isinstance(value, str):
        request.value.scalar.primitive.string_value = value
    else:
        request.value.CopyFrom(facts.truth(value))
    return request


async def test_a_client_s_own_note(world: World, address: str) -> None:
    """StateService keeps a text with an action and gives it back; it is nobody's phase."""
    run = facts.new_name("noted")
    await world.create(run)
    client = StateServiceClient(address)
    get = state_service_pb2.GetRequest(action_id=action_id(run))
    assert (await client.get(get)).state == ""
    put = await client.put(state_service_pb2.PutRequest(action_id=action_id(run), state='{"step": 1}'))
    assert (put.action_id, put.status.code) == (action_id(run), 0)
    assert (await client.get(get)).state == '{"step": 1}'
    assert (await world.details(run)).status.phase != ABORTED
    with pytest.raises(ConnectError) as caught:
        await client.put(state_service_pb2.PutRequest(action_id=action_id(run, "nobody"), state="{}"))
    assert caught.value.code is Code.NOT_FOUND
    with pytest.raises(ConnectError) as caught:
        await client.get(state_service_pb2.GetRequest(action_id=action_id(run, "nobody")))
    assert caught.value.code is Code.NOT_FOUND
    await world.abort(run)


async def test_the_queue(world: World, address: str) -> None:
    """QueueService: an action is enqueued once, aborted alone, and with its run."""
    run = facts.new_name("queued")
    await world.create(run)
    client = QueueServiceClient(address)
    action = (await world.enqueue_request(run, "n0", timedelta(hours=1))).action
    request = queue_service_pb2.EnqueueActionRequest(**{field.name: value for field, value in action.ListFields()})
    for _ in range(2):
        await client.enqueue_action(request)
    request.group = "other"
    with pytest.raises(ConnectError, match="group") as caught:
        await client.enqueue_action(request)
    assert caught.value.code is Code.ALREADY_EXISTS
    await client.abort_queued_action(queue_service_pb2.AbortQueuedActionRequest(action_id=action_id(run, "n0"), reason="one"))
    assert (await world.ended(run, "n0")).abort_info.reason == "one"
    assert (await world.details(run)).status.phase != ABORTED
    await client.abort_queued_run(queue_service_pb2.AbortQueuedRunRequest(run_id=run_id(run), reason="all"))
    assert (await world.ended(run)).abort_info.reason == "all"
    request.action_id.name, request.group = "n1", ""
    with pytest.raises(ConnectError, match="has ended") as caught:
        await client.enqueue_action(request)
    assert caught.value.code is Code.ABORTED
    listed = await world.send(
        facts.RUNS + "ListActions", run_service_pb2.ListActionsRequest(run_id=run_id(run)), run_service_pb2.ListActionsResponse
    )
    assert [one.id.name for one in listed.actions] == ["a0", "n0"]
