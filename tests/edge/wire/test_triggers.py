"""Triggers as no SDK asks for them: revisions, history, runs by a trigger's name, and the forms of consoles."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from flyteidl2.common import list_pb2
from flyteidl2.task import common_pb2, task_definition_pb2, task_service_pb2
from flyteidl2.trigger import trigger_definition_pb2, trigger_service_pb2
from flyteidl2.workflow import run_definition_pb2, run_service_pb2, translator_service_pb2

from tests.edge.wire import world as facts
from tests.edge.wire.world import DOMAIN, PROJECT, World, nap_inputs, nap_spec, project_id, trigger_name

SERVICE = "/flyteidl2.trigger.TriggerService/"


async def deploy(world: World, *, seconds: int = 0, **schedule: Any) -> str:
    """A trigger ``t`` of a task that has its name alone; the task's name."""
    task = facts.new_name("triggered.")
    identifier = task_definition_pb2.TaskIdentifier(project=PROJECT, domain=DOMAIN, name=task, version="1")
    request = task_service_pb2.DeployTaskRequest(task_id=identifier, spec=nap_spec(task))
    await world.send("/flyteidl2.task.TaskService/DeployTask", request, task_service_pb2.DeployTaskResponse)
    await again(world, task, seconds=seconds, **schedule)
    return task


async def again(world: World, task: str, *, revision: int = 0, seconds: int = 0, **schedule: Any) -> None:
    spec = trigger_definition_pb2.TriggerSpec(active=True, task_version="1", inputs=nap_inputs(timedelta(seconds=seconds)))
    automation = common_pb2.TriggerAutomationSpec(type=common_pb2.TYPE_NONE)
    if schedule:
        automation.type = common_pb2.TYPE_SCHEDULE
        automation.schedule.CopyFrom(common_pb2.Schedule(**schedule))
    request = trigger_service_pb2.DeployTriggerRequest(
        name=trigger_name("t", task), revision=revision, spec=spec, automation_spec=automation
    )
    await world.send(SERVICE + "DeployTrigger", request, trigger_service_pb2.DeployTriggerResponse)


async def test_revisions(world: World) -> None:
    """GetTriggerRevisionHistory and GetTriggerRevisionDetails; DeployTrigger of an old revision is Aborted."""
    task = await deploy(world)
    await again(world, task, revision=1, seconds=5)
    name = trigger_name("t", task)
    update = trigger_service_pb2.UpdateTriggersRequest(names=[name], active=False)
    await world.send(SERVICE + "UpdateTriggers", update, trigger_service_pb2.UpdateTriggersResponse)
    seen, token = [], ""
    while True:
        request = trigger_service_pb2.GetTriggerRevisionHistoryRequest(
            name=name, request=list_pb2.ListRequest(limit=2, token=token)
        )
        page = await world.send(
            SERVICE + "GetTriggerRevisionHistory", request, trigger_service_pb2.GetTriggerRevisionHistoryResponse
        )
        seen += [(each.id.revision, each.action) for each in page.triggers]
        if not (token := page.token):
            break
    assert seen == [
        (3, trigger_definition_pb2.TRIGGER_REVISION_ACTION_DEACTIVATE),
        (2, trigger_definition_pb2.TRIGGER_REVISION_ACTION_DEPLOY),
        (1, trigger_definition_pb2.TRIGGER_REVISION_ACTION_DEPLOY),
    ]
    for revision, seconds, active in ((1, 0, True), (2, 5, True), (3, 5, False)):
        wanted = trigger_service_pb2.GetTriggerRevisionDetailsRequest(id={"name": name, "revision": revision})
        details = (
            await world.send(
                SERVICE + "GetTriggerRevisionDetails", wanted, trigger_service_pb2.GetTriggerRevisionDetailsResponse
            )
        ).trigger
        assert (details.spec.inputs, details.spec.active) == (nap_inputs(timedelta(seconds=seconds)), active)
        assert details.id.name.org == "acme"
    outdated = trigger_service_pb2.DeployTriggerRequest(name=name, revision=1, spec={"task_version": "1"})
    answer = await world.raw.call(SERVICE + "DeployTrigger", outdated)
    assert (answer.code, "revision" in answer.message) == ("aborted", True)


async def test_a_run_by_a_triggers_name(world: World) -> None:
    """CreateRun with nothing but the name: the trigger's inputs; with inputs: those. ListRuns finds both by the trigger."""
    task = await deploy(world)
    names = []
    for given in (None, nap_inputs(timedelta(milliseconds=1))):
        run = facts.new_name("t")
        request = run_service_pb2.CreateRunRequest(run_id=facts.run_id(run), trigger_name=trigger_name("t", task), inputs=given)
        created = await world.send(facts.RUNS + "CreateRun", request, run_service_pb2.CreateRunResponse)
        assert created.run.action.metadata.trigger_id.name.task_name == task
        again = await world.send(facts.RUNS + "CreateRun", request, run_service_pb2.CreateRunResponse)
        assert again.run.action.id == created.run.action.id
        details = await world.ended(run)
        assert (details.metadata.trigger_name, details.metadata.trigger_id.revision) == ("t", 1)
        names.append(run)
    listed = await world.list_runs(run_service_pb2.ListRunsRequest(trigger_name=trigger_name("t", task)))
    assert [each.action.id.run.name for each in listed.runs] == names[::-1]
    other = await world.list_runs(run_service_pb2.ListRunsRequest(trigger_name=trigger_name("other", task)))
    assert not other.runs
    unknown = run_service_pb2.CreateRunRequest(project_id=project_id(), trigger_name=trigger_name("none", task))
    answer = await world.raw.call(facts.RUNS + "CreateRun", unknown)
    assert (answer.code, "'none'" in answer.message) == ("not_found", True)


async def test_a_schedule_fires(world: World) -> None:
    """A rate whose start is past goes on in its own step: here the next one is less than two seconds away."""
    now = datetime.now(UTC)
    start = {"seconds": int(now.timestamp()) - 58}
    task = await deploy(world, rate={"value": 1, "unit": common_pb2.FIXED_RATE_UNIT_MINUTE, "start_time": start})
    watch = run_service_pb2.WatchRunsRequest(
        task_id=task_definition_pb2.TaskIdentifier(project=PROJECT, domain=DOMAIN, name=task, version="1")
    )
    answer = await world.raw.call(facts.RUNS + "WatchRuns", watch, streams=True, patience=5)
    runs = [run for body in answer.bodies for run in run_service_pb2.WatchRunsResponse.FromString(body).runs]
    assert {run.action.metadata.source for run in runs} == {run_definition_pb2.RUN_SOURCE_SCHEDULE_TRIGGER}
    (run,) = {run.action.id.run.name for run in runs}
    details = await world.send(
        facts.RUNS + "GetRunDetails",
        run_service_pb2.GetRunDetailsRequest(run_id=facts.run_id(run)),
        run_service_pb2.GetRunDetailsResponse,
    )
    assert details.details.run_spec.run_start_time.seconds == start["seconds"] + 60
    remove = trigger_service_pb2.DeleteTriggersRequest(names=[trigger_name("t", task)])
    await world.send(SERVICE + "DeleteTriggers", remove, trigger_service_pb2.DeleteTriggersResponse)


async def test_the_form_of_a_triggers_inputs(world: World) -> None:
    """TranslatorService reads them by the trigger's identifier."""
    task = await deploy(world, seconds=7)
    procedure = "/flyteidl2.workflow.TranslatorService/LiteralsToLaunchFormJson"
    variables = nap_spec(task).task_template.interface.inputs
    by_trigger = translator_service_pb2.LiteralsToLaunchFormJsonRequest(
        trigger_id={"name": trigger_name("t", task), "revision": 1}, variables=variables
    )
    by_value = translator_service_pb2.LiteralsToLaunchFormJsonRequest(
        literals=nap_inputs(timedelta(seconds=7)).literals, variables=variables
    )
    forms = [
        (await world.send(procedure, each, translator_service_pb2.LiteralsToLaunchFormJsonResponse)).json
        for each in (by_trigger, by_value)
    ]
    assert forms[0] == forms[1]
    by_trigger.trigger_id.revision = 9
    assert (await world.raw.call(procedure, by_trigger)).code == "not_found"
