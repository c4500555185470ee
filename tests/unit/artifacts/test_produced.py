"""What tasks produce is registered with their success: not before, not twice, whoever carries them out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from flyteidl2.artifact import artifact_pb2
from flyteidl2.artifact import artifact_service_pb2 as idl
from flyteidl2.task import common_pb2, task_definition_pb2
from structlog.testing import capture_logs

from flyte_unified.artifacts.model import Artifact, ArtifactKey
from flyte_unified.core.phases import Phase
from flyte_unified.launchers.api import Ended, WorkId
from flyte_unified.plugins.api import Exit
from tests.unit.artifacts.world import BLOB, MONDAY, at, file, partitions
from tests.unit.executor.world import ROOT, World, spec, world_in

pytestmark = pytest.mark.virtual_time

NAME = artifact_pb2.ArtifactName(project=ROOT.project, domain=ROOT.domain, name="events")


@pytest.fixture
async def executor(tmp_path: Path) -> AsyncIterator[World]:
    with capture_logs():
        async with world_in(tmp_path) as world:
            yield world


def producer(*, retries: int = 0, flag: bool = True) -> task_definition_pb2.TaskSpec:
    task = spec(retries=retries)
    task.task_template.metadata.produces_artifacts = flag
    return task


def declared(output: str = "o0", **fields: object) -> common_pb2.ProducedArtifact:
    return common_pb2.ProducedArtifact(**{"output": output, "name": "events", "type": BLOB} | fields)


def outputs(*produced: common_pb2.ProducedArtifact) -> bytes:
    literals = [common_pb2.NamedLiteral(name=name, value=file(f"/data/{name}")) for name in ("o0", "o1")]
    return common_pb2.Outputs(literals=literals, produced_artifacts=produced).SerializeToString()


async def stored(executor: World, version: str, name: str = "events") -> Artifact | None:
    return await executor.artifacts.known(ArtifactKey(ROOT.project, ROOT.domain, name, version))


async def finish(executor: World, content: bytes, task: task_definition_pb2.TaskSpec | None = None) -> list[str]:
    """A run to its end; what its attempt tells of its artifacts."""
    await executor.run(task or producer())
    async with executor.server() as (_, machine):
        await machine.launched(ROOT)
        machine.begin(ROOT)
        await executor.put(ROOT, "outputs.pb", content)
        machine.end(WorkId(ROOT, 1), code=0)
        details = await executor.ended(ROOT)
    assert details.action.phase is Phase.SUCCEEDED
    return [event.message for event in details.attempts[-1].cluster_events if event.reason == "NotRegistered"]


async def test_the_declaration_is_taken_as_it_is(executor: World) -> None:
    """Value, type, info and partitions; the action is its source, and gives it a version."""
    info = {"description": "d", "user_metadata": {"a": "b"}}
    told = declared(info=info, partitions=partitions(region="us"), time_partition=at(MONDAY, key="day"))
    assert await finish(executor, outputs(told)) == []
    found = await stored(executor, "r1-a0-0")
    assert found is not None
    assert (found.spec.value.scalar.blob.uri, found.spec.type, found.spec.info.description) == ("/data/o0", BLOB, "d")
    assert (found.spec.time_partition.key, found.spec.partitions.value["region"].static_value) == ("day", "us")
    assert (found.spec.source.task_action.action, found.spec.source.task_action.attempt) == (ROOT.idl(), 0)
    assert found.mismatch is None


async def test_without_the_flag_there_is_none(executor: World) -> None:
    """``produces_artifacts`` is the task's word that its declarations are meant."""
    await finish(executor, outputs(declared()), producer(flag=False))
    assert await stored(executor, "r1-a0-0") is None


async def test_outputs_that_share_a_name(executor: World) -> None:
    """Each is a version; one that says its own version has that."""
    await finish(executor, outputs(declared(), declared("o1"), declared("o1", name="other"), declared(version="v")))
    for version, name in (("r1-a0-0-o0", "events"), ("r1-a0-0-o1", "events"), ("r1-a0-0", "other"), ("v", "events")):
        assert await stored(executor, version, name) is not None, version


async def test_partitions_that_do_not_fit(executor: World) -> None:
    """The version is there, with a note of what was expected: what a task made is not thrown away."""
    schema = artifact_pb2.ArtifactPartitionSchema(partition_keys=["region"])
    await executor.artifacts.declare(idl.DeclareArtifactRequest(name=NAME, partition_schema=schema))
    assert await finish(executor, outputs(declared())) == []
    found = await stored(executor, "r1-a0-0")
    assert found is not None
    assert found.mismatch is not None
    assert list(found.mismatch.expected.partition_keys) == ["region"]
    assert "not no partition keys" in found.mismatch.message


async def test_what_can_not_be_registered_is_told(executor: World) -> None:
    """And costs the task nothing: a bad name, an output that is not there, two that are one version."""
    twice = (declared(version="v"), declared("o1", version="v"))
    told = await finish(executor, outputs(declared(name="a b"), declared("o7"), *twice))
    assert [message.partition(":")[0] for message in told] == [
        "output o0 is not registered as artifact a b",
        "output o7 is not registered as artifact events",
        "output o1 is not registered as artifact events",
    ]
    assert await stored(executor, "v") is not None


async def test_a_server_that_dies_before_it_judged(executor: World) -> None:
    """The next one registers, once, when it notes the success."""
    await executor.run(producer())
    async with executor.server() as (_, machine):
        await machine.launched(ROOT)
        machine.begin(ROOT)
        await executor.reaches(ROOT, Phase.RUNNING)
    await executor.put(ROOT, "outputs.pb", outputs(declared()))
    assert await stored(executor, "r1-a0-0") is None
    ended = Ended(id=WorkId(ROOT, 1), at=executor.clock.now(), exit=Exit(code=0))
    for _ in range(2):
        async with executor.server(ended) as (_, machine):
            await executor.ended(ROOT)
            await asyncio.sleep(5)
    assert await stored(executor, "r1-a0-0") is not None
    name = await executor.artifacts.schema(NAME)
    assert name.versions == 1


async def test_an_abort_that_is_faster(executor: World) -> None:
    """No success, no artifact: the outputs were there, and the action was ended while they were read."""
    await executor.run(producer())
    async with executor.server() as (controller, machine):
        await machine.launched(ROOT)
        machine.begin(ROOT)
        await executor.reaches(ROOT, Phase.RUNNING)
        await executor.put(ROOT, "outputs.pb", outputs(declared()))
        judge = controller._judge
        verdict = judge.verdict

        async def slower(view: object) -> object:
            found = await verdict(view)  # type: ignore[arg-type]
            assert found.beside is not None
            await executor.abort(ROOT)
            return found

        judge.verdict = slower  # type: ignore[method-assign,assignment]
        machine.end(WorkId(ROOT, 1), code=0)
        assert (await executor.ended(ROOT)).action.phase is Phase.ABORTED
    assert await stored(executor, "r1-a0-0") is None


async def test_only_the_attempt_that_succeeds(executor: World) -> None:
    """What one that failed declared is nothing."""
    await executor.run(producer(retries=1))
    async with executor.server() as (_, machine):
        await machine.launched(ROOT)
        await executor.put(ROOT, "outputs.pb", outputs(declared(version="first")))
        await executor.fail(machine, ROOT)
        await machine.launched(ROOT, 2)
        machine.begin(ROOT, 2)
        await executor.put(ROOT, "outputs.pb", outputs(declared()), attempt=2)
        machine.end(WorkId(ROOT, 2), code=0)
        await executor.ended(ROOT)
    assert await stored(executor, "first") is None
    assert await stored(executor, "r1-a0-1") is not None
