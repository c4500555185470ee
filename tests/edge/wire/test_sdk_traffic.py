"""Every request that the unmodified SDK makes, made again: as it was, without an org, and with a field of the future.

None of our own checks may refuse what real clients send.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from flyteidl2.common import list_pb2
from flyteidl2.workflow import run_service_pb2
from google.protobuf.message import Message

from flyte_unified.rpc.registry import PROTO, Method
from flyte_unified.testing import Backend
from tests.edge.wire.raw import Raw
from tests.edge.wire.world import World
from tests.sdk.conftest import Client

_PROGRAM = Path(__file__).parent / "programs" / "everything.py"
_FUTURE = bytes((0xB8, 0x3E, 0x07))
"""Field 999, a number: 7."""
_ORGS = ("org", "organization")


class Sent(NamedTuple):
    """One request of the SDK."""

    method: Method
    body: bytes
    message: Message


@pytest.fixture(scope="module")
def traffic(server: Backend, tmp_path_factory: pytest.TempPathFactory) -> list[Sent]:
    """All that a program of the SDK sends, and its tasks, each request once."""
    found: dict[tuple[str, bytes], Sent] = {}
    registry = server.manager.registry
    methods = [method for method in registry.methods() if method.handler is not None]

    def recording(method: Method) -> Callable[[bytes], Any]:
        def decode(body: bytes) -> Any:
            message = method.decoders[PROTO](body)
            found.setdefault((method.procedure, body), Sent(method, body, message))
            return message

        return decode

    for method in methods:
        registry.add_method(dataclasses.replace(method, decoders={**method.decoders, PROTO: recording(method)}))
    try:
        server.create_project("everything")
        client = Client(server, tmp_path_factory.mktemp("user") / "home", "everything")
        done = subprocess.run(
            [sys.executable, _PROGRAM.name],
            cwd=_PROGRAM.parent,
            env=client.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        for method in methods:
            registry.add_method(method)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return list(found.values())


@pytest.fixture
async def silence(raw: Raw, directory: Path) -> AsyncIterator[None]:
    """Runs that a test has made anew are ended after it."""
    world = World(raw, str(directory))
    yield
    request = run_service_pb2.ListRunsRequest(
        project_id={"name": "everything", "domain": "development"}, request=list_pb2.ListRequest(limit=200)
    )
    for run in (await world.list_runs(request)).runs:
        abort = run_service_pb2.AbortRunRequest(run_id=run.action.id.run)
        await world.send("/flyteidl2.workflow.RunService/AbortRun", abort, run_service_pb2.AbortRunResponse)


async def ending(raw: Raw, sent: Sent, body: bytes) -> str:
    streams = sent.method.kind.client_streams or sent.method.kind.server_streams
    answer = await raw.call(sent.method.procedure, body, streams=streams, patience=0.1)
    return answer.code


def without_org(message: Message) -> bytes:
    changed = type(message)()
    changed.CopyFrom(message)
    _clear(changed)
    return changed.SerializeToString()


def _clear(message: Message) -> None:
    if message.DESCRIPTOR.full_name == "flyteidl2.task.TaskSpec":  # a task with another org in it is another task
        return
    for name in _ORGS:
        if name in message.DESCRIPTOR.fields_by_name:
            message.ClearField(name)
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for inner in value if field.is_repeated else [value]:
            _clear(inner)


def test_the_program_does_a_little_of_everything(traffic: list[Sent]) -> None:
    """The record has what it is there for: else the tests below would say nothing."""
    rpcs = Counter(f"{sent.method.service.rpartition('.')[2]}/{sent.method.rpc}" for sent in traffic)
    assert rpcs.keys() >= {
        "ActionsService/Enqueue",
        "ActionsService/WatchForUpdates",
        "ClusterService/SelectCluster",
        "DataProxyService/CreateDownloadLink",
        "DataProxyService/CreateUploadLocation",
        "DataProxyService/GetActionData",
        "DataProxyService/TailLogs",
        "DataProxyService/UploadInputs",
        "IdentityService/UserInfo",
        "ProjectService/CreateProject",
        "ProjectService/GetProject",
        "ProjectService/ListProjects",
        "ProjectService/UpdateProject",
        "QueueService/EnqueueAction",
        "RunService/AbortRun",
        "RunService/CreateRun",
        "RunService/GetActionDetails",
        "RunService/GetRunDetails",
        "RunService/ListActions",
        "RunService/ListRuns",
        "RunService/SignalEvent",
        "RunService/WatchActionDetails",
        "StateService/Watch",
        "TaskService/DeployTask",
        "TaskService/GetTaskDetails",
        "TaskService/ListTasks",
    }


@pytest.mark.parametrize("change", ["as it was", "a field of the future", "no org"])
@pytest.mark.usefixtures("silence")
async def test_made_again(raw: Raw, traffic: list[Sent], change: str) -> None:
    """Fine, or known already: no request is wrong in itself, with or without what the server does not know."""
    for sent in traffic:
        body = {
            "as it was": sent.body,
            "a field of the future": sent.body + _FUTURE,
            "no org": without_org(sent.message),
        }[change]
        code = await ending(raw, sent, body)
        expected = {"ok", "open"} | _ONCE.get(sent.method.rpc, set())
        assert code in expected, (sent.method.procedure, code, str(sent.message)[:1500])


_ONCE = {
    "DeployTask": {"already_exists"},
    "CreateProject": {"already_exists"},
    # Parents that have ended start nothing more; what they started is answered as it is.
    "Enqueue": {"aborted"},
    "EnqueueAction": {"aborted"},
}
"""What a request may be answered when it comes a second time."""
