"""Events and statuses from elsewhere: judged by the one table of moves, kept once however often they are said."""

from __future__ import annotations

from typing import Any

import pytest
from flyteidl2.common import identifier_pb2
from flyteidl2.core import catalog_pb2, execution_pb2
from flyteidl2.task import common_pb2
from flyteidl2.trigger import trigger_service_pb2
from flyteidl2.workflow import events_proxy_service_pb2, internal_run_service_pb2, run_definition_pb2

from flyte_unified.artifacts.model import ArtifactKey
from flyte_unified.core.context import Identity
from flyte_unified.core.errors import FlyteUnifiedError, InvalidArgument, NotFound, PermissionDenied
from flyte_unified.core.ids import ActionKey, RunKey
from flyte_unified.core.phases import Phase
from flyte_unified.events.handlers import EventsHandlers
from flyte_unified.runs.internal import InternalRunsHandlers
from flyte_unified.triggers.api import TriggerKey
from tests.unit.artifacts.world import BLOB, file
from tests.unit.runs.world import A0, R1, World, context, task_spec

ErrorInfo = run_definition_pb2.ErrorInfo


def event(phase: Phase, *, attempt: int = 1, at: int = 0, key: ActionKey = A0, **fields: Any) -> run_definition_pb2.ActionEvent:
    """``at`` in seconds after the test clock's beginning."""
    message = run_definition_pb2.ActionEvent(id=key.idl("acme"), attempt=attempt, phase=int(phase), **fields)
    message.updated_time.FromSeconds(1_700_000_100 + at)
    return message


def failed(attempt: int, text: str = "no", *, kind: int = ErrorInfo.KIND_USER) -> run_definition_pb2.ActionEvent:
    return event(Phase.FAILED, attempt=attempt, at=attempt * 10, error_info=ErrorInfo(message=text, kind=kind, code="Oops"))


async def record(world: World, *events: run_definition_pb2.ActionEvent) -> None:
    handlers = EventsHandlers(ledger=world.ledger, productions=world.productions, admit=world.actions.admit)
    await handlers.record(events_proxy_service_pb2.RecordRequest(events=events), context())


async def attempts(world: World) -> list[run_definition_pb2.ActionAttempt]:
    return list((await world.ledger.details(A0)).attempts)


async def producing(world: World) -> ArtifactKey:
    """A run whose root declares an artifact in outputs that another wrote, and a trigger that waits for it."""
    task = task_spec()
    task.task_template.metadata.produces_artifacts = True
    await world.run(spec=task)
    declared = common_pb2.ProducedArtifact(output="o0", name="events", type=BLOB)
    literal = common_pb2.NamedLiteral(name="o0", value=file())
    wrong = common_pb2.ProducedArtifact(output="o0", name="a b", type=BLOB)
    outputs = common_pb2.Outputs(literals=[literal], produced_artifacts=[declared, wrong])
    await world.data.put(f"{world.base}/elsewhere/outputs.pb", outputs.SerializeToString())
    automation = common_pb2.TriggerAutomationSpec(type=common_pb2.TYPE_ARTIFACT, artifact={"artifact_name": "events"})
    request = trigger_service_pb2.DeployTriggerRequest(
        name=identifier_pb2.TriggerName(project="p", domain="development", task_name="t", name="on"),
        spec={"active": True, "task_version": "1"},
        automation_spec=automation,
    )
    await world.triggers.deploy(request, task, by="ann")
    return ArtifactKey("p", "development", "events", "r1-a0-0")


@pytest.mark.parametrize("told", ["by an event", "by a status"])
async def test_what_a_task_produced_elsewhere_is_registered(world: World, told: str) -> None:
    """With the success, once, and a trigger fires for it once; what can't be registered is told as ever."""
    expected = await producing(world)
    assert await world.artifacts.known(expected) is None
    outputs = {"output_uri": f"{world.base}/elsewhere"}
    success = event(Phase.SUCCEEDED, outputs=outputs)
    if told == "by an event":
        await record(world, event(Phase.RUNNING), success)
    else:
        await record(world, event(Phase.RUNNING, outputs=outputs))
        handlers = InternalRunsHandlers(ledger=world.ledger, productions=world.productions, actions=world.actions)
        status = run_definition_pb2.ActionStatus(phase=int(Phase.SUCCEEDED), attempts=1)
        message = internal_run_service_pb2.UpdateActionStatusRequest(action_id=A0.idl(), status=status)
        assert (await handlers.update_action_status(message, context())).status.code == 0
    await record(world, success)
    found = await world.artifacts.known(expected)
    assert found is not None
    assert found.spec.source.task_action.action == A0.idl()
    trigger = TriggerKey("p", "development", "t", "on")
    offer = await world.triggers.offer(trigger)
    assert offer is not None
    await world.triggers.offered(trigger, offer)
    assert await world.triggers.offer(trigger) is None
    (attempt,) = await attempts(world)
    assert [each.reason for each in attempt.cluster_events] == ["NotRegistered"]


async def test_outputs_that_can_not_be_read_declare_nothing(world: World) -> None:
    """They may be in a store of the other's own: the success is noted all the same."""
    expected = await producing(world)
    await record(world, event(Phase.SUCCEEDED, outputs={"output_uri": "s3://theirs/outputs"}))
    assert (await world.ledger.action(A0)).phase is Phase.SUCCEEDED
    assert await world.artifacts.known(expected) is None


async def test_events_tell_an_attempts_story(world: World) -> None:
    """Phases with the times at which they were entered, logs, where it ran, outputs and what the cache did."""
    await world.run()
    await record(
        world,
        event(Phase.QUEUED),
        event(Phase.INITIALIZING, at=1, cluster="here"),
        event(Phase.RUNNING, at=2, log_context=execution_pb2.LogContext(primary_pod_name="pod")),
        event(
            Phase.SUCCEEDED,
            at=5,
            outputs={"output_uri": "/out/1", "report_uri": "/out/1/report.html"},
            cache_status=catalog_pb2.CACHE_POPULATED,
        ),
    )
    action = await world.ledger.action(A0)
    assert (action.phase, action.output_uri, action.cache_status) == (Phase.SUCCEEDED, "/out/1", catalog_pb2.CACHE_POPULATED)
    assert action.ended_at == 1_700_000_105_000_000
    (attempt,) = await attempts(world)
    told = [(transition.phase, transition.start_time.seconds - 1_700_000_100) for transition in attempt.phase_transitions]
    assert told[1:] == [(3, 1), (4, 2), (5, 5)]
    assert (attempt.cluster, attempt.log_context.primary_pod_name) == ("here", "pod")
    assert attempt.outputs.report_uri == "/out/1/report.html"


async def test_what_is_said_twice_is_kept_once(world: World) -> None:
    """The action does not even change; a link of the same name is the newer one."""
    await world.run()
    started = event(
        Phase.RUNNING,
        cluster_events=[run_definition_pb2.ClusterEvent(message="pulled")],
        log_info=[execution_pb2.TaskLog(name="Logs", uri="http://old")],
        log_context=execution_pb2.LogContext(pods=[execution_pb2.PodLogContext(pod_name="pod")]),
    )
    await record(world, started)
    before = await world.ledger.action(A0)
    await record(world, started)
    await record(world, started, started)
    assert await world.ledger.action(A0) == before
    more = event(Phase.RUNNING, at=9, cluster_events=[run_definition_pb2.ClusterEvent(message="started")])
    more.log_info.add(name="Logs", uri="http://new")
    more.log_context.CopyFrom(started.log_context)
    await record(world, more)
    (attempt,) = await attempts(world)
    assert [each.message for each in attempt.cluster_events] == ["pulled", "started"]
    assert [link.uri for link in attempt.log_info] == ["http://new"]
    assert len(attempt.log_context.pods) == 1


async def test_an_event_that_comes_late_brings_what_it_has(world: World) -> None:
    """But takes no phase back, and ends nothing that has ended."""
    await world.run()
    await record(world, event(Phase.RUNNING, at=2))
    await record(world, event(Phase.INITIALIZING, at=1, cluster="here"))
    assert (await world.ledger.action(A0)).phase is Phase.RUNNING
    assert (await attempts(world))[0].cluster == "here"
    await record(world, event(Phase.SUCCEEDED, at=3), event(Phase.FAILED, at=4), event(Phase.RUNNING, attempt=2, at=5))
    action = await world.ledger.action(A0)
    assert (action.phase, action.attempt) == (Phase.SUCCEEDED, 1)


async def test_a_failure_with_retries_left_is_not_the_end(world: World) -> None:
    """The next attempt's first event begins it; each attempt keeps its own error; the last failure ends the action."""
    spec = task_spec()
    spec.task_template.metadata.retries.retries = 2
    await world.run(spec=spec)
    await record(world, event(Phase.RUNNING), failed(1, "first"))
    assert (await world.ledger.action(A0)).phase is Phase.RUNNING
    await record(world, event(Phase.RUNNING, attempt=2, at=11), failed(2, "second", kind=ErrorInfo.KIND_SYSTEM))
    await record(world, event(Phase.QUEUED, attempt=3, at=21), failed(3, "third"), failed(3, "again"))
    action = await world.ledger.action(A0)
    assert (action.phase, action.attempt, action.system_failures, action.user_failures) == (Phase.FAILED, 3, 1, 1)
    assert [(each.attempt, each.phase, each.error_info.message) for each in await attempts(world)] == [
        (1, 6, "first"),
        (2, 6, "second"),
        (3, 6, "third"),
    ]
    error = action.execution_error()
    assert error is not None
    assert (error.code, error.message, error.kind) == ("Oops", "third", execution_pb2.ExecutionError.USER)


async def test_a_word_about_an_earlier_attempt_changes_nothing(world: World) -> None:
    """Whatever it says."""
    await world.run()
    await record(world, event(Phase.RUNNING, attempt=2))
    before = await world.ledger.action(A0)
    await record(world, event(Phase.SUCCEEDED, attempt=1, cluster="there"))
    assert (before.attempt, await world.ledger.action(A0)) == (2, before)


async def test_events_of_several_actions_come_together(world: World) -> None:
    """In any mixture; all of one action in its order."""
    await world.run()
    child = await world.child("c1")
    await record(
        world,
        event(Phase.RUNNING, key=child),
        event(Phase.RUNNING),
        event(Phase.SUCCEEDED, key=child, at=1),
    )
    assert (await world.ledger.action(child)).phase is Phase.SUCCEEDED
    assert (await world.ledger.action(A0)).phase is Phase.RUNNING


@pytest.mark.parametrize(
    ("wrong", "error", "told"),
    [
        (event(Phase.RUNNING, key=R1.action("none")), NotFound, "none"),
        (event(Phase.RUNNING, key=RunKey("p", "development", "none").action("a0")), NotFound, "none"),
        (event(Phase.RUNNING, attempt=0), InvalidArgument, r"events\[1\]\.attempt"),
        (event(Phase.RUNNING, attempt=5000), InvalidArgument, "far beyond"),
        (event(Phase.RUNNING, key=R1.action("")), InvalidArgument, r"events\[1\]\.id\.name"),
        (run_definition_pb2.ActionEvent(id=A0.idl(), attempt=1, phase=99), InvalidArgument, "no phase 99"),
    ],
)
async def test_a_batch_with_a_wrong_event_is_refused(
    world: World, wrong: run_definition_pb2.ActionEvent, error: type[FlyteUnifiedError], told: str
) -> None:
    """As a whole: nothing of it is applied, so it may be sent again."""
    await world.run()
    before = await world.ledger.action(A0)
    with pytest.raises(error, match=told):
        await record(world, event(Phase.RUNNING), wrong)
    assert await world.ledger.action(A0) == before


async def test_who_may_report(world: World) -> None:
    """A task with a run's token speaks of that run only; no events are no report."""
    await world.run()
    handlers = EventsHandlers(ledger=world.ledger, productions=world.productions, admit=world.actions.admit)
    ctx = context()
    ctx.identity = Identity(run=RunKey("p", "development", "other"))
    with pytest.raises(PermissionDenied):
        await handlers.record(events_proxy_service_pb2.RecordRequest(events=[event(Phase.RUNNING)]), ctx)
    with pytest.raises(InvalidArgument, match="events is empty"):
        await handlers.record(events_proxy_service_pb2.RecordRequest(), context())
