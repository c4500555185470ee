"""InternalRunService: actions and statuses reported by another control plane."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from flyteidl2.workflow import internal_run_service_pb2 as internal_pb2
from flyteidl2.workflow import run_definition_pb2

from flyte_unified.core.context import Identity
from flyte_unified.core.errors import Code, PermissionDenied
from flyte_unified.core.ids import ActionKey, RunKey
from flyte_unified.core.phases import Phase
from flyte_unified.ledger.api import ActionType
from flyte_unified.runs.internal import InternalRunsHandlers
from tests.unit.runs.world import A0, R1, World, context, integer, task_spec


@pytest.fixture
def internal(world: World) -> InternalRunsHandlers:
    return InternalRunsHandlers(ledger=world.ledger, productions=world.productions, actions=world.actions)


def _record(world: World, name: str, parent: str = "a0") -> internal_pb2.RecordActionRequest:
    message = internal_pb2.RecordActionRequest(action_id=R1.action(name).idl("acme"), parent=parent, group="g")
    message.input_uri = f"{world.base}/in"
    message.task.spec.CopyFrom(task_spec("env.child"))
    return message


def _status(key: ActionKey, phase: int, **fields: Any) -> internal_pb2.UpdateActionStatusRequest:
    status = run_definition_pb2.ActionStatus(phase=phase, attempts=fields.pop("attempts", 0))
    return internal_pb2.UpdateActionStatusRequest(action_id=key.idl("acme"), status=status, **fields)


def _event(key: ActionKey, phase: Phase, **fields: Any) -> run_definition_pb2.ActionEvent:
    return run_definition_pb2.ActionEvent(id=key.idl(), attempt=1, phase=int(phase), **fields)


async def test_an_action_is_recorded_once(world: World, internal: InternalRunsHandlers) -> None:
    """Below its parent, with its group; said again it is the same; the answer names the action and how it went."""
    await world.run()
    for _ in range(2):
        response = await internal.record_action(_record(world, "c1"), context())
        assert (response.action_id, response.status.code) == (R1.action("c1").idl("acme"), 0)
    action = await world.ledger.action(R1.action("c1"))
    assert (action.parent, action.group_name, action.input_uri, action.version) == ("a0", "g", f"{world.base}/in", 1)
    assert action.output_base == (await world.ledger.run(R1))[0].output_base
    root = internal_pb2.RecordActionRequest(action_id=A0.idl())
    assert (await internal.record_action(root, context())).status.code == 0


async def test_traces_and_conditions_are_recorded(world: World, internal: InternalRunsHandlers) -> None:
    """A trace without a phase has succeeded; a condition waits."""
    await world.run()
    trace = internal_pb2.RecordActionRequest(action_id=R1.action("t1").idl(), parent="a0")
    trace.trace.name = "fetch"
    gate = internal_pb2.RecordActionRequest(action_id=R1.action("g1").idl(), parent="a0")
    gate.condition.name, gate.condition.type.simple = "approve", 4
    for message in (trace, gate):
        assert (await internal.record_action(message, context())).status.code == 0
    traced, paused = await world.ledger.action(R1.action("t1")), await world.ledger.action(R1.action("g1"))
    assert (traced.action_type, traced.phase) == (ActionType.TRACE, Phase.SUCCEEDED)
    assert (paused.action_type, paused.phase) == (ActionType.CONDITION, Phase.PAUSED)


async def test_what_is_wrong_is_told_in_band(world: World, internal: InternalRunsHandlers) -> None:
    """No run, no parent, no such root, nothing to do, another content."""
    assert (await internal.record_action(_record(world, "c1"), context())).status.code == Code.NOT_FOUND
    await world.run()
    nothing = internal_pb2.RecordActionRequest(action_id=R1.action("c1").idl(), parent="a0")
    root = internal_pb2.RecordActionRequest(action_id=R1.action("b0").idl())
    expected = [(_record(world, "c1", "none"), Code.NOT_FOUND), (root, Code.NOT_FOUND), (nothing, Code.INVALID_ARGUMENT)]
    for message, code in expected:
        assert (await internal.record_action(message, context())).status.code == code
    await internal.record_action(_record(world, "c1"), context())
    other = _record(world, "c1")
    other.input_uri = f"{world.base}/other"
    status = (await internal.record_action(other, context())).status
    assert (status.code, "input_uri" in status.message) == (Code.ALREADY_EXISTS, True)


async def test_a_status_moves_an_action(world: World, internal: InternalRunsHandlers) -> None:
    """As far as the table of moves allows; the end's time, reason and who are kept; the same again is fine."""
    await world.run()
    assert (await internal.update_action_status(_status(A0, Phase.RUNNING), context())).status.code == 0
    end = _status(A0, Phase.ABORTED, abort_reason="why")
    end.principal.user.id.subject = "ann"
    end.status.end_time.FromSeconds(1_800_000_000)
    for _ in range(2):
        assert (await internal.update_action_status(end, context())).status.code == 0
    action = await world.ledger.action(A0)
    assert (action.phase, action.reason, action.principal) == (Phase.ABORTED, "why", "ann")
    assert action.ended_at == 1_800_000_000_000_000
    status = (await internal.update_action_status(_status(A0, Phase.SUCCEEDED), context())).status
    assert (status.code, "ABORTED" in status.message) == (Code.FAILED_PRECONDITION, True)
    assert await world.ledger.action(A0) == action


async def test_a_conditions_value_comes_with_its_status(world: World, internal: InternalRunsHandlers) -> None:
    """And is what a later signal is compared with."""
    await world.run()
    key = await world.condition("g1", kind=1)
    done = _status(key, Phase.SUCCEEDED, output=integer(3))
    assert (await internal.update_action_status(done, context())).status.code == 0
    assert (await world.ledger.action(key)).value == integer(3).SerializeToString()


async def test_a_failed_status_takes_the_attempts_error(world: World, internal: InternalRunsHandlers) -> None:
    """That its events told; a status of a later attempt ends the ones before it."""
    spec = task_spec()
    spec.task_template.metadata.retries.retries = 5
    await world.run(spec=spec)
    info = run_definition_pb2.ErrorInfo(code="Oops", message="no", kind=run_definition_pb2.ErrorInfo.KIND_USER)
    events = internal_pb2.RecordActionEventsRequest(events=[_event(A0, Phase.FAILED, error_info=info)])
    assert (await internal.record_action_events(events, context())).status.code == 0
    assert (await internal.update_action_status(_status(A0, Phase.FAILED, attempts=1), context())).status.code == 0
    error = (await world.ledger.action(A0)).execution_error()
    assert error is not None
    assert (error.code, error.message) == ("Oops", "no")
    other = await world.run("r2")
    assert (await internal.update_action_status(_status(other, Phase.RUNNING, attempts=3), context())).status.code == 0
    details = await world.ledger.details(other)
    assert [(each.attempt, each.phase) for each in details.attempts] == [(1, 6), (2, 6), (3, 4)]


async def test_statuses_that_say_nothing(world: World, internal: InternalRunsHandlers) -> None:
    """No phase, an unknown one, an unknown action."""
    await world.run()
    expected = [(A0, 0, Code.INVALID_ARGUMENT), (A0, 99, Code.INVALID_ARGUMENT), (R1.action("x"), 4, Code.NOT_FOUND)]
    for key, phase, code in expected:
        assert (await internal.update_action_status(_status(key, phase), context())).status.code == code


async def _each(*messages: Any) -> AsyncIterator[Any]:
    for message in messages:
        yield message


async def test_a_stream_answers_each_message_in_its_order(world: World, internal: InternalRunsHandlers) -> None:
    """With its nonce; a bad one is told in its own answer and the stream goes on."""
    await world.run()
    c1, bad = R1.action("c1"), R1.action("none")
    records = [
        internal_pb2.RecordActionStreamRequest(request=_record(world, name, parent))
        for name, parent in (("c0", "x"), ("c1", "a0"))
    ]
    recorded = [answer async for answer in internal.record_action_stream(_each(*records), context())]
    assert [answer.response.status.code for answer in recorded] == [Code.NOT_FOUND, 0]

    requests = [(c1, Phase.RUNNING), (bad, Phase.RUNNING), (c1, Phase.SUCCEEDED)]
    updates = [
        internal_pb2.UpdateActionStatusStreamRequest(request=_status(key, phase), nonce=nonce)
        for nonce, (key, phase) in enumerate(requests, 7)
    ]
    updated = [answer async for answer in internal.update_action_status_stream(_each(*updates), context())]
    assert [(each.nonce, each.response.status.code) for each in updated] == [(7, 0), (8, Code.NOT_FOUND), (9, 0)]
    assert (await world.ledger.action(c1)).phase is Phase.SUCCEEDED

    events = [
        internal_pb2.RecordActionEventStreamRequest(
            request=internal_pb2.RecordActionEventRequest(event=_event(key, Phase.RUNNING)), nonce=nonce
        )
        for nonce, key in enumerate((bad, A0))
    ]
    told = [answer async for answer in internal.record_action_event_stream(_each(*events), context())]
    assert [(each.nonce, each.response.status.code) for each in told] == [(0, Code.NOT_FOUND), (1, 0)]
    assert (await world.ledger.action(A0)).phase is Phase.RUNNING


async def test_a_token_of_another_run_is_refused(world: World, internal: InternalRunsHandlers) -> None:
    """As a call, not in band."""
    await world.run()
    ctx = context()
    ctx.identity = Identity(run=RunKey("p", "development", "other"))
    with pytest.raises(PermissionDenied):
        await internal.record_action(_record(world, "c1"), ctx)
    with pytest.raises(PermissionDenied):
        await internal.update_action_status(_status(A0, Phase.RUNNING), ctx)
    with pytest.raises(PermissionDenied):
        await internal.record_action_events(internal_pb2.RecordActionEventsRequest(events=[_event(A0, Phase.RUNNING)]), ctx)
