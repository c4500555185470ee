"""Triggers through their handlers: revisions, lists, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from flyteidl2.common import identifier_pb2, list_pb2
from flyteidl2.core import types_pb2
from flyteidl2.project import project_service_pb2
from flyteidl2.task import common_pb2, run_pb2, task_definition_pb2, task_service_pb2
from flyteidl2.trigger import trigger_definition_pb2
from flyteidl2.trigger import trigger_service_pb2 as idl

from flyte_unified.core.clock import micros
from flyte_unified.core.errors import Aborted, AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from flyte_unified.db.api import Notice
from flyte_unified.triggers.api import TriggerKey
from flyte_unified.triggers.catchup import ANNOTATION
from tests.unit.manual_clock import ManualClock
from tests.unit.triggers.world import (
    CTX,
    DOMAIN,
    MINUTE,
    PROJECT,
    TASK,
    InlineDatabase,
    World,
    cron,
    inputs,
    named,
    rate,
    task_spec,
)

IN_PROJECT = identifier_pb2.ProjectIdentifier(name=PROJECT, domain=DOMAIN)


def attached(
    name: str = "t",
    automation: common_pb2.TriggerAutomationSpec | None = None,
    *,
    active: bool = True,
    description: str = "",
) -> task_definition_pb2.TaskTrigger:
    """A trigger as it is deployed with its task."""
    spec = task_definition_pb2.TaskTriggerSpec(active=active, description=description)
    return task_definition_pb2.TaskTrigger(name=name, spec=spec, automation_spec=automation or cron("@daily"))


async def test_a_trigger_comes_back_as_it_was_deployed(world: World, clock: ManualClock) -> None:
    """Spec, automation, who and when; the org is the caller's own."""
    await world.deploy_task()
    run_spec = run_pb2.RunSpec(queue="slow")
    deployed = await world.deploy(cron("0 6 * * *", "Asia/Tokyo"), run_spec=run_spec, description="at six")
    assert deployed == await world.get()
    assert deployed.id == identifier_pb2.TriggerIdentifier(name=named(), revision=1)
    assert (deployed.spec.task_version, deployed.spec.active, deployed.spec.run_spec) == ("v1", True, run_spec)
    assert deployed.description == deployed.spec.description == "at six"
    assert deployed.automation_spec == cron("0 6 * * *", "Asia/Tokyo")
    assert micros(deployed.status.deployed_at) == micros(deployed.status.updated_at) == clock.now()
    assert not deployed.status.HasField("triggered_at")
    assert not deployed.status.HasField("deleted_at")
    assert deployed.metadata.deployed_by.user.id.subject == "grace"


async def test_every_change_is_a_revision(world: World, clock: ManualClock) -> None:
    """Deployed, paused, activated, deployed anew, deleted and again deployed: none is lost, each can be looked at."""
    await world.deploy_task()
    first = await world.deploy(cron("@daily"))
    clock.pass_by(1)
    await world.switch(active=False)
    await world.switch(active=False)
    assert not (await world.get()).spec.active
    await world.switch(active=True)
    await world.deploy(cron("@hourly"))
    await world.delete("t")
    await world.delete("t")
    with pytest.raises(NotFound, match="'t'"):
        await world.get()
    again = await world.deploy(cron("@weekly"))
    assert (again.id.revision, again.status.deployed_at) == (6, first.status.deployed_at)
    assert await world.history() == [
        (6, "DEPLOY"),
        (5, "DELETE"),
        (4, "DEPLOY"),
        (3, "ACTIVATE"),
        (2, "DEACTIVATE"),
        (1, "DEPLOY"),
    ]

    async def revision(number: int) -> trigger_definition_pb2.TriggerDetails:
        request = idl.GetTriggerRevisionDetailsRequest(id=identifier_pb2.TriggerIdentifier(name=named(), revision=number))
        return (await world.handlers.get_trigger_revision_details(request, CTX)).trigger

    assert (await revision(1)).automation_spec == cron("@daily")
    assert [(await revision(number)).spec.active for number in range(1, 7)] == [True, False, True, True, False, True]
    assert (await revision(5)).status.HasField("deleted_at")
    with pytest.raises(NotFound, match="no revision 7"):
        await revision(7)
    with pytest.raises(NotFound, match="no revision"):
        await revision(2**64 - 1)


async def test_an_outdated_revision_is_refused(world: World) -> None:
    """Who deploys over what another deployed meanwhile is told; who repeats a call is answered."""
    await world.deploy_task()
    await world.deploy(cron("@daily"), revision=1)
    assert (await world.deploy(cron("@hourly"), revision=1)).id.revision == 2
    assert (await world.deploy(cron("@hourly"), revision=1)).id.revision == 2
    with pytest.raises(Aborted, match="has revision 2 by now, not 1"):
        await world.deploy(cron("@weekly"), revision=1)
    assert (await world.deploy(cron("@hourly"))).id.revision == 3
    await world.delete("t")
    assert (await world.deploy(cron("@daily"), revision=1)).id.revision == 5


async def test_history_page_by_page(world: World) -> None:
    """Any size of page gives each revision once; an order and filters of one's own are kept."""
    await world.deploy_task()
    for _ in range(5):
        await world.deploy(cron("@daily"))
    seen, token = [], ""
    while True:
        request = idl.GetTriggerRevisionHistoryRequest(name=named(), request=list_pb2.ListRequest(limit=2, token=token))
        page = await world.handlers.get_trigger_revision_history(request, CTX)
        seen += [each.id.revision for each in page.triggers]
        if not (token := page.token):
            break
    assert seen == [5, 4, 3, 2, 1]
    wanted = list_pb2.ListRequest(
        sort_by=list_pb2.Sort(key="revision", direction=list_pb2.Sort.ASCENDING),
        filters=[list_pb2.Filter(field="revision", values=["3"], function=list_pb2.Filter.LESS_THAN)],
    )
    request = idl.GetTriggerRevisionHistoryRequest(name=named(), request=wanted)
    assert [each.id.revision for each in (await world.handlers.get_trigger_revision_history(request, CTX)).triggers] == [1, 2]
    with pytest.raises(NotFound, match="'none'"):
        await world.history("none")


async def test_lists(world: World, clock: ManualClock) -> None:
    """Active ones first, the latest change first; by project, task and version; filtered and sorted."""
    await world.deploy_task()
    await world.deploy_task(spec=task_spec("env.other", version="v2"))
    for name, active in (("a", True), ("b", False), ("c", True)):
        await world.deploy(cron("@daily"), name, active=active)
        clock.pass_by(1)
    message = idl.DeployTriggerRequest(
        name=named("d", task="env.other"), spec=trigger_definition_pb2.TriggerSpec(active=True, task_version="v2")
    )
    await world.handlers.deploy_trigger(message, CTX)
    await world.deploy(cron("@daily"), "gone")
    await world.delete("gone")

    assert await world.listed(project_id=IN_PROJECT) == ["d", "c", "a", "b"]
    assert await world.listed(org="acme") == await world.listed() == ["d", "c", "a", "b"]
    of_task = task_definition_pb2.TaskName(project=PROJECT, domain=DOMAIN, name=TASK)
    assert await world.listed(task_name=of_task) == ["c", "a", "b"]
    for version, names in (("v1", ["c", "a", "b"]), ("v2", [])):
        of_version = task_definition_pb2.TaskIdentifier(project=PROJECT, domain=DOMAIN, name=TASK, version=version)
        assert await world.listed(task_id=of_version) == names
    assert await world.listed(project_id=identifier_pb2.ProjectIdentifier(name="q", domain=DOMAIN)) == []

    def where(field: str, value: str) -> list_pb2.Filter:
        return list_pb2.Filter(field=field, values=[value])

    assert await world.listed(where("active", "false")) == ["b"]
    assert await world.listed(where("active", "1"), where("task_name", TASK)) == ["c", "a"]
    assert await world.listed(where("automation_type", "TYPE_NONE")) == ["d"]
    for field in ("nonsense", "active"):
        with pytest.raises(InvalidArgument, match=field):
            await world.listed(where(field, "perhaps"))
    request = idl.ListTriggersRequest(
        project_id=IN_PROJECT,
        request=list_pb2.ListRequest(limit=3, sort_by=list_pb2.Sort(key="name", direction=list_pb2.Sort.ASCENDING)),
    )
    page = await world.handlers.list_triggers(request, CTX)
    request.request.token = page.token
    rest = await world.handlers.list_triggers(request, CTX)
    assert [each.id.name.name for each in (*page.triggers, *rest.triggers)] == ["a", "b", "c", "d"]
    assert rest.token == ""


async def test_a_trigger_by_its_name_alone(world: World) -> None:
    """Where one task has such a trigger, the task may be left out."""
    await world.deploy_task()
    await world.deploy_task(spec=task_spec("env.other"))
    await world.deploy(cron("@daily"))
    request = idl.GetTriggerDetailsRequest(name=named(task=""))
    assert (await world.handlers.get_trigger_details(request, CTX)).trigger.id.name.task_name == TASK
    message = idl.DeployTriggerRequest(name=named(task="env.other"), spec=trigger_definition_pb2.TriggerSpec(task_version="v1"))
    await world.handlers.deploy_trigger(message, CTX)
    with pytest.raises(InvalidArgument, match=r"name\.task_name"):
        await world.handlers.get_trigger_details(request, CTX)
    request.name.name = "none"
    with pytest.raises(NotFound, match="'none'"):
        await world.handlers.get_trigger_details(request, CTX)


async def test_unknown_names_change_nothing(world: World) -> None:
    """Of several, none is paused or deleted when one is unknown."""
    await world.deploy_task()
    await world.deploy(cron("@daily"))
    for request in (
        idl.UpdateTriggersRequest(names=[named(), named("none")], active=False),
        idl.DeleteTriggersRequest(names=[named(), named("none")]),
    ):
        call = world.handlers.update_triggers if hasattr(request, "active") else world.handlers.delete_triggers
        with pytest.raises(NotFound, match="'none'"):
            await call(request, CTX)
    assert await world.history() == [(1, "DEPLOY")]
    await world.delete("t")
    with pytest.raises(NotFound, match="'t'"):
        await world.switch(active=True)


@pytest.mark.parametrize(
    ("automation", "spec", "told"),
    [
        (cron("* * *"), {}, "expression"),
        (cron("@daily", kickoff="when"), {}, "no input 'when'"),
        (cron("@daily"), {"inputs": inputs(x=1, y=2)}, "no input 'y'"),
        (cron("@daily"), {"inputs": inputs()}, "'x' missing"),
        (cron("@daily"), {"offloaded_input_data": {}}, r"offloaded_input_data\.uri"),
        (cron("@daily"), {"inputs": inputs(x=1), "description": "x" * 3000}, "description"),
        (cron("@daily"), {"run_spec": run_pb2.RunSpec(annotations={"values": {ANNOTATION: "no"}})}, "catch-up"),
        (common_pb2.TriggerAutomationSpec(schedule=cron("@daily").schedule), {}, "type is not set"),
        (common_pb2.TriggerAutomationSpec(type=9), {}, "no type 9"),  # type: ignore[arg-type]  # an enum that is open
        (common_pb2.TriggerAutomationSpec(type=common_pb2.TYPE_ARTIFACT), {}, "artifact_name"),
        (
            common_pb2.TriggerAutomationSpec(
                type=common_pb2.TYPE_ARTIFACT, artifact={"artifact_name": "model", "input_arg": "m"}
            ),
            {},
            r"artifact\.input_arg",
        ),
    ],
)
async def test_what_can_never_work_is_refused(
    world: World, automation: common_pb2.TriggerAutomationSpec, spec: dict[str, object], told: str
) -> None:
    """When it is deployed, and not when it fires and nobody looks."""
    await world.deploy_task(spec=task_spec(x=types_pb2.INTEGER, b=types_pb2.INTEGER))
    with pytest.raises(InvalidArgument, match=told):
        await world.deploy(automation, **spec)
    assert await world.listed() == []


async def test_what_may_be_completed_by_hand_is_kept(world: World) -> None:
    """A trigger that no clock fires may lack inputs, as may a paused one; an artifact's is kept, and fires nothing."""
    await world.deploy_task(spec=task_spec(x=types_pb2.INTEGER))
    await world.deploy(None, "by hand")
    await world.deploy(cron("@daily"), "paused", active=False)
    artifact = common_pb2.TriggerAutomationSpec(
        type=common_pb2.TYPE_ARTIFACT,
        artifact={"artifact_name": "model", "input_arg": "x", "partitions": {"region": "us"}},
    )
    assert (await world.deploy(artifact, "artifact")).automation_spec == artifact
    assert await world.triggers.scheduled() == []


async def test_where_nothing_may_be_deployed(world: World) -> None:
    """An unknown version of the task, an unknown or an archived project."""
    await world.deploy_task()
    with pytest.raises(NotFound, match=r"spec\.task_version.*v9"):
        await world.deploy(cron("@daily"), version="v9")
    with pytest.raises(InvalidArgument, match=r"spec\.task_version is empty"):
        await world.deploy(cron("@daily"), version="")
    message = idl.DeployTriggerRequest(name=named(), spec=trigger_definition_pb2.TriggerSpec(task_version="v1"))
    message.name.project = "none"
    with pytest.raises(NotFound, match="none"):
        await world.handlers.deploy_trigger(message, CTX)


async def test_a_task_brings_its_triggers(world: World) -> None:
    """They are there with the version, or the version isn't; the task's lists tell of them."""
    await world.deploy_task(attached("daily", description="each day"))
    found = await world.get("daily")
    assert (found.spec.task_version, found.description, found.automation_spec) == ("v1", "each day", cron("@daily"))

    async def summary() -> task_definition_pb2.TaskTriggersSummary:
        request = task_service_pb2.ListTasksRequest(project_id=IN_PROJECT)
        return (await world.tasks.list_tasks(request, CTX)).tasks[0].metadata.triggers_summary

    assert ((await summary()).details.name, (await summary()).details.active) == ("daily", True)
    await world.deploy(cron("@hourly"), "hourly", active=False)
    stats = (await summary()).stats
    assert (stats.total, stats.active) == (2, 1)
    broken = [attached("one"), attached("one")]
    with pytest.raises(InvalidArgument, match=r"triggers\[1\]\.name"):
        await world.deploy_task(*broken, spec=task_spec(version="v2"))
    with pytest.raises(NotFound):
        await world.deploy(cron("@daily"), version="v2")


async def test_a_new_version_replaces_what_it_brings(world: World) -> None:
    """What it no longer has is deleted, also what was added by hand; where it has none at all, the old ones stay."""
    await world.deploy_task(attached("a"), attached("b"))
    await world.deploy(cron("@daily"), "by hand")
    await world.deploy_task(attached("b"), attached("c"), spec=task_spec(version="v2"))
    assert sorted(await world.listed()) == ["b", "c"]
    assert (await world.get("b")).spec.task_version == "v2"
    assert await world.history("a") == [(2, "DELETE"), (1, "DEPLOY")]
    await world.deploy_task(spec=task_spec(version="v3"))
    assert sorted(await world.listed()) == ["b", "c"]
    assert (await world.get("b")).spec.task_version == "v2"


async def test_a_version_comes_again(world: World) -> None:
    """As it was, it changes nothing and is there already; with other triggers it brings them, so one can go back to it."""
    await world.deploy_task(attached("a"))
    with pytest.raises(AlreadyExists, match=r"version v1 already$"):
        await world.deploy_task(attached("a"))
    assert await world.history("a") == [(1, "DEPLOY")]
    await world.deploy_task(attached("a", cron("@hourly")), spec=task_spec(version="v2"))
    await world.deploy_task(attached("a"))
    assert ((await world.get("a")).spec.task_version, (await world.get("a")).automation_spec) == ("v1", cron("@daily"))
    other = task_spec()
    other.short_name = "another"
    with pytest.raises(AlreadyExists, match="another spec"):
        await world.deploy_task(attached("a", cron("@weekly")), spec=other)
    assert len(await world.history("a")) == 3


async def test_whoever_plans_hears_of_every_change(world: World, inline: InlineDatabase) -> None:
    """Here by a call, on other replicas by a notice, which says of what; a call that changes nothing says nothing."""
    told: list[TriggerKey | None] = []
    leave = world.triggers.subscribe(told.append)
    key = TriggerKey(PROJECT, DOMAIN, TASK, "t")
    await world.deploy_task(attached())
    await world.switch(active=False)
    await world.switch(active=False)
    await world.delete("t")
    assert told == [key, key, key]
    for notice in (*inline.notices, Notice("project", "p"), None):
        world.triggers.noticed(notice)
    assert told[3:] == [key, key, key, None]
    leave()
    world.triggers.noticed(None)
    assert len(told) == 7


async def test_what_is_due_and_what_a_change_makes_of_it(world: World, clock: ManualClock) -> None:
    """A deployment of the same schedule keeps what is due; another schedule, or a pause, begins anew from now."""
    await world.deploy_task()
    await world.deploy(rate(10))
    key = TriggerKey(PROJECT, DOMAIN, TASK, "t")

    async def due() -> int | None:
        found = await world.triggers.latest(key)
        assert found is not None
        return found.next_fire

    first = await due()
    assert first == clock.now() + 10 * MINUTE
    clock.pass_by(15 * 60)
    await world.deploy(rate(10), description="more to say")
    assert await due() == first
    await world.deploy(rate(20))
    assert await due() == clock.now() + 20 * MINUTE
    await world.switch(active=False)
    assert await due() is None
    clock.pass_by(3600)
    await world.switch(active=True)
    assert await due() == clock.now() + 20 * MINUTE
    stale = await world.triggers.latest(key)
    assert stale is not None
    await world.triggers.advance(replace(stale, next_fire=first), None)
    assert await due() == stale.next_fire
    await world.delete("t")
    assert await due() is None
    assert await world.triggers.scheduled() == []


async def test_an_archived_project_takes_no_trigger(world: World) -> None:
    """As it takes no run."""
    await world.deploy_task()
    state = project_service_pb2.PROJECT_STATE_ARCHIVED
    await world.projects.update(project_service_pb2.Project(id=PROJECT, state=state))
    with pytest.raises(FailedPrecondition, match="archived"):
        await world.deploy(cron("@daily"))
