"""What one server takes of CreateRun and Enqueue, each answered only when it is durable."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from flyteidl2.actions import actions_service_pb2 as actions_pb2
from flyteidl2.core import identifier_pb2, interface_pb2, literals_pb2, tasks_pb2, types_pb2
from flyteidl2.dataproxy import dataproxy_service_pb2 as dataproxy_pb2
from flyteidl2.task import common_pb2, run_pb2, task_definition_pb2
from flyteidl2.workflow import run_service_pb2
from google.protobuf.duration_pb2 import Duration

from flyte_unified.core.ids import RunKey
from tests.benchmarks.harness import RawClient, Server, request

_PROJECT, _DOMAIN = "flytesnacks", "development"
_HOUR = timedelta(hours=1)


def sleep_spec(name: str) -> task_definition_pb2.TaskSpec:
    """A ``core-sleep`` task: the control plane's whole way, and no process. Padded to the size of a real Python task."""
    duration = interface_pb2.Variable(type=types_pb2.LiteralType(simple=types_pb2.DURATION))
    inputs = interface_pb2.VariableMap(variables=[interface_pb2.VariableEntry(key="d", value=duration)])
    template = tasks_pb2.TaskTemplate(
        id=identifier_pb2.Identifier(project=_PROJECT, domain=_DOMAIN, name=name, version="1"),
        type="core-sleep",
        interface=interface_pb2.TypedInterface(inputs=inputs),
        container=tasks_pb2.Container(image="none", args=["a0", *(f"--argument-{number}" for number in range(200))]),
    )
    return task_definition_pb2.TaskSpec(task_template=template, short_name=name)


def sleep_inputs(time: timedelta) -> common_pb2.Inputs:
    duration = Duration()
    duration.FromTimedelta(time)
    literal = literals_pb2.Literal(scalar=literals_pb2.Scalar(primitive=literals_pb2.Primitive(duration=duration)))
    return common_pb2.Inputs(literals=[common_pb2.NamedLiteral(name="d", value=literal)])


async def upload(client: RawClient, inputs: common_pb2.Inputs) -> run_pb2.OffloadedInputData:
    message = dataproxy_pb2.UploadInputsRequest(task_spec=sleep_spec("nap"), inputs=inputs)
    message.project_id.name, message.project_id.domain = _PROJECT, _DOMAIN
    answer = await client.call(
        "/flyteidl2.dataproxy.DataProxyService/UploadInputs", message, dataproxy_pb2.UploadInputsResponse
    )
    assert isinstance(answer, dataproxy_pb2.UploadInputsResponse)
    return answer.offloaded_input_data


def create_run(name: str, inputs: run_pb2.OffloadedInputData) -> bytes:
    message = run_service_pb2.CreateRunRequest(task_spec=sleep_spec("nap"), offloaded_input_data=inputs)
    message.run_id.CopyFrom(RunKey(_PROJECT, _DOMAIN, name).idl())
    return request("/flyteidl2.workflow.RunService/CreateRun", message)


def enqueue(run: str, name: str, inputs: run_pb2.OffloadedInputData) -> bytes:
    key = RunKey(_PROJECT, _DOMAIN, run).action(name)
    action = actions_pb2.Action(
        action_id=key.idl(),
        parent_action_name="a0",
        input_uri=inputs.uri,
        run_output_base=inputs.uri.removesuffix("/inputs.pb"),
    )
    action.task.spec.CopyFrom(sleep_spec("nap"))
    return request("/flyteidl2.actions.ActionsService/Enqueue", actions_pb2.EnqueueRequest(action=action))


async def create_rate(server: Server, count: int, prefix: str) -> float:
    """CreateRun per second, 16 in flight; each run ends at once."""
    client = RawClient(server.port)
    inputs = await upload(client, sleep_inputs(timedelta(0)))
    return await client.rate(count, 16, lambda index: create_run(f"{prefix}{index}", inputs))


async def enqueue_rate(server: Server, count: int, run: str, time: timedelta) -> float:
    """Enqueue per second, 64 in flight, children of one root that sleeps; each sleeps for ``time``."""
    client = RawClient(server.port)
    long, own = await asyncio.gather(upload(client, sleep_inputs(_HOUR)), upload(client, sleep_inputs(time)))
    await client.rate(1, 1, lambda _: create_run(run, long))
    return await client.rate(count, 64, lambda index: enqueue(run, f"n{index}", own))
