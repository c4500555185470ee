"""A tracked run by what the SDK never sends: it creates and reports, and leaves looking and aborting to others."""

from __future__ import annotations

from flyteidl2.common import phase_pb2
from flyteidl2.workflow import run_definition_pb2, run_service_pb2
from flyteidl2.workflow import tracked_run_service_pb2 as idl

from tests.edge.wire.world import RUNS, TRACKED, World, action_id, nap_spec, new_name, project_id, run_id

RUNNING, SUCCEEDED = phase_pb2.ACTION_PHASE_RUNNING, phase_pb2.ACTION_PHASE_SUCCEEDED
ABORTED = phase_pb2.ACTION_PHASE_ABORTED


def update(run: str, name: str, phase: int, version: int) -> idl.TrackedActionUpdate:
    event = run_definition_pb2.ActionEvent(id=action_id(run, name), attempt=1, version=version)
    event.phase = phase  # type: ignore[assignment]  # a number
    task = run_definition_pb2.TaskAction(spec=nap_spec("child")) if name != "a0" else None
    return idl.TrackedActionUpdate(event=event, parent_name="a0" if name != "a0" else "", task=task)


async def report(world: World, run: str, *updates: idl.TrackedActionUpdate) -> list[int]:
    message = idl.ReportTrackedActionsRequest(run_id=run_id(run), updates=updates)
    answer = await world.send(TRACKED + "ReportActions", message, idl.ReportTrackedActionsResponse)
    return [status.code for status in answer.statuses]


async def test_a_tracked_run_is_looked_at_and_aborted(world: World) -> None:
    """By calls and by streams, those of RunService at another service; one stream ends with the run."""
    run = new_name("local-t")
    created = idl.CreateTrackedRunRequest(run_id=run_id(run), task_spec=nap_spec())
    await world.send(TRACKED + "CreateRun", created, run_service_pb2.CreateRunResponse)
    assert await report(world, run, update(run, "a0", RUNNING, 0), update(run, "n0", RUNNING, 0)) == [0, 0]

    asked = run_service_pb2.ListRunsRequest(project_id=project_id())
    for service, found in ((TRACKED, True), (RUNS, False)):
        listed = await world.send(service + "ListRuns", asked, run_service_pb2.ListRunsResponse)
        assert (run in [each.action.id.run.name for each in listed.runs]) is found
        first = await world.raw.call(
            service + "WatchRuns", run_service_pb2.WatchRunsRequest(project_id=project_id()), streams=True
        )
        seen = run_service_pb2.WatchRunsResponse.FromString(first.bodies[0]).runs
        assert (first.code, run in [each.action.id.run.name for each in seen]) == ("open", found)
    actions = run_service_pb2.WatchActionsRequest(run_id=run_id(run))
    whole = await world.raw.call(TRACKED + "WatchActions", actions, streams=True)
    names = [each.action.id.name for each in run_service_pb2.WatchActionsResponse.FromString(whole.bodies[0]).enriched_actions]
    assert (whole.code, names) == ("open", ["a0", "n0"])

    abort = run_service_pb2.AbortRunRequest(run_id=run_id(run), reason="enough")
    for _ in range(2):
        await world.send(TRACKED + "AbortRun", abort, run_service_pb2.AbortRunResponse)
    assert await report(world, run, update(run, "n0", SUCCEEDED, 1)) == [10]
    for rpc, message in (
        ("WatchRunDetails", run_service_pb2.WatchRunDetailsRequest(run_id=run_id(run))),
        ("WatchActionDetails", run_service_pb2.WatchActionDetailsRequest(action_id=action_id(run, "n0"))),
    ):
        ended = await world.raw.call(TRACKED + rpc, message, streams=True, patience=4)
        assert (ended.code, len(ended.bodies)) == ("ok", 1)
    details = await world.send(
        TRACKED + "GetActionDetails",
        run_service_pb2.GetActionDetailsRequest(action_id=action_id(run, "n0")),
        run_service_pb2.GetActionDetailsResponse,
    )
    assert (details.details.status.phase, details.details.abort_info.reason) == (ABORTED, "enough")
