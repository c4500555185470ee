"""Artifacts that tasks produce and people publish, and what they start."""

from __future__ import annotations

import asyncio
import tempfile
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import flyte
import flyte.errors
import flyte.remote
from flyte.artifacts import Card, Metadata, new, produces
from flyte.io import File
from flyte.remote import Artifact
from speak import say, tell

MONDAY, TUESDAY = date(2026, 9, 14), date(2026, 9, 15)
NEVER = datetime(2000, 1, 1, tzinfo=UTC)

env = flyte.TaskEnvironment(name="makers")
plain = flyte.TaskEnvironment(name="plain", cache=flyte.Cache("override", version_override="1"))
watchers = flyte.TaskEnvironment(name="watchers")

on_events = flyte.Trigger(
    name="on_events",
    automation=flyte.OnArtifact("events", region="eu"),
    inputs={
        "events": flyte.TriggeredArtifact,
        "day": flyte.TriggeredPartition("date"),
        "region": flyte.TriggeredPartition("region"),
        "x": 3,
    },
    labels={"made": "by-trigger"},
)
paused = flyte.Trigger(name="paused", automation=flyte.OnArtifact("events"), inputs={"x": 1}, auto_activate=False)
pinned = flyte.Trigger(
    name="pinned", automation=flyte.OnArtifact("model", version="2"), inputs={"events": flyte.TriggeredArtifact}
)


async def file(text: str) -> File:
    path = Path(tempfile.mkdtemp()) / "file.txt"
    path.write_text(text)
    return await File.from_local(str(path))


async def read(found: File) -> str:
    async with found.open("rb") as opened:
        return bytes(await opened.read()).decode()


@env.task(produces_artifacts=True)
async def make(region: str, day: date) -> tuple[File, int]:
    card = await Card.create_from.aio(content=f"# {region}", format="md", card_type="data")
    metadata = Metadata(
        name="events",
        description=f"of {region}",
        kind="data",
        attrs={"team": "red"},
        card=card,
        partitions={"date": day, "region": region},
    )
    return new(await file(f"{region} {day}"), metadata), 1


@env.task(retries=1, produces_artifacts=True)
async def unsteady(marker: str) -> File:
    seen = Path(marker)
    if not seen.exists():
        seen.touch()
        raise flyte.errors.RuntimeUserError("Unsteady", "once")
    return new(await file("steady"), Metadata(name="steady"))


@plain.task
async def clean(text: str) -> File:
    return await file(text)


@env.task
async def caller(text: str) -> str:
    """Its child knows nothing of artifacts."""
    with produces(o0=Metadata(name="cleaned", version=f"v-{text}", parents=("v0",))):
        await clean.override(produces_artifacts=True)(text)
    return "done"


@env.task(produces_artifacts=True)
async def clumsy() -> File:
    return new(await file("other"), Metadata(name="events", version="pinned", partitions={"date": MONDAY, "region": "eu"}))


@env.task
async def publisher() -> str:
    """Publishes with a call of its own."""
    published = await Artifact.create.aio(await file("inside"), name="inside", version="1", description="from a task")
    return published.version


@watchers.task(triggers=[on_events, paused, pinned])
async def watch(events: File | None = None, day: datetime = NEVER, region: str = "none", x: int = 0) -> str:
    text = await read(events) if events else "nothing"
    return f"{text} | {day.date()} | {region} | {x}"


@watchers.task
async def read_all(each: list[File], one: File) -> list[str]:
    return [await read(file) for file in (*each, one)]


def described(artifact: Artifact) -> dict[str, Any]:
    spec = artifact.pb2.spec
    return {
        "name": artifact.name,
        "version": artifact.version,
        "kind": artifact.kind,
        "description": spec.info.description,
        "card": spec.info.card.type,
        "partitions": {key: str(value) for key, value in artifact.partitions.items()},
        "source": artifact.source,
        "stamp": f"{spec.value.artifact_id.key.name}@{spec.value.artifact_id.version}",
        "parents": [parent.version for parent in spec.parent_artifacts],
        "created_by": artifact.created_by,
    }


def fired(name: str, count: int) -> list[flyte.remote.Run]:
    """Runs that a trigger started, the oldest first, when there are so many."""
    deadline = time.monotonic() + 40
    while True:
        found = [run for run in flyte.remote.Run.listall(limit=100) if run.pb2.action.metadata.trigger_name == name]
        if len(found) >= count or time.monotonic() > deadline:
            return sorted(found, key=lambda run: run.pb2.action.status.start_time.ToNanoseconds())
        time.sleep(0.1)


def refused(work: Any) -> str:
    try:
        work()
    except Exception as error:
        return str(error)
    return "accepted"


def produced() -> None:
    for number, (region, day) in enumerate((("us", MONDAY), ("eu", MONDAY), ("eu", TUESDAY))):
        run = flyte.run(make, region=region, day=day)
        tell(f"run {number}", run)
    say("latest", **described(Artifact.get("events")))
    say("of a partition", **described(Artifact.get("events", date=MONDAY, region="us")))
    say("of a run", found=[described(each) for each in Artifact.listall(source_run=run.name, source_action="a0")])
    of_kind = Artifact.listall("events", kind="data", attrs={"team": ["red", "blue"]})
    say("of a kind", regions=[each.partitions["region"] for each in of_kind])
    in_range = Artifact.listall("events", date=(TUESDAY, TUESDAY), latest_per_partition=True)
    say("in a range", found=[described(each)["partitions"] for each in in_range])
    say("schema", keys=Artifact.get_schema("events").all_keys, declared=Artifact.get_schema("events").declared)
    say("values", regions=Artifact.partition_values("events", "region"), days=Artifact.partition_values("events", "date"))
    say("of a day", regions=Artifact.partition_values("events", "region", date=TUESDAY))
    groups = [(each.name, each.versions, str(each.latest_time_partition)) for each in Artifact.list_names(search="event")]
    say("groups", groups=groups)


def tried_again() -> None:
    with tempfile.TemporaryDirectory() as directory:
        tell("unsteady", flyte.run(unsteady, marker=f"{directory}/marker"))
    say("steady", found=[described(each) for each in Artifact.listall("steady")])
    for number in range(2):
        tell(f"cached {number}", flyte.run(caller, text="a"))
    say("cleaned", found=[described(each) for each in Artifact.listall("cleaned")])


def published() -> None:
    tell("publisher", flyte.run(publisher))
    say("inside", **described(Artifact.get("inside")))
    value = asyncio.run(file("by hand"))
    first = Artifact.create(value, name="model", version="1", kind="model", external_ref="hub://model")
    again = Artifact.create(value, name="model", version="1", kind="model", external_ref="hub://model")
    say("published", **described(first), same=again.pb2 == first.pb2)
    other = asyncio.run(file("something else"))
    say("other content", error=refused(lambda: Artifact.create(other, name="model", version="1", kind="model")))
    Artifact.create(value, name="model", version="2", kind="model")
    say("imported", versions=[each.version for each in Artifact.listall(source_external_ref="hub://model")])
    Artifact.create(value, name="events", version="pinned", partitions={"date": MONDAY, "region": "us"})
    tell("clumsy", flyte.run(clumsy))
    declared = Artifact.declare("daily", partitions={"date": date, "region": str})
    say("declared", keys=declared.all_keys, declared=Artifact.get_schema("daily").declared)
    say("no fit", error=refused(lambda: Artifact.create(value, name="daily", partitions={"region": "eu"})))
    say("unknown", error=refused(lambda: Artifact.get("nothing")))
    run = flyte.run(read_all, each=list(Artifact.listall("model")), one=Artifact.get("model", version="1"))
    tell("as inputs", run)
    inputs = {each.name: each.value for each in run.inputs().pb2.literals}
    say("stamped", version=inputs["one"].artifact_id.version)


def triggered() -> None:
    for number, run in enumerate(fired("on_events", 2)):
        metadata = run.pb2.action.metadata
        relation = flyte.remote.RunDetails.get(run.name).pb2.run_spec.relation
        origin = {"source": metadata.source, "type": metadata.trigger_type.type, "related": relation.related_to.name}
        tell(f"on events {number}", run, origin=origin, relation=relation.relation_type, labels=dict(run.pb2.labels))
    (run,) = fired("pinned", 1)
    tell("pinned", run)
    say("fired", runs={name: len(fired(name, 0)) for name in ("on_events", "pinned", "paused")})


if __name__ == "__main__":
    flyte.init_from_config()
    flyte.deploy(watchers)
    produced()
    tried_again()
    published()
    triggered()
