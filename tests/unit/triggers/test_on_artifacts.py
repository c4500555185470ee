"""Triggers on artifacts, in virtual time: each version that one waits for is one run, whatever happens to whoever makes it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from flyteidl2.artifact import artifact_pb2
from flyteidl2.artifact import artifact_service_pb2 as idl
from flyteidl2.common import run_pb2 as common_run_pb2
from flyteidl2.core import interface_pb2, literals_pb2, types_pb2
from flyteidl2.task import common_pb2, run_pb2, task_definition_pb2
from flyteidl2.workflow import run_definition_pb2
from structlog.testing import capture_logs

from flyte_unified.core.errors import FailedPrecondition, InvalidArgument, Unavailable
from flyte_unified.triggers import offers
from flyte_unified.triggers.api import TriggerKey
from tests.unit.artifacts.world import BLOB, MONDAY, at, file, made_by, partitions
from tests.unit.triggers.conftest import ShiftedClock
from tests.unit.triggers.test_scheduler import pass_by, running
from tests.unit.triggers.world import DOMAIN, MINUTE, PROJECT, TASK, World, cron, integer, task_spec

pytestmark = pytest.mark.virtual_time

KEY = TriggerKey(PROJECT, DOMAIN, TASK, "t")


def on(name: str = "events", **fields: Any) -> common_pb2.TriggerAutomationSpec:
    artifact = common_pb2.ArtifactTrigger(artifact_name=name, **fields)
    return common_pb2.TriggerAutomationSpec(type=common_pb2.TYPE_ARTIFACT, artifact=artifact)


def watcher() -> task_definition_pb2.TaskSpec:
    """A task with a file, a day and a region, and with ``b``, which has a default."""
    spec = task_spec(day=types_pb2.DATETIME, region=types_pb2.STRING, b=types_pb2.INTEGER)
    variable = interface_pb2.Variable(type=BLOB)
    spec.task_template.interface.inputs.variables.append(interface_pb2.VariableEntry(key="found", value=variable))
    return spec


async def publish(world: World, version: str, name: str = "events", **fields: Any) -> None:
    identifier = artifact_pb2.ArtifactIdentifier(version=version)
    identifier.name.project, identifier.name.domain, identifier.name.name = PROJECT, DOMAIN, name
    spec = artifact_pb2.ArtifactSpec(**{"value": file(f"/data/{version}"), "type": BLOB} | fields)
    await world.artifacts.create(idl.CreateArtifactRequest(artifact_id=identifier, spec=spec), by="grace")


def versions(world: World) -> list[str]:
    """What the fires were told of, in their order."""
    return [message.inputs.literals[0].value.artifact_id.version for message in world.fired if message.inputs.literals]


async def waiting(timed: World) -> World:
    """A trigger that waits for events, and takes them."""
    await timed.deploy_task(spec=_taker())
    await timed.deploy(on(input_arg="found"))
    return timed


def _taker() -> task_definition_pb2.TaskSpec:
    spec = task_spec(b=types_pb2.INTEGER)
    variable = interface_pb2.Variable(type=BLOB)
    spec.task_template.interface.inputs.variables.append(interface_pb2.VariableEntry(key="found", value=variable))
    return spec


async def test_what_a_run_is_told(timed: World) -> None:
    """The value with its stamp, time and text of its partition, what the trigger was deployed with, and the run it is from."""
    await timed.deploy_task(spec=watcher())
    labels = run_pb2.RunSpec(labels=run_pb2.Labels(values={"made": "here"}))
    bound = on(input_arg="found", partition_input_args={"day": "date", "region": "region"})
    given = common_pb2.Inputs(literals=[common_pb2.NamedLiteral(name="b", value=integer(5))])
    await timed.deploy(bound, run_spec=labels, inputs=given)
    async with running(timed.scheduler()):
        await publish(timed, "1", partitions=partitions(region="eu"), time_partition=at(MONDAY), source=made_by("maker"))
        await pass_by(1)
    (root,) = await timed.ledger.live()
    kept, spec = await timed.ledger.run(root.key.run_key)
    assert (kept.source, kept.trigger_name, kept.trigger_type) == (
        run_definition_pb2.RUN_SOURCE_ARTIFACT_TRIGGER,
        "t",
        common_pb2.TYPE_ARTIFACT,
    )
    assert kept.created_by == "grace"
    assert (spec.relation.related_to.name, spec.relation.relation_type) == ("maker", common_run_pb2.RELATION_TYPE_ON_ARTIFACT)
    assert dict(spec.labels.values) == {"made": "here"}
    stored = common_pb2.Inputs.FromString(await timed.data.get(root.input_uri))
    inputs = {literal.name: literal.value for literal in stored.literals}
    assert (inputs["found"].scalar.blob.uri, inputs["found"].artifact_id.version) == ("/data/1", "1")
    assert inputs["day"].scalar.primitive.datetime.seconds == MONDAY
    assert (inputs["region"].scalar.primitive.string_value, inputs["b"]) == ("eu", integer(5))


async def test_a_clock_that_was_ahead(timed: World) -> None:
    """A version is fired when it is there, though that of its time, and of those before it, is still to come."""
    await waiting(timed)
    clock = cast("ShiftedClock", timed.clock)
    clock.ahead = 8 * 60 * MINUTE
    await publish(timed, "1")
    clock.ahead = 0
    async with running(timed.scheduler()):
        await pass_by(1)
        assert versions(timed) == ["1"]
        await publish(timed, "2")
        await publish(timed, "3")
        await pass_by(1)
    assert versions(timed) == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, ["1", "2", "3"]),
        ({"version": "2"}, ["2"]),
        ({"partitions": {"region": "eu"}}, ["1", "3"]),
        ({"partitions": {"region": "eu", "kind": "raw"}}, ["3"]),
        ({"partitions": {"region": "us"}, "version": "1"}, []),
    ],
)
async def test_which_versions_fire(timed: World, wanted: dict[str, Any], expected: list[str]) -> None:
    """Those of the name, of the version that is pinned, with all the partitions; another artifact's and others' never."""
    await timed.deploy_task(spec=_taker())
    await timed.deploy(on(input_arg="found", **wanted))
    await timed.deploy(on("others", input_arg="found"), "other")
    async with running(timed.scheduler()):
        for version, region, kind in (("1", "eu", "x"), ("2", "us", "raw"), ("3", "eu", "raw")):
            await publish(timed, version, partitions=partitions(region=region, kind=kind))
        await publish(timed, "4", "unwatched")
        await pass_by(1)
        await publish(timed, "1", partitions=partitions(region="eu", kind="x"))  # again, which is no new version
        await pass_by(600)
    assert versions(timed) == expected


async def test_a_time_without_a_server(timed: World) -> None:
    """What appears meanwhile fires at the next start, in its order, and once, however often the server is started."""
    world = await waiting(timed)
    for version in ("1", "2", "3"):
        await publish(world, version)
    for _ in range(2):
        async with running(world.scheduler()):
            await pass_by(60)
    assert versions(world) == ["1", "2", "3"]
    assert len(await world.ledger.live()) == 3


async def test_a_crash_between_the_run_and_the_note_of_it(timed: World) -> None:
    """The run is there, and the version still to be offered: the next server makes no second one."""
    world = await waiting(timed)
    await publish(world, "1")
    offered = world.triggers.offered

    async def crash(*_: object) -> None:
        await asyncio.Event().wait()

    world.triggers.offered = crash  # type: ignore[method-assign,assignment]
    async with running(world.scheduler()):
        await pass_by(1)
    world.triggers.offered = offered  # type: ignore[method-assign]
    async with running(world.scheduler()):
        await pass_by(1)
        await publish(world, "2")
        await pass_by(1)
    assert versions(world) == ["1", "1", "2"]
    assert len(await world.ledger.live()) == 2


async def test_a_fire_that_fails_is_tried_again(timed: World) -> None:
    """What comes after it waits its turn; none is lost."""
    world = await waiting(timed)
    world.refusing[:] = [Unavailable("away")] * 3
    with capture_logs():
        async with running(world.scheduler()):
            await publish(world, "1")
            await publish(world, "2")
            await pass_by(1)
            assert world.fired == []
            await pass_by(10)
    assert versions(world) == ["1", "2"]


async def test_a_paused_trigger(timed: World) -> None:
    """It does not fire; what appears until it is activated is not caught up, nor what it had still to fire for."""
    world = await waiting(timed)
    await publish(world, "before")
    await world.switch(active=False)
    await publish(world, "during")
    async with running(world.scheduler()):
        await pass_by(60)
        await world.switch(active=True)
        await pass_by(60)
        assert world.fired == []
        await publish(world, "after")
        await pass_by(1)
    assert versions(world) == ["after"]


async def test_a_new_revision(timed: World) -> None:
    """With the same artifact it goes on where it was; with another, or a clock, what was due of the old one is dropped."""
    world = await waiting(timed)
    await publish(world, "1")
    await world.deploy(on(input_arg="found"), run_spec=run_pb2.RunSpec(queue="default"))
    async with running(world.scheduler()):
        await pass_by(1)
    assert versions(world) == ["1"]
    for automation in (on("others", input_arg="found"), cron("@yearly")):
        await world.deploy(on(input_arg="found"))
        await publish(world, f"{automation.type}")
        found = common_pb2.NamedLiteral(name="found", value=file())
        await world.deploy(automation, inputs=common_pb2.Inputs(literals=[found]))
        async with running(world.scheduler()):
            await pass_by(60)
        assert versions(world) == ["1"]


async def test_what_can_not_be_started_is_dropped(timed: World) -> None:
    """An artifact that was deleted, a run that is refused: the log says so, and the next version has its turn."""
    world = await waiting(timed)
    for version in ("gone", "refused", "good"):
        await publish(world, version)
    world.refusing[:] = [FailedPrecondition("the project is archived")]
    gone = artifact_pb2.ArtifactIdentifier(version="gone")
    gone.name.project, gone.name.domain, gone.name.name = PROJECT, DOMAIN, "events"
    await world.artifacts.delete(gone)
    with capture_logs() as logs:
        async with running(world.scheduler()):
            await pass_by(1)
    assert versions(world) == ["good"]
    told = [line["event"] for line in logs]
    assert told == ["an artifact was deleted before its trigger fired", "a fire was refused, and is dropped"]


async def test_inputs_that_nobody_gives(timed: World) -> None:
    """Are missed when the trigger is deployed, as an active one is not to fail when an artifact appears."""
    await timed.deploy_task(spec=_taker())
    with pytest.raises(InvalidArgument, match="inputs: 'found' missing"):
        await timed.deploy(on(partition_input_args={"b": "number"}))
    await timed.deploy(on(partition_input_args={"b": "number"}), active=False)


def _union(*simple: types_pb2.SimpleType) -> types_pb2.LiteralType:
    variants = [BLOB, *(types_pb2.LiteralType(simple=each) for each in simple)]
    return types_pb2.LiteralType(union_type=types_pb2.UnionType(variants=variants))


def test_a_value_for_an_optional_input() -> None:
    """It is told as the one of the types that it is, its stamp where tasks look for it; what fits none is as it was."""
    value = file("/data/1")
    value.artifact_id.version = "1"
    fitted = offers.fitted(value, BLOB, _union(types_pb2.NONE))
    assert (fitted.scalar.union.value, fitted.scalar.union.type, fitted.artifact_id.version) == (value, BLOB, "1")
    assert offers.fitted(value, BLOB, BLOB) == value
    assert offers.fitted(integer(1), types_pb2.LiteralType(simple=types_pb2.BOOLEAN), _union(types_pb2.NONE)) == integer(1)
    many = types_pb2.LiteralType(blob=types_pb2.BlobType(dimensionality=types_pb2.BlobType.MULTIPART))
    assert offers.fitted(value, many, _union()) == value


@pytest.mark.parametrize(
    ("declared", "key", "expected"),
    [
        (types_pb2.DATETIME, "date", literals_pb2.Primitive(datetime={"seconds": MONDAY})),
        (types_pb2.STRING, "date", literals_pb2.Primitive(string_value="2026-09-14")),
        (types_pb2.STRING, "region", literals_pb2.Primitive(string_value="eu")),
        (types_pb2.STRING, "none", None),
    ],
)
def test_partitions_as_inputs(declared: int, key: str, expected: literals_pb2.Primitive | None) -> None:
    """A time as a time, or as text where the task takes that; one that the version lacks is left to the task's default."""
    artifact = artifact_pb2.ArtifactSpec(time_partition=at(MONDAY, key="date"), partitions=partitions(region="eu"))
    wanted = common_pb2.ArtifactTrigger(partition_input_args={"x": key})
    found = offers.inputs(wanted, artifact, {"x": types_pb2.LiteralType(simple=declared)})  # type: ignore[arg-type]  # an int
    assert [literal.value.scalar.primitive for literal in found] == ([expected] if expected is not None else [])
