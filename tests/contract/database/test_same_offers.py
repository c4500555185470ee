"""Artifacts and their triggers where replicas write at the same time: no version is lost, and none is in doubt."""

from __future__ import annotations

import asyncio

import pytest
from flyteidl2.artifact import artifact_service_pb2 as idl
from flyteidl2.common import identifier_pb2
from flyteidl2.task import common_pb2, task_definition_pb2
from flyteidl2.trigger import trigger_service_pb2
from sqlalchemy import insert

from flyte_unified.core.clock import SystemClock
from flyte_unified.core.errors import InvalidArgument
from flyte_unified.db.api import Work
from flyte_unified.db.tables import triggers
from flyte_unified.triggers.api import TriggerKey
from tests.contract.database.replicas import Replica
from tests.unit.artifacts.world import CTX, DOMAIN, PROJECT, World, identifier, spec, world_on

KEY = TriggerKey(PROJECT, DOMAIN, "task", "t")


def _on(artifact: str) -> common_pb2.TriggerAutomationSpec:
    return common_pb2.TriggerAutomationSpec(
        type=common_pb2.TYPE_ARTIFACT, artifact=common_pb2.ArtifactTrigger(artifact_name=artifact)
    )


def _trigger() -> Work[None]:
    times = {"deployed_at": 1, "updated_at": 1}
    row = {**KEY._asdict(), "revision": 1, "change": 1, "spec": b"", "automation_type": 3, "active": 1, **times}
    yield insert(triggers), {**row, "automation": _on("events").SerializeToString(), "task_version": "1"}


async def _create(world: World, number: int) -> None:
    request = idl.CreateArtifactRequest(artifact_id=identifier(str(number)), spec=spec())
    await world.handlers.create_artifact(request, CTX)


async def _drain(world: World, seen: list[str], enough: int) -> None:
    """As the leader does, without its waits: fires what is due as long as something is said to be."""
    while len(seen) < enough:
        if not await world.triggers.scheduled():
            await asyncio.sleep(0)
            continue
        if (offer := await world.triggers.offer(KEY)) is not None:
            seen.append(offer.version)
        await world.triggers.offered(KEY, offer)


async def test_no_version_is_lost(pair: tuple[Replica, Replica]) -> None:
    """Two replicas create while one of them fires: all are fired, in their order, and then nothing is due."""
    one, other = (world_on(replica.database, SystemClock()) for replica in pair)
    await one.database.write(_trigger)
    seen: list[str] = []
    async with asyncio.timeout(60):
        creates = (_create(world, number + base) for number in range(40) for world, base in ((one, 0), (other, 100)))
        await asyncio.gather(*creates, _drain(one, seen, 80))
    assert sorted(seen, key=int) == [str(base + number) for base in (0, 100) for number in range(40)]
    assert seen == (await other.listed())[::-1]
    assert await one.triggers.scheduled() == []
    (group,) = await other.groups()
    assert (group.versions, group.latest.artifact_id.version) == (80, seen[-1])


async def test_names_of_any_script_and_length(pair: tuple[Replica, Replica]) -> None:
    """What is accepted as the name of a task, a trigger or a version has room in the key of an offer."""
    world = world_on(pair[0].database, SystemClock())
    long = "".join(chr(0x20000 + 7 * number) for number in range(255))
    names = identifier_pb2.TriggerName(project=PROJECT, domain=DOMAIN, task_name=long, name=long)
    request = trigger_service_pb2.DeployTriggerRequest(
        name=names, spec={"active": True, "task_version": "1"}, automation_spec=_on("e" * 255)
    )
    with pytest.raises(InvalidArgument, match=r"name: .* 2040 bytes in UTF-8; at most 1200 are allowed"):
        await world.triggers.deploy(request, task_definition_pb2.TaskSpec(), by="ann")
    request.name.task_name, request.name.name = task, trigger = long[:150], long[105:]
    await world.triggers.deploy(request, task_definition_pb2.TaskSpec(), by="ann")
    await world.create(long, "e" * 255)
    offer = await world.triggers.offer(TriggerKey(PROJECT, DOMAIN, task, trigger))
    assert offer is not None
    assert offer.version == long


async def test_one_version_at_one_time(pair: tuple[Replica, Replica]) -> None:
    """It is created once, and its trigger has one fire."""
    worlds = [world_on(replica.database, SystemClock()) for replica in pair]
    await worlds[0].database.write(_trigger)
    await asyncio.gather(*(_create(world, 1) for _ in range(5) for world in worlds))
    assert await worlds[0].listed() == ["1"]
    offer = await worlds[1].triggers.offer(KEY)
    assert offer is not None
    await worlds[1].triggers.offered(KEY, offer)
    assert await worlds[0].triggers.offer(KEY) is None
