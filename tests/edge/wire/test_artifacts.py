"""Artifacts as no SDK asks for them: deleted, sorted, their keys of metadata, and a trigger that starts at one."""

from __future__ import annotations

from datetime import timedelta

from flyteidl2.artifact import artifact_service_pb2 as idl
from flyteidl2.common import list_pb2
from flyteidl2.task import common_pb2
from flyteidl2.trigger import trigger_definition_pb2, trigger_service_pb2
from flyteidl2.workflow import run_definition_pb2, run_service_pb2
from flyteidl2.workflow.run_service_connect import RunServiceClient

from tests.edge.wire import artifacts
from tests.edge.wire import world as facts
from tests.edge.wire.artifacts import SERVICE, identifier, name
from tests.edge.wire.test_triggers import deploy
from tests.edge.wire.test_watches import Stream
from tests.edge.wire.world import World, nap_inputs, project_id, trigger_name

FOR_AN_ARTIFACT = run_definition_pb2.RUN_SOURCE_ARTIFACT_TRIGGER


async def create(world: World, version: str, of: str, **metadata: str) -> None:
    request = artifacts.create(version, of)
    request.spec.info.user_metadata.update(metadata)
    await world.send(SERVICE + "CreateArtifact", request, idl.CreateArtifactResponse)


async def versions(world: World, of: str, **request: object) -> list[str]:
    """Over all pages, one a page."""
    seen, token = [], ""
    while True:
        listed = list_pb2.ListRequest(limit=1, token=token, **request)  # type: ignore[arg-type]  # fields of the request
        message = idl.ListArtifactsRequest(request=listed, project_id=project_id(), name=of)
        page = await world.send(SERVICE + "ListArtifacts", message, idl.ListArtifactsResponse)
        seen += [each.artifact_id.version for each in page.artifacts]
        if not (token := page.token):
            return seen


async def test_a_deleted_version(world: World) -> None:
    """DeleteArtifact: it is gone from every list, the one before is the newest; a second time it is NotFound."""
    of = facts.new_name("deleted-")
    for version in ("1", "2"):
        await create(world, version, of)
    request = idl.DeleteArtifactRequest(artifact_id=identifier("2", of))
    await world.send(SERVICE + "DeleteArtifact", request, idl.DeleteArtifactResponse)
    found = await world.send(SERVICE + "GetArtifact", idl.GetArtifactRequest(name=name(of)), idl.GetArtifactResponse)
    assert found.artifact.artifact_id == identifier("1", of)
    assert await versions(world, of) == ["1"]
    answer = await world.raw.call(SERVICE + "DeleteArtifact", request)
    assert (answer.code, "there is no artifact" in answer.message) == ("not_found", True)
    assert "artifact_id" in answer.message


async def test_keys_of_metadata(world: World) -> None:
    """ListArtifactMetadataKeys: each once, sorted, of one name."""
    of = facts.new_name("keyed-")
    await create(world, "1", of, framework="torch")
    await create(world, "2", of, accuracy="1")
    request = idl.ListArtifactMetadataKeysRequest(project_id=project_id(), name=of)
    found = await world.send(SERVICE + "ListArtifactMetadataKeys", request, idl.ListArtifactMetadataKeysResponse)
    assert list(found.keys) == ["accuracy", "framework", "team"]


async def test_sorted_by_what_one_likes(world: World) -> None:
    """Up and down, by a key of metadata too, with one version a page."""
    of = facts.new_name("sorted-")
    for version, rank in (("1", "b"), ("2", "c"), ("3", "a")):
        await create(world, version, of, rank=rank)
    up, down = list_pb2.Sort.ASCENDING, list_pb2.Sort.DESCENDING
    for key, direction, expected in (
        ("created_at", down, "321"),
        ("version", up, "123"),
        ("user_metadata.rank", up, "312"),
        ("user_metadata.rank", down, "213"),
    ):
        sorts = [list_pb2.Sort(key=key, direction=direction)]
        assert "".join(await versions(world, of, sort_by_fields=sorts)) == expected, key


async def test_a_version_starts_a_run(world: World, address: str) -> None:
    """A trigger on an artifact, deployed over the wire, fires for the version that is created over it."""
    of, task = facts.new_name("watched-"), await deploy(world)
    watching = common_pb2.TriggerAutomationSpec(
        type=common_pb2.TYPE_ARTIFACT, artifact=common_pb2.ArtifactTrigger(artifact_name=of, partitions={"region": "us"})
    )
    spec = trigger_definition_pb2.TriggerSpec(active=True, task_version="1", inputs=nap_inputs(timedelta(0)))
    request = trigger_service_pb2.DeployTriggerRequest(name=trigger_name("w", task), spec=spec, automation_spec=watching)
    await world.send("/flyteidl2.trigger.TriggerService/DeployTrigger", request, trigger_service_pb2.DeployTriggerResponse)

    def fired(message: run_service_pb2.WatchRunsResponse) -> list[str]:
        found = [run.action for run in message.runs if run.action.metadata.trigger_id.name.task_name == task]
        return [action.id.run.name for action in found if action.metadata.source == FOR_AN_ARTIFACT]

    runs = RunServiceClient(address)
    async with Stream(runs.watch_runs(run_service_pb2.WatchRunsRequest(project_id=project_id()))) as stream:
        await create(world, "1", of)
        (run,) = fired(await stream.until(fired))
    await world.ended(run)
    gone = trigger_service_pb2.DeleteTriggersRequest(names=[trigger_name("w", task)])
    await world.send("/flyteidl2.trigger.TriggerService/DeleteTriggers", gone, trigger_service_pb2.DeleteTriggersResponse)
