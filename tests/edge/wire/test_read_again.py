"""What strange requests have left behind is read like anything else: in protobuf, in JSON, and on the console's pages."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from flyteidl2.actions import actions_service_pb2
from flyteidl2.common import list_pb2
from flyteidl2.workflow import run_service_pb2
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message

from tests.edge.wire import examples
from tests.edge.wire import world as facts
from tests.edge.wire.examples import Example
from tests.edge.wire.raw import Raw
from tests.edge.wire.world import RUNS, World, run_id


@pytest.fixture(scope="module")
def strange(address: str, directory: Path, valid: Mapping[str, list[Example]]) -> Iterator[list[str]]:
    """Runs that were made by every CreateRun with one field wrong that was not refused; the first has such children."""
    made = asyncio.run(_made(address, directory, valid))
    yield made
    asyncio.run(_ended(address, directory, made))


async def _made(address: str, directory: Path, valid: Mapping[str, list[Example]]) -> list[str]:
    makers = [*copy.deepcopy(valid["actions.ActionsService"]), *valid["workflow.RunService"]]
    names = [facts.new_name("strange")]
    async with Raw(address) as raw:
        await World(raw, str(directory)).create(names[0])
        for maker in makers:
            if not maker.procedure.endswith(("CreateRun", "Enqueue")):
                continue
            if isinstance(maker.message, actions_service_pb2.EnqueueRequest):
                maker.message.action.action_id.run.name = names[0]
            for mutant in examples.mutants(maker):
                answer = await raw.call(mutant.procedure, mutant.message)
                if answer.code == "ok" and maker.procedure.endswith("CreateRun"):
                    made = run_service_pb2.CreateRunResponse.FromString(answer.bodies[0])
                    if made.run.action.id.run.project == facts.PROJECT:
                        names.append(made.run.action.id.run.name)
    return names


async def _ended(address: str, directory: Path, names: list[str]) -> None:
    async with Raw(address) as raw:
        for name in names:
            await World(raw, str(directory)).abort(name)


async def test_read_again(world: World, strange: list[str]) -> None:
    """Lists and details of all of them; a time that JSON has no words for is told in protobuf only."""
    assert len(strange) > 50
    wrong: list[str] = []

    async def read(rpc: str, request: Message) -> None:
        in_json = await world.raw.call(RUNS + rpc, MessageToJson(request).encode(), codec="json")
        untold = in_json.code == "failed_precondition" and "what JSON cannot tell" in in_json.message
        if not untold and not (in_json.code == "ok" and json.loads(in_json.bodies[0])):
            wrong.append(f"{rpc} {request}: {in_json}")
        in_proto = await world.raw.call(RUNS + rpc, request)
        if in_proto.code != "ok":
            wrong.append(f"{rpc} {request}: {in_proto}")

    await read("ListRuns", run_service_pb2.ListRunsRequest(request=list_pb2.ListRequest(limit=200)))
    for name in strange:
        await read("GetRunDetails", run_service_pb2.GetRunDetailsRequest(run_id=run_id(name)))
    await read("ListActions", run_service_pb2.ListActionsRequest(run_id=run_id(strange[0]), request={"limit": 200}))
    listed = await world.send(
        RUNS + "ListActions",
        run_service_pb2.ListActionsRequest(run_id=run_id(strange[0]), request={"limit": 200}),
        run_service_pb2.ListActionsResponse,
    )
    for action in listed.actions:
        await read("GetActionDetails", run_service_pb2.GetActionDetailsRequest(action_id=action.id))
    assert not wrong, "\n".join(wrong)[:5000]


async def test_pages(raw: Raw, address: str, strange: list[str]) -> None:
    """The console shows each run and its list of runs."""
    for name in strange:
        path = f"{address}/v2/domain/{facts.DOMAIN}/project/{facts.PROJECT}/runs/{name}"
        async with raw.session.get(path) as response:
            assert response.status == 200, (path, (await response.text())[:500])
