"""Runs that a trigger starts: what they are made of, and what they say of it."""

from __future__ import annotations

import pytest
from flyteidl2.common import identifier_pb2, list_pb2
from flyteidl2.common import run_pb2 as common_run_pb2
from flyteidl2.core import literals_pb2, types_pb2
from flyteidl2.settings import settings_definition_pb2 as settings_pb2
from flyteidl2.task import common_pb2, run_pb2
from flyteidl2.workflow import run_definition_pb2, run_service_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from flyte_unified.core.clock import micros, timestamp
from flyte_unified.core.errors import FailedPrecondition, InvalidArgument, NotFound
from flyte_unified.core.ids import ROOT_ACTION, RunKey
from flyte_unified.dataproxy.api import KICKOFF_TIME
from flyte_unified.triggers.inputs import stored_inputs
from tests.unit.manual_clock import ManualClock
from tests.unit.triggers.world import (
    CTX,
    DOMAIN,
    PROJECT,
    TASK,
    World,
    at,
    cron,
    inputs,
    named,
    task_spec,
)

INTEGER, DATETIME, STRING = types_pb2.INTEGER, types_pb2.DATETIME, types_pb2.STRING
NOON = at("2024-05-01T12:00:00Z")
IN_PROJECT = identifier_pb2.ProjectIdentifier(name=PROJECT, domain=DOMAIN)


def values(of: common_pb2.Inputs) -> dict[str, int | str]:
    """Integers by name; a time as text."""
    found: dict[str, int | str] = {}
    for literal in of.literals:
        assert literal.name not in found
        primitive = literal.value.scalar.primitive
        timed = primitive.HasField("datetime")
        found[literal.name] = primitive.datetime.ToJsonString() if timed else primitive.integer
    return found


def context(of: common_pb2.Inputs) -> dict[str, str]:
    return {entry.key: entry.value for entry in of.context}


async def offload(world: World, message: common_pb2.Inputs, name: str = "in") -> common_run_pb2.OffloadedInputData:
    uri = f"{world.base}/{name}"
    await world.data.put(f"{uri}/inputs.pb", message.SerializeToString())
    return common_run_pb2.OffloadedInputData(uri=uri, inputs_hash="abc")


async def test_inputs_and_run_spec_of_the_trigger(world: World) -> None:
    """Inline ones, completed by the task's defaults; the request's own come first, value by value."""
    await world.deploy_task(spec=task_spec(a=INTEGER, b=INTEGER, c=INTEGER))
    run_spec = run_pb2.RunSpec(queue="slow", labels={"values": {"team": "red"}})
    await world.deploy(None, inputs=inputs(a=1, c=3, context={"who": "me", "where": "here"}), run_spec=run_spec)

    kept, spec, given = await world.stored(await world.run())
    assert values(given) == {"a": 1, "b": 7, "c": 3}
    assert context(given) == {"who": "me", "where": "here"}
    assert (spec.queue, kept.labels) == ("slow", {"team": "red"})

    kept, spec, given = await world.stored(
        await world.run(inputs=inputs(c=5, context={"who": "you"}), run_spec=run_pb2.RunSpec(queue="fast"))
    )
    assert values(given) == {"a": 1, "b": 7, "c": 5}
    assert context(given) == {"who": "you", "where": "here"}
    assert (spec.queue, kept.labels) == ("fast", {})
    with pytest.raises(InvalidArgument, match="'d'"):
        await world.run(inputs=inputs(d=1))


async def test_settings_of_its_project(world: World) -> None:
    """A triggered run has them as any other, below what the trigger itself says."""
    value = {"state": settings_pb2.SETTING_STATE_VALUE}
    settings = settings_pb2.Settings(
        run={"default_queue": {**value, "string_value": "settled"}},
        environment_variables={**value, "map_value": {"entries": {"A": "settings", "B": "settings"}}},
    )
    await world.settings.create(settings_pb2.SettingsKey(project=PROJECT, domain=DOMAIN), settings)
    await world.deploy_task()
    await world.deploy(None, run_spec=run_pb2.RunSpec(envs={"values": [{"key": "A", "value": "trigger"}]}))
    _, spec, _ = await world.stored(await world.run())
    assert spec.queue == "settled"
    assert {each.key: each.value for each in spec.envs.values} == {"A": "trigger", "B": "settings"}


async def test_offloaded_inputs(world: World) -> None:
    """Are passed on as they lie there; values of the request are laid over them; others that lie somewhere replace them."""
    await world.deploy_task(spec=task_spec(a=INTEGER, c=INTEGER))
    stored = await offload(world, inputs(a=1, c=3))
    await world.deploy(None, offloaded_input_data=stored)
    run = await world.run()
    root = await world.ledger.action(RunKey(PROJECT, DOMAIN, run.action.id.run.name).action(ROOT_ACTION))
    assert root.input_uri == f"{stored.uri}/inputs.pb"
    _, _, given = await world.stored(await world.run(inputs=inputs(a=2)))
    assert values(given) == {"a": 2, "c": 3}
    other = await offload(world, inputs(a=9, c=9), "other")
    _, _, given = await world.stored(await world.run(offloaded_input_data=other))
    assert values(given) == {"a": 9, "c": 9}


async def test_the_time_of_the_fire_is_an_input(world: World, clock: ManualClock) -> None:
    """Written as a value and marked for the SDK's runtime; by hand it is the time of the run, or what the request says."""
    await world.deploy_task(spec=task_spec(when=DATETIME, a=INTEGER))
    await world.deploy(cron("@daily", kickoff="when"), inputs=inputs(a=1))
    _, spec, given = await world.stored(await world.run(run_start_time=timestamp(NOON)))
    assert micros(spec.run_start_time) == NOON
    assert values(given) == {"when": "2024-05-01T12:00:00Z", "a": 1}
    assert context(given) == {KICKOFF_TIME: "when"}

    _, spec, given = await world.stored(await world.run())
    assert micros(spec.run_start_time) == clock.now()
    assert values(given)["when"] == timestamp(clock.now()).ToJsonString()

    explicit = common_pb2.Inputs()
    own = explicit.literals.add(name="when").value.scalar.primitive
    own.datetime.CopyFrom(Timestamp(seconds=5))
    _, _, given = await world.stored(await world.run(inputs=explicit, run_start_time=timestamp(NOON)))
    assert values(given) == {"when": "1970-01-01T00:00:05Z", "a": 1}
    assert context(given) == {}


async def test_the_time_goes_before_a_default(world: World) -> None:
    """A default of the task, and one that the SDK copied into the trigger's inputs."""
    spec = task_spec(when=DATETIME)
    default = literals_pb2.Literal()
    default.scalar.primitive.datetime.CopyFrom(Timestamp(seconds=1))
    spec.default_inputs.add(name="when").parameter.default.CopyFrom(default)
    await world.deploy_task(spec=spec)
    copied = common_pb2.Inputs(literals=[common_pb2.NamedLiteral(name="when", value=default)])
    for given in (common_pb2.Inputs(), copied):
        await world.deploy(cron("@daily", kickoff="when"), inputs=given)
        _, _, kept = await world.stored(await world.run(run_start_time=timestamp(NOON)))
        assert values(kept) == {"when": "2024-05-01T12:00:00Z"}


async def test_a_time_that_is_no_datetime_is_the_runtimes(world: World) -> None:
    """What type it becomes there, only the task knows."""
    await world.deploy_task(spec=task_spec(when=STRING))
    await world.deploy(cron("@daily", kickoff="when"))
    _, _, given = await world.stored(await world.run())
    assert (values(given), context(given)) == ({}, {KICKOFF_TIME: "when"})


@pytest.mark.parametrize("at_hand", [True, False])
@pytest.mark.parametrize("ignored", [True, False])
async def test_the_time_counts_for_the_cache(world: World, *, at_hand: bool, ignored: bool) -> None:
    """Of two fires each has its own result, unless the task says that the time is no matter."""
    spec = task_spec(when=DATETIME, a=INTEGER)
    spec.task_template.metadata.discoverable = True
    if ignored:
        spec.task_template.metadata.cache_ignore_input_vars.append("when")
    await world.deploy_task(spec=spec)
    given = inputs(a=1, context={KICKOFF_TIME: "when"})
    if at_hand:
        await world.deploy(cron("@daily", kickoff="when"), inputs=given)
    else:
        await world.deploy(cron("@daily", kickoff="when"), offloaded_input_data=await offload(world, given))

    async def key(start: int) -> str:
        run = await world.run(run_start_time=timestamp(start))
        root = await world.ledger.action(RunKey(PROJECT, DOMAIN, run.action.id.run.name).action(ROOT_ACTION))
        assert root.cache_key
        return root.cache_key

    assert await key(NOON) == await key(NOON)
    assert (await key(NOON) == await key(NOON + 1_000_000)) == ignored


async def test_a_run_says_what_started_it(world: World, clock: ManualClock) -> None:
    """Its trigger with the revision, its source; the trigger says when it was; lists find it by either."""
    await world.deploy_task()
    await world.deploy(cron("@daily"))
    await world.deploy(cron("@daily"), "other")
    await world.switch(active=False)
    clock.pass_by(60)
    run = await world.run(source=run_definition_pb2.RUN_SOURCE_CLI)
    metadata = run.action.metadata
    assert metadata.trigger_id == identifier_pb2.TriggerIdentifier(name=named(org=""), revision=2)
    assert (metadata.trigger_name, metadata.trigger_type.type) == ("t", common_pb2.TYPE_SCHEDULE)
    assert metadata.source == run_definition_pb2.RUN_SOURCE_CLI
    assert metadata.task.id.name == TASK
    assert micros((await world.get()).status.triggered_at) == clock.now()
    assert not (await world.get("other")).status.HasField("triggered_at")
    by_time = list_pb2.Filter(field="triggered_at", function=list_pb2.Filter.EXISTS)
    assert await world.listed(by_time) == ["t"]
    clock.pass_by(1)
    by_hand = run_service_pb2.CreateRunRequest(project_id=IN_PROJECT, task_spec=task_spec())
    await world.runs.create_run(by_hand, CTX)

    async def found(**fields: object) -> list[str]:
        filters = [list_pb2.Filter(field=field, values=[str(value)]) for field, value in fields.items()]
        request = run_service_pb2.ListRunsRequest(org="", request=list_pb2.ListRequest(filters=filters))
        return [each.action.metadata.trigger_name for each in (await world.runs.list_runs(request, CTX)).runs]

    assert await found() == ["", "t"]
    assert await found(trigger_name="t", trigger_task_name=TASK, trigger_revision=2, trigger_type=2) == ["t"]
    assert await found(run_source=2) == ["t"]
    assert await found(trigger_revision=1) == []


async def test_runs_of_a_trigger_page_by_page(world: World, clock: ManualClock) -> None:
    """The newest first, whatever the size of a page; others' runs are not among them."""
    await world.deploy_task()
    await world.deploy(None)
    await world.deploy(None, "other")
    made = []
    for _ in range(5):
        clock.pass_by(1)
        made.append((await world.run()).action.id.run.name)
        message = run_service_pb2.CreateRunRequest(project_id=IN_PROJECT, trigger_name=named("other"))
        await world.runs.create_run(message, CTX)
    seen: list[str] = []
    request = run_service_pb2.ListRunsRequest(trigger_name=named(), request=list_pb2.ListRequest(limit=2))
    while True:
        page = await world.runs.list_runs(request, CTX)
        seen += [each.action.id.run.name for each in page.runs]
        if not page.token:
            break
        request.request.token = page.token
    assert seen == made[::-1]


async def test_a_call_that_is_repeated(world: World, clock: ManualClock) -> None:
    """A named run, or one of the same request id, is the one that there is, also where the time is an input."""
    await world.deploy_task(spec=task_spec(when=DATETIME))
    await world.deploy(cron("@daily", kickoff="when"))
    name = identifier_pb2.RunIdentifier(project=PROJECT, domain=DOMAIN, name="once")
    first = await world.run(run_id=name, project_id=None)
    clock.pass_by(5)
    assert await world.run(run_id=name, project_id=None) == first


async def test_what_can_not_be_run(world: World) -> None:
    """A trigger that is deleted, or asked to run somewhere else."""
    await world.deploy_task()
    await world.deploy(None)
    with pytest.raises(InvalidArgument, match="its own project"):
        await world.run(project_id=identifier_pb2.ProjectIdentifier(name="q", domain=DOMAIN))
    await world.delete("t")
    with pytest.raises(NotFound, match="'t'"):
        await world.run()


async def test_inputs_of_any_revision_can_be_read(world: World) -> None:
    """As forms want them: inline or offloaded, of one revision or of the latest."""
    await world.deploy_task(spec=task_spec(a=INTEGER))
    await world.deploy(None, inputs=inputs(a=1))
    await world.deploy(None, offloaded_input_data=await offload(world, inputs(a=2)))

    async def read(revision: int) -> dict[str, int | str]:
        identifier = identifier_pb2.TriggerIdentifier(name=named(), revision=revision)
        return values(await stored_inputs(world.triggers, world.data.get, identifier))

    assert [await read(1), await read(2), await read(0)] == [{"a": 1}, {"a": 2}, {"a": 2}]
    await world.data.put(f"{world.base}/in2/inputs.pb", b"\xff")
    await world.deploy(None, offloaded_input_data={"uri": f"{world.base}/in2"})
    with pytest.raises(FailedPrecondition, match="can't be read"):
        await read(3)


async def test_uploads_for_a_trigger_find_its_task(world: World) -> None:
    """UploadInputs may name a trigger in place of a task."""
    spec = task_spec(a=INTEGER)
    await world.deploy_task(spec=spec)
    await world.deploy(None, inputs=inputs(a=1))
    task = (await world.triggers.get(named())).trigger.task
    assert await world.tasks._tasks.of_trigger(task._replace(version=""), "t") == spec
