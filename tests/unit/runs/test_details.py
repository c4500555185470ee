"""Details of runs and actions: what they say at each stage, what watches tell of, and how an action is ended by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from flyteidl2.common import identifier_pb2
from flyteidl2.core import execution_pb2, literals_pb2, types_pb2
from flyteidl2.task import common_pb2
from flyteidl2.workflow import run_definition_pb2, run_service_pb2

from flyte_unified.core.errors import FailedPrecondition, FlyteUnifiedError, InvalidArgument, NotFound
from flyte_unified.core.ids import ActionKey, RunKey
from flyte_unified.core.phases import Phase
from flyte_unified.ledger.api import Action, Failure, Move, Retry, signal
from tests.unit.runs.world import A0, ORG, R1, World, context, inputs, integer, task_spec

_ERROR = execution_pb2.ExecutionError(code="ValueError", message="no", kind=execution_pb2.ExecutionError.USER)


async def details(world: World, key: ActionKey = A0) -> run_definition_pb2.ActionDetails:
    request = run_service_pb2.GetActionDetailsRequest(action_id=key.idl(ORG))
    return (await world.handlers.get_action_details(request, context())).details


async def watched(world: World, key: ActionKey) -> AsyncGenerator[run_definition_pb2.ActionDetails]:
    request = run_service_pb2.WatchActionDetailsRequest(action_id=key.idl(ORG))
    async with aclosing(world.handlers.watch_action_details(request, context())) as updates:
        async for update in updates:
            yield update.details


async def test_a_task_from_queue_to_success(world: World) -> None:
    """Phase, times, attempts with their transitions, and the whole spec; the org comes back as it was said."""
    await world.run(spec=task_spec("env.main"), subject="ann")
    await world.move(A0, Phase.RUNNING)
    log = run_definition_pb2.ActionAttempt(log_context=execution_pb2.LogContext(primary_pod_name="pod"))
    await world.ledger.move(A0, Move(to=Phase.RUNNING, details=log))
    assert not (await details(world)).status.HasField("end_time")
    await world.ledger.move(A0, Move(to=Phase.SUCCEEDED, output_uri="/out/1"))
    found = await details(world)
    assert found.id == A0.idl(ORG)
    assert found.task == task_spec("env.main")
    assert found.WhichOneof("result") is None
    metadata = found.metadata
    assert (metadata.action_type, metadata.funtion_name, metadata.environment_name) == (1, "env.main", "env")
    assert (metadata.task.id.org, metadata.task.id.name, metadata.task.short_name) == (ORG, "env.main", "main")
    assert metadata.task.task_type == "python"
    assert metadata.executed_by.user.id.subject == "ann"
    status = found.status
    assert (status.phase, status.attempts) == (int(Phase.SUCCEEDED), 1)
    assert status.duration_ms == (status.end_time.ToMicroseconds() - status.start_time.ToMicroseconds()) // 1000 > 0
    (attempt,) = found.attempts
    assert [transition.phase for transition in attempt.phase_transitions] == [1, 4, 5]
    assert (attempt.logs_available, attempt.outputs.output_uri) == (True, "/out/1")
    run = await world.handlers.get_run_details(run_service_pb2.GetRunDetailsRequest(run_id=R1.idl(ORG)), context())
    assert run.details.action == found
    assert run.details.run_spec == (await world.ledger.run(R1))[1]


@pytest.mark.parametrize("phase", [Phase.FAILED, Phase.TIMED_OUT])
async def test_a_failure_tells_its_error(world: World, phase: Phase) -> None:
    """With the code; an earlier attempt keeps its own."""
    await world.run()
    other = execution_pb2.ExecutionError(code="OOM", message="too big", kind=execution_pb2.ExecutionError.SYSTEM)
    await world.ledger.move(A0, Retry(attempt=1, error=other, failure=Failure.USER))
    await world.ledger.move(A0, Move(to=phase, error=_ERROR))
    found = await details(world)
    assert (found.error_info.code, found.error_info.message, found.error_info.kind) == ("ValueError", "no", 1)
    assert [(attempt.attempt, attempt.phase, attempt.error_info.code) for attempt in found.attempts] == [
        (1, int(Phase.FAILED), "OOM"),
        (2, int(phase), "ValueError"),
    ]


async def test_an_abort_says_why_and_who(world: World) -> None:
    """The default reason is Flyte's; what ran below is taken along; one that has ended stays as it is."""
    await world.run()
    done, live = await world.child("done"), await world.child("live")
    await world.move(done, Phase.SUCCEEDED)
    await world.handlers.abort_run(run_service_pb2.AbortRunRequest(run_id=R1.idl()), context("bob"))
    for key in (A0, live):
        info = (await details(world, key)).abort_info
        assert (info.reason, info.aborted_by.user.id.subject) == ("User requested abort", "bob")
    assert (await details(world, done)).status.phase == int(Phase.SUCCEEDED)
    before = await world.ledger.action(A0)
    await world.handlers.abort_run(run_service_pb2.AbortRunRequest(run_id=R1.idl(), reason="again"), context())
    assert await world.ledger.action(A0) == before


async def test_one_action_may_be_aborted(world: World) -> None:
    """With the caller's reason, its parent goes on; what does not exist is NotFound."""
    await world.run()
    key = await world.child("c1")
    await world.handlers.abort_action(run_service_pb2.AbortActionRequest(action_id=key.idl(), reason="why"), context())
    found = await details(world, key)
    assert (found.abort_info.reason, found.abort_info.HasField("aborted_by")) == ("why", False)
    assert (await details(world)).status.phase == int(Phase.QUEUED)
    missing = run_service_pb2.AbortActionRequest(action_id=R1.action("none").idl())
    with pytest.raises(NotFound):
        await world.handlers.abort_action(missing, context())
    with pytest.raises(NotFound):
        await world.handlers.abort_run(run_service_pb2.AbortRunRequest(run_id=RunKey("p", "development", "x").idl()), context())


async def test_traces_and_conditions_have_details_too(world: World) -> None:
    """Their own spec and metadata, and a watch of one that has ended says so and ends."""
    await world.run()
    trace, condition = await world.trace("t1"), await world.condition("c1")
    found = [update async for update in watched(world, trace)]
    assert [update.status.phase for update in found] == [int(Phase.SUCCEEDED)]
    assert (found[0].WhichOneof("spec"), found[0].metadata.trace.name) == ("trace", "fetch")
    paused = await details(world, condition)
    assert (paused.status.phase, paused.metadata.parent) == (int(Phase.PAUSED), "a0")
    assert (paused.metadata.condition.name, paused.metadata.condition.type.simple) == ("approve", types_pb2.BOOLEAN)
    assert (paused.condition.prompt, paused.HasField("task")) == ("Go on?", False)


async def test_a_watch_begins_at_once_and_ends_with_the_action(world: World) -> None:
    """A state that the watcher was too slow to see is passed over; the last one never is."""
    await world.run()
    async with aclosing(watched(world, A0)) as updates:
        seen = [(await anext(updates)).status.phase]
        for phase in (Phase.INITIALIZING, Phase.RUNNING, Phase.SUCCEEDED):
            await world.move(A0, phase)
        seen += [update.status.phase async for update in updates]
    assert seen == [int(Phase.QUEUED), int(Phase.SUCCEEDED)]


async def test_a_watch_of_a_run(world: World) -> None:
    """Run details, complete in every message, until its root has ended."""
    await world.run()
    request = run_service_pb2.WatchRunDetailsRequest(run_id=R1.idl(ORG))
    async with aclosing(world.handlers.watch_run_details(request, context())) as updates:
        first = (await anext(updates)).details
        await world.move(A0, Phase.RUNNING, Phase.FAILED)
        rest = [update.details async for update in updates]
    assert first.action.task == rest[-1].action.task == task_spec()
    assert rest[-1].run_spec.HasField("run_start_time")
    assert [update.action.status.phase for update in rest] == [int(Phase.FAILED)]


async def test_a_watch_ends_with_the_server(world: World) -> None:
    """Rather than hold up its stop."""
    await world.run()
    async with aclosing(watched(world, A0)) as updates:
        await anext(updates)
        world.ledger.changes.close()
        assert [update async for update in updates] == []


async def test_what_does_not_exist_is_not_found(world: World) -> None:
    """In details and in every watch; a name that can't be one is InvalidArgument."""
    key = R1.action("none")
    with pytest.raises(NotFound):
        await details(world, key)
    with pytest.raises(NotFound):
        await anext(watched(world, key))
    with pytest.raises(InvalidArgument, match=r"action_id\.run\.project is empty"):
        request = run_service_pb2.GetActionDetailsRequest(action_id=identifier_pb2.ActionIdentifier(name="a0"))
        await world.handlers.get_action_details(request, context())


def _payload(**value: object) -> run_service_pb2.EventPayload:
    return run_service_pb2.EventPayload(**value)


async def _signal(world: World, key: ActionKey, payload: run_service_pb2.EventPayload, subject: str = "") -> None:
    request = run_service_pb2.SignalEventRequest(action_id=key.idl(), parent_action_name="a0", payload=payload)
    await world.handlers.signal_event(request, context(subject))


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (types_pb2.BOOLEAN, _payload(bool_value=False)),
        (types_pb2.INTEGER, _payload(int_value=0)),
        (types_pb2.FLOAT, _payload(float_value=float("nan"))),
        (types_pb2.STRING, _payload(string_value="")),
    ],
)
async def test_a_signal_ends_a_condition(world: World, kind: int, payload: run_service_pb2.EventPayload) -> None:
    """With its value and who gave it; the same signal again changes nothing."""
    await world.run()
    key = await world.condition("c1", kind=kind)
    await _signal(world, key, payload, "ann")
    await _signal(world, key, payload, "bob")
    info = (await details(world, key)).signal_info
    assert info.signalled_by.user.id.subject == "ann"
    assert info.output.scalar.primitive.WhichOneof("value") is not None
    request = run_service_pb2.GetActionDataRequest(action_id=key.idl())
    data = await world.handlers.get_action_data(request, context())
    assert data.outputs.literals[0].value.SerializeToString() == info.output.SerializeToString()


async def test_signals_that_are_refused(world: World) -> None:
    """Another type, no value, another value later, after an abort, on a task, on nothing; the condition stays as it is."""
    await world.run()
    key, aborted = await world.condition("c1"), await world.condition("c2")
    await world.move(aborted, Phase.ABORTED)
    refused: list[tuple[ActionKey, run_service_pb2.EventPayload, type[FlyteUnifiedError], str]] = [
        (key, _payload(int_value=1), InvalidArgument, "waits for a bool"),
        (key, _payload(), InvalidArgument, "payload.value"),
        (aborted, _payload(bool_value=True), FailedPrecondition, "ABORTED"),
        (A0, _payload(bool_value=True), FailedPrecondition, "is no condition"),
        (R1.action("none"), _payload(bool_value=True), NotFound, "none"),
    ]
    for target, payload, error, told in refused:
        with pytest.raises(error, match=told):
            await _signal(world, target, payload)
    assert (await details(world, key)).status.phase == int(Phase.PAUSED)
    await _signal(world, key, _payload(bool_value=True))
    with pytest.raises(FailedPrecondition, match="another value"):
        await _signal(world, key, _payload(bool_value=False))


async def test_data_and_where_it_is(world: World) -> None:
    """Inputs at once, outputs after a success; a condition has neither address, and a lost file is an empty message."""
    await world.run(spec=task_spec(b=types_pb2.INTEGER))
    uris = run_service_pb2.GetActionDataURIsRequest(action_id=A0.idl())
    data = run_service_pb2.GetActionDataRequest(action_id=A0.idl())
    await world.data.put(
        f"{world.base}/out/1/outputs.pb", common_pb2.Outputs(literals=inputs(o0=5).literals).SerializeToString()
    )
    await world.ledger.move(A0, Move(to=Phase.RUNNING, output_uri=f"{world.base}/out/1"))
    found = await world.handlers.get_action_data_uris(uris, context())
    assert (found.inputs_uri.endswith("/inputs.pb"), found.outputs_uri) == (True, "")
    assert (await world.handlers.get_action_data(data, context())).outputs == common_pb2.Outputs()
    await world.move(A0, Phase.SUCCEEDED)
    assert (await world.handlers.get_action_data_uris(uris, context())).outputs_uri == f"{world.base}/out/1/outputs.pb"
    both = await world.handlers.get_action_data(data, context())
    assert (both.inputs, both.outputs.literals[0].value) == (inputs(b=7), integer(5))
    await world.data.delete(f"{world.base}/out/1/outputs.pb")
    assert (await world.handlers.get_action_data(data, context())).outputs == common_pb2.Outputs()


async def test_a_signalled_condition_has_no_addresses(world: World) -> None:
    """And is not NotFound for that."""
    await world.run()
    key = await world.condition("c1")
    await _signal(world, key, _payload(bool_value=True))
    uris = run_service_pb2.GetActionDataURIsRequest(action_id=key.idl())
    assert (await world.handlers.get_action_data_uris(uris, context())).outputs_uri == ""


async def test_log_contexts_by_attempt(world: World) -> None:
    """Also of an attempt that has failed, also after an abort; 0 is the latest; one without is NotFound."""
    await world.run()
    with pytest.raises(NotFound, match="no logs of attempt 1"):
        await _log_context(world, 0)
    for attempt in (1, 2):
        context_of = execution_pb2.LogContext(primary_pod_name=f"pod-{attempt}")
        record = run_definition_pb2.ActionAttempt(log_context=context_of, cluster="here")
        await world.ledger.move(A0, Move(to=Phase.RUNNING, attempt=attempt, details=record))
        if attempt == 1:
            await world.ledger.move(A0, Retry(attempt=1, error=_ERROR, failure=Failure.USER))
    await world.move(A0, Phase.ABORTED)
    assert [(await _log_context(world, n)).log_context.primary_pod_name for n in (0, 1, 2)] == ["pod-2", "pod-1", "pod-2"]
    assert (await _log_context(world, 1)).HasField("end_time")
    with pytest.raises(NotFound, match="no attempt 3"):
        await _log_context(world, 3)


async def _log_context(world: World, attempt: int) -> run_service_pb2.GetActionLogContextResponse:
    request = run_service_pb2.GetActionLogContextRequest(action_id=A0.idl(), attempt=attempt)
    return await world.handlers.get_action_log_context(request, context())


def _event(text: str) -> run_definition_pb2.ActionAttempt:
    return run_definition_pb2.ActionAttempt(cluster_events=[run_definition_pb2.ClusterEvent(message=text)])


async def test_cluster_events_are_told_once_each(world: World) -> None:
    """Those there were, then new ones, of the attempt that was asked for, until it has ended."""
    await world.run()
    await world.ledger.move(A0, Move(to=Phase.RUNNING, details=_event("pulled")))
    request = run_service_pb2.WatchClusterEventsRequest(id=A0.idl())
    async with aclosing(world.handlers.watch_cluster_events(request, context())) as updates:
        seen = [event.message for event in (await anext(updates)).cluster_events]
        await world.ledger.move(A0, Move(to=Phase.RUNNING, details=_event("started")))
        seen += [event.message for event in (await anext(updates)).cluster_events]
        failed = Retry(attempt=1, error=_ERROR, failure=Failure.USER, details=_event("killed"))
        await world.ledger.move(A0, failed, Move(to=Phase.RUNNING, details=_event("second")))
        async for update in updates:
            seen += [event.message for event in update.cluster_events]
    assert seen == ["pulled", "started", "killed"]


async def test_many_watchers_leave_nothing_behind(world: World) -> None:
    """A watcher that goes away is forgotten."""
    await world.run()

    async def look() -> Action | None:
        async with aclosing(watched(world, A0)) as updates:
            await anext(updates)
        return None

    await asyncio.gather(*(look() for _ in range(20)))
    assert not world.ledger.changes._subscriptions


async def test_what_counts_of_a_signal_is_its_value(world: World) -> None:
    """A literal that says more, as ActionsService.Signal may bring, is kept as its primitive and is the same signal."""
    await world.run()
    key = await world.condition("c1", kind=types_pb2.INTEGER)
    literal = integer(3)
    literal.hash = "x"
    await signal(world.ledger, key, literal, principal="ann")
    await _signal(world, key, _payload(int_value=3))
    assert literals_pb2.Literal.FromString((await world.ledger.action(key)).value or b"") == integer(3)
