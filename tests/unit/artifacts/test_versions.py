"""Versions of artifacts: created once, found by name and partition, listed, and deleted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from flyteidl2.artifact import artifact_pb2
from flyteidl2.artifact import artifact_service_pb2 as idl
from flyteidl2.core import artifact_id_pb2
from google.protobuf import text_format

from flyte_unified.artifacts.store import METADATA
from flyte_unified.core.clock import micros
from flyte_unified.core.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from tests.unit.artifacts.world import (
    CTX,
    DAY,
    IN_PROJECT,
    MONDAY,
    World,
    at,
    file,
    identifier,
    made_by,
    named,
    partitions,
    spec,
    where,
)
from tests.unit.manual_clock import ManualClock

ACTION = "spec {source {task_action {action {%s}}}}"


async def test_a_version_is_complete(world: World, clock: ManualClock) -> None:
    """Its value is stamped, its time floored, its parents have a scope; who made it and when is told with it."""
    parents = [
        artifact_id_pb2.ArtifactVersionId(version="0"),
        artifact_id_pb2.ArtifactVersionId(version="1", key={"name": "raw"}),
    ]
    made = await world.create("1", time_partition=at(MONDAY + 7200), source=made_by("r1", attempt=2), parent_artifacts=parents)
    assert made == await world.get() == await world.get(version="latest") == await world.get(version="1")
    assert made.artifact_id == identifier("1")
    stamp = made.spec.value.artifact_id
    assert (stamp.key.project, stamp.key.domain, stamp.key.name, stamp.version) == ("p", "development", "events", "1")
    assert (made.spec.time_partition.key, made.spec.time_partition.value.time_value.seconds) == ("date", MONDAY)
    assert [(parent.key.name, parent.key.project) for parent in made.spec.parent_artifacts] == [("events", "p"), ("raw", "p")]
    assert made.spec.source.task_action.attempt == 2
    assert (micros(made.created_at), made.created_by.user.id.subject) == (clock.now(), "grace")


async def test_what_is_created_again(world: World, clock: ManualClock) -> None:
    """The same content is the version that was; another is refused by the names of what differs. A hash stands for content."""
    made = await world.create("1", value=file("/a", hashed="h"), source=made_by("r1"))
    clock.pass_by(10)
    assert await world.create("1", value=file("/b", hashed="h"), source=made_by("r2", attempt=1)) == made
    info = artifact_id_pb2.ArtifactInfo(description="other")
    with pytest.raises(AlreadyExists, match=r"events@1 of p/development exists, with another spec\.value and spec\.info"):
        await world.create("1", value=file("/a", hashed="other"), info=info)
    assert await world.listed() == ["1"]


@pytest.mark.parametrize(
    ("field", "changed", "told"),
    [
        ("artifact_id.name.name", 'artifact_id {name {name: "a b"}}', "letters, digits"),
        ("artifact_id.name.project", 'artifact_id {name {project: ""}}', "empty"),
        ("artifact_id.version", 'artifact_id {version: "latest"}', "newest"),
        ("artifact_id.version", 'artifact_id {version: "a\\nb"}', "printable"),
        ("spec.type", "spec {type {}}", "empty"),
        ("spec.value", "spec {value {}}", "empty"),
        ("spec.info.user_metadata", 'spec {info {user_metadata {key: "a" value: "\\000"}}}', "NUL"),
        ("spec.source.external_ref", f'spec {{source {{external_ref: "{"x" * 1001}"}}}}', "1000"),
        ("spec.source.task_action.action.run", ACTION % 'name: "a0" run {name: "r" project: "q"}', "not in"),
        ("spec.source.task_action.action.name", ACTION % 'run {name: "r"}', "empty"),
        ("spec.parent_artifacts[0]", 'spec {parent_artifacts {version: "1"}}', "own parent"),
        ("spec.parent_artifacts[0].version", "spec {parent_artifacts {}}", "empty"),
        ("spec.partitions", 'spec {partitions {value {key: "" value {static_value: "a"}}}}', "empty"),
        ("spec.partitions", 'spec {partitions {value {key: "a" value {time_value {}}}}}', "static_value"),
        ("spec.partitions", 'spec {partitions {value {key: "a\\"" value {static_value: "a"}}}}', "quotes"),
        ("spec.time_partition.value", "spec {time_partition {}}", "time_value"),
        ("spec.time_partition.granularity", "spec {time_partition {granularity: 99 value {time_value {}}}}", "99"),
    ],
)  # fmt: skip
async def test_what_is_refused(world: World, field: str, changed: str, told: str) -> None:
    """By the field's name."""
    message = idl.CreateArtifactRequest(artifact_id=identifier("1"), spec=spec())
    change = text_format.Parse(changed, idl.CreateArtifactRequest())
    if change.spec.HasField("type"):
        message.spec.ClearField("type")
    if change.spec.HasField("value"):
        message.spec.ClearField("value")
    if 'project: ""' in changed:
        message.artifact_id.name.project = ""
    message.MergeFrom(change)
    with pytest.raises(InvalidArgument, match=told) as refused:
        await world.handlers.create_artifact(message, CTX)
    assert refused.value.message.startswith(field), refused.value.message


async def test_unknown_places(world: World) -> None:
    """A project, a name, a version that is not there."""
    message = idl.CreateArtifactRequest(artifact_id=identifier("1"), spec=spec())
    message.artifact_id.name.project = "nowhere"
    with pytest.raises(NotFound, match="nowhere"):
        await world.handlers.create_artifact(message, CTX)
    with pytest.raises(NotFound, match="name: there is no artifact 'events'"):
        await world.get()
    await world.create("1")
    with pytest.raises(NotFound, match="version: there is no artifact events@2"):
        await world.get(version="2")


async def test_the_newest_is_never_in_doubt(world: World) -> None:
    """Of many at one time each has a moment of its own: the newest is what lists show first."""
    await asyncio.gather(*(world.create(str(number)) for number in range(20)))
    versions = await world.listed(name="events", limit=7)
    assert sorted(versions, key=int) == [str(number) for number in range(20)]
    assert (await world.get()).artifact_id.version == versions[0]
    (group,) = await world.groups()
    assert (group.versions, group.latest.artifact_id.version) == (20, versions[0])


async def test_filters(world: World, clock: ManualClock) -> None:
    """By all that a version is known by, one or several at once."""
    await world.create("1", source=made_by("r1"), partitions=partitions(region="us"), info={"user_metadata": {"team": "red"}})
    clock.pass_by(1)
    between = clock.now()
    clock.pass_by(1)
    of_hub = artifact_pb2.ArtifactSource(external_ref="hub://x")
    await world.create(
        "2", source=of_hub, partitions=partitions(region="eu"), info={"user_metadata": {"flyte.io/kind": "data"}}
    )
    await world.create("3", "other", source=made_by("r1", "n0"))
    clock.pass_by(between - clock.now())
    moment = f"{(await world.get(version='1')).created_at.ToJsonString()}"
    kind, teams = where(f"{METADATA}flyte.io/kind", "data"), where(f"{METADATA}team", "red", "blue", function="VALUE_IN")
    expected: dict[str, list[Any]] = {
        "2": [where("partition.region", "eu"), where("source_external_ref", "hub://x"), kind],
        "1": [teams, where("source_action", "a0"), where("version", "1")],
        "321": [where("created_at", "2020-01-01T00:00:00Z", function="GREATER_THAN")],
        "32": [where("created_at", moment, function="GREATER_THAN")],
        "31": [where("source_run", "r1")],
        "3": [where("name", "the", function="CONTAINS"), where("partition.region", function="NOT_EXISTS")],
        "": [where("partition.none", "x")],
    }
    for versions, filters in expected.items():
        for each in filters:
            assert "".join(await world.listed(each)) == versions, each
    assert await world.listed(where("source_run", "r1"), where("source_action", "n0"), name="other") == ["3"]
    with pytest.raises(InvalidArgument, match=r"request\.filters\[0\]\.field: 'colour'"):
        await world.listed(where("colour", "red"))


@pytest.mark.parametrize("sort", ["", "created_at", "-version", "name", "-time_partition", "partition.region", "-source_run"])
async def test_pages(world: World, sort: str) -> None:
    """Each version once, in whatever order; a page's token is of that order alone."""
    for number in range(12):
        await world.create(
            f"{number:02}",
            name="abc"[number % 3],
            source=made_by(f"r{number % 2}"),
            partitions=partitions(region="us" if number % 4 else "eu"),
            time_partition=at(MONDAY + number // 3 * DAY),
        )
    assert await world.listed(limit=5, sort=sort) == await world.listed(sort=sort)
    assert len(set(await world.listed(limit=5, sort=sort))) == 12
    first = idl.ListArtifactsRequest(project_id=IN_PROJECT, request={"limit": 5})
    token = (await world.handlers.list_artifacts(first, CTX)).token
    other = idl.ListArtifactsRequest(project_id=IN_PROJECT, name="a", request={"limit": 5, "token": token})
    with pytest.raises(InvalidArgument, match=r"request\.token"):
        await world.handlers.list_artifacts(other, CTX)


async def test_the_latest_of_each_partition(world: World) -> None:
    """One version each, also where they are in a range of time; it takes a name."""
    for version, day, region in (
        ("1", 0, "us"),
        ("2", 0, "us"),
        ("3", 1, "us"),
        ("4", 0, "eu"),
        ("5", 2, "us"),
        ("6", 1, "us"),
    ):
        await world.create(version, partitions=partitions(region=region), time_partition=at(MONDAY + day * DAY))
    bounds = [where("time_partition", "2026-09-14T00:00:00Z", function="GREATER_THAN_OR_EQUAL")]
    bounds += [where("time_partition", "2026-09-15T00:00:00Z", function="LESS_THAN_OR_EQUAL")]
    assert await world.listed(*bounds, name="events", latest_per_partition=True, limit=2) == ["6", "4", "2"]
    assert await world.listed(name="events", latest_per_partition=True) == ["6", "5", "4", "2"]
    with pytest.raises(InvalidArgument, match="latest_per_partition"):
        await world.listed(latest_per_partition=True)


async def test_names(world: World) -> None:
    """That of the newest version first, with how many there are and the newest time of any."""
    await world.declare("region", name="declared")
    for version, name, day in (("1", "a", 5), ("2", "b", 0), ("3", "a", 0)):
        await world.create(version, name, time_partition=at(MONDAY + day * DAY))
    groups = await world.groups(limit=1)
    assert [(each.latest.artifact_id.name.name, each.latest.artifact_id.version, each.versions) for each in groups] == [
        ("a", "3", 2),
        ("b", "2", 1),
    ]
    assert groups[0].latest_time_partition.seconds == MONDAY + 5 * DAY
    assert groups[0].partition_schema.time_partition.key == "date"
    assert [each.latest.artifact_id.name.name for each in await world.groups(where("name", "b", function="CONTAINS"))] == ["b"]


async def test_partition_keys_are_fixed(world: World) -> None:
    """By the first version, or a declaration before it; the same keys in another order are the same."""
    with pytest.raises(NotFound, match="none is declared"):
        await world.schema()
    await world.create("1", partitions=partitions(a="1", b="2"))
    known = await world.schema()
    assert (list(known.partition_schema.partition_keys), known.declared) == (["a", "b"], False)
    with pytest.raises(FailedPrecondition, match=r"spec\.partitions: .* keys a, b, not the partition keys date \(day\), a"):
        await world.create("2", partitions=partitions(a="1"), time_partition=at(MONDAY))
    with pytest.raises(FailedPrecondition, match=r"partition_schema: .* not no partition keys"):
        await world.declare()
    await world.declare("b", "a")
    assert (await world.schema()).declared
    assert (await world.declare("region", time="day", name="other")).time_partition.granularity == artifact_id_pb2.DAY
    with pytest.raises(FailedPrecondition, match="no partition keys"):
        await world.create("1", "other")
    with pytest.raises(InvalidArgument, match=r"partition_schema\.partition_keys\[0\]: 'a' is there twice"):
        await world.declare("a", "a", name="third")


async def test_values_of_a_partition(world: World) -> None:
    """Each once, sorted, of the versions that meet the filters; a key that is none is told with those there are."""
    for number, region in enumerate(("us", "eu", "us", "ap")):
        await world.create(str(number), partitions=partitions(region=region), time_partition=at(MONDAY + number % 2 * DAY))
    assert await world.values("region") == ["ap", "eu", "us"]
    assert await world.values("region", where("time_partition", "2026-09-14T00:00:00Z")) == ["us"]
    assert await world.values("region", limit=2) == ["ap", "eu"]
    assert await world.values("date", where("partition.region", "us", "eu", function="VALUE_IN")) == [
        "2026-09-14T00:00:00Z",
        "2026-09-15T00:00:00Z",
    ]
    with pytest.raises(
        InvalidArgument, match="key: artifact 'events' of p/development has no partition key 'x'; it has date, region"
    ):
        await world.values("x")
    with pytest.raises(NotFound, match="name: "):
        await world.values("region", name="none")


async def test_keys_of_metadata(world: World) -> None:
    """Sorted, each once; of one name or of all."""
    await world.create("1", "a", info={"user_metadata": {"x": "1", "y": "2"}})
    await world.create("1", "b", info={"user_metadata": {"x": "1", "a": "2"}})
    for name, expected in (("", ["a", "x", "y"]), ("b", ["a", "x"])):
        message = idl.ListArtifactMetadataKeysRequest(project_id=IN_PROJECT, name=name)
        assert list((await world.handlers.list_artifact_metadata_keys(message, CTX)).keys) == expected


async def test_deletion(world: World, clock: ManualClock) -> None:
    """The version before is the newest again; with the last one the name goes, unless it was declared."""
    for version in ("1", "2", "3"):
        await world.create(version, partitions=partitions(region="us"))
    await world.delete("3")
    assert (await world.get()).artifact_id.version == "2"
    (group,) = await world.groups()
    assert group.versions == 2
    with pytest.raises(NotFound, match="artifact_id: there is no artifact events@3"):
        await world.delete("3")
    await world.create("3", partitions=partitions(region="eu"))
    assert await world.listed() == ["3", "2", "1"]
    for version in ("1", "2", "3"):
        await world.delete(version)
    assert await world.groups() == []
    await world.create("1", time_partition=at(MONDAY))
    await world.declare(time="date")
    await world.delete("1")
    assert (await world.schema()).declared
    assert await world.groups() == []
    assert (await world.create("1", time_partition=at(MONDAY))).created_at.seconds == clock.now() // 1_000_000


@pytest.mark.parametrize(
    ("granularity", "beginning", "key"),
    [
        (artifact_id_pb2.MINUTE, "2026-09-17T13:45:00Z", "date"),
        (artifact_id_pb2.HOUR, "2026-09-17T13:00:00Z", "hour"),
        (artifact_id_pb2.DAY, "2026-09-17T00:00:00Z", "date"),
        (artifact_id_pb2.UNSET, "2026-09-17T00:00:00Z", "date"),
        (artifact_id_pb2.WEEK, "2026-09-14T00:00:00Z", "date"),
        (artifact_id_pb2.MONTH, "2026-09-01T00:00:00Z", "date"),
    ],
)
async def test_granularities(world: World, granularity: int, beginning: str, key: str) -> None:
    """A version is in the partition that its time falls in, named so that tasks agree without a word."""
    thursday = MONDAY + 3 * DAY + 13 * 3600 + 45 * 60 + 59
    made = await world.create("1", time_partition=at(thursday, granularity))
    assert made.spec.time_partition.value.time_value.ToJsonString() == beginning
    assert made.spec.time_partition.key == key
    assert await world.values(key) == [beginning]


async def test_an_org_is_echoed(world: World) -> None:
    """And means nothing."""
    await world.create("1")
    name = named()
    name.org = "other"
    found = (await world.handlers.get_artifact(idl.GetArtifactRequest(name=name), CTX)).artifact
    assert found.artifact_id.name.org == "other"
    assert await world.create("1") == await world.get()
