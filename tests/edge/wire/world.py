"""What the tests' server holds, put there over the wire, and a valid request of every RPC that it answers.

Tasks are ``core-sleep``: the whole way of the control plane, and no process.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from flyteidl2.actions import actions_service_pb2 as actions_pb2
from flyteidl2.common import identifier_pb2, list_pb2, phase_pb2
from flyteidl2.common import run_pb2 as common_run_pb2
from flyteidl2.core import identifier_pb2 as core_identifier_pb2
from flyteidl2.core import interface_pb2, literals_pb2, tasks_pb2, types_pb2
from flyteidl2.dataproxy import dataproxy_service_pb2 as dataproxy_pb2
from flyteidl2.task import common_pb2, task_definition_pb2
from flyteidl2.workflow import run_definition_pb2, run_service_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from tests.edge.wire.raw import Answer, Raw

PROJECT, DOMAIN = "flytesnacks", "development"
RUNS = "/flyteidl2.workflow.RunService/"
TRACKED = "/flyteidl2.workflow.TrackedRunService/"
ACTIONS = "/flyteidl2.actions.ActionsService/"
DATA = "/flyteidl2.dataproxy.DataProxyService/"
HOUR = timedelta(hours=1)

M = TypeVar("M", bound=Message)

_numbers = itertools.count(1)


def new_name(prefix: str) -> str:
    """A name that no other test has."""
    return f"{prefix}{next(_numbers)}"


def action_id(run: str, name: str = "a0") -> identifier_pb2.ActionIdentifier:
    return identifier_pb2.ActionIdentifier(run=run_id(run), name=name)


def run_id(run: str) -> identifier_pb2.RunIdentifier:
    return identifier_pb2.RunIdentifier(org="acme", project=PROJECT, domain=DOMAIN, name=run)


def project_id() -> identifier_pb2.ProjectIdentifier:
    return identifier_pb2.ProjectIdentifier(organization="acme", name=PROJECT, domain=DOMAIN)


def trigger_name(name: str, task: str) -> identifier_pb2.TriggerName:
    return identifier_pb2.TriggerName(org="acme", project=PROJECT, domain=DOMAIN, name=name, task_name=task)


def nap_spec(name: str = "nap", *, version: str = "1") -> task_definition_pb2.TaskSpec:
    duration = interface_pb2.Variable(type=types_pb2.LiteralType(simple=types_pb2.DURATION))
    inputs = interface_pb2.VariableMap(variables=[interface_pb2.VariableEntry(key="d", value=duration)])
    template = tasks_pb2.TaskTemplate(
        id=core_identifier_pb2.Identifier(project=PROJECT, domain=DOMAIN, name=name, version=version),
        type="core-sleep",
        interface=interface_pb2.TypedInterface(inputs=inputs),
    )
    return task_definition_pb2.TaskSpec(task_template=template, short_name=name)


def nap_inputs(time: timedelta) -> common_pb2.Inputs:
    duration = Duration()
    duration.FromTimedelta(time)
    literal = literals_pb2.Literal(scalar=literals_pb2.Scalar(primitive=literals_pb2.Primitive(duration=duration)))
    return common_pb2.Inputs(literals=[common_pb2.NamedLiteral(name="d", value=literal)])


def truth(value: bool) -> literals_pb2.Literal:
    return literals_pb2.Literal(scalar=literals_pb2.Scalar(primitive=literals_pb2.Primitive(boolean=value)))


@dataclass(slots=True)
class World:
    """Runs and actions by the messages that make them. ``directory``: where the storage is."""

    raw: Raw
    directory: str

    async def send(self, procedure: str, message: Message, answer: type[M], *, token: str = "") -> M:
        """The answer to a call that is fine."""
        told = await self.raw.call(procedure, message, token=token)
        assert told.code == "ok", f"{procedure}: {told}"
        return answer.FromString(told.bodies[0])

    async def create(self, name: str, time: timedelta = HOUR, *, spec: task_definition_pb2.TaskSpec | None = None) -> None:
        await self.send(RUNS + "CreateRun", create_run(name, time, spec=spec), run_service_pb2.CreateRunResponse)

    async def enqueue(self, run: str, name: str, time: timedelta = HOUR, *, parent: str = "a0") -> None:
        request = await self.enqueue_request(run, name, time, parent=parent)
        await self.send(ACTIONS + "Enqueue", request, actions_pb2.EnqueueResponse)

    async def enqueue_request(self, run: str, name: str, time: timedelta, *, parent: str = "a0") -> actions_pb2.EnqueueRequest:
        inputs = await self.upload(time)
        action = actions_pb2.Action(
            action_id=action_id(run, name),
            parent_action_name=parent,
            input_uri=inputs.uri,
            run_output_base=f"{self.directory}/storage/{PROJECT}/{DOMAIN}/{run}",
            group="pair",
        )
        action.task.spec.CopyFrom(nap_spec("child"))
        return actions_pb2.EnqueueRequest(action=action)

    async def condition(self, run: str, name: str, *, parent: str = "a0") -> None:
        await self.send(ACTIONS + "Enqueue", condition_request(run, name, parent=parent), actions_pb2.EnqueueResponse)

    async def upload(self, time: timedelta) -> common_run_pb2.OffloadedInputData:
        request = dataproxy_pb2.UploadInputsRequest(project_id=project_id(), task_spec=nap_spec(), inputs=nap_inputs(time))
        return (await self.send(DATA + "UploadInputs", request, dataproxy_pb2.UploadInputsResponse)).offloaded_input_data

    async def ended(self, run: str, name: str = "a0") -> run_definition_pb2.ActionDetails:
        """The action when it has ended."""
        request = run_service_pb2.WatchActionDetailsRequest(action_id=action_id(run, name))
        answer = await self.raw.call(RUNS + "WatchActionDetails", request, streams=True, patience=4)
        assert answer.code == "ok", answer
        return run_service_pb2.WatchActionDetailsResponse.FromString(answer.bodies[-1]).details

    async def details(self, run: str, name: str = "a0") -> run_definition_pb2.ActionDetails:
        request = run_service_pb2.GetActionDetailsRequest(action_id=action_id(run, name))
        return (await self.send(RUNS + "GetActionDetails", request, run_service_pb2.GetActionDetailsResponse)).details

    async def abort(self, run: str) -> None:
        request = run_service_pb2.AbortRunRequest(run_id=run_id(run), reason="the test is over")
        await self.send(RUNS + "AbortRun", request, run_service_pb2.AbortRunResponse)

    async def list_runs(self, request: run_service_pb2.ListRunsRequest) -> run_service_pb2.ListRunsResponse:
        return await self.send(RUNS + "ListRuns", request, run_service_pb2.ListRunsResponse)


def create_run(
    name: str, time: timedelta = HOUR, *, spec: task_definition_pb2.TaskSpec | None = None
) -> run_service_pb2.CreateRunRequest:
    return run_service_pb2.CreateRunRequest(run_id=run_id(name), task_spec=spec or nap_spec(), inputs=nap_inputs(time))


def condition_request(run: str, name: str, *, parent: str = "a0") -> actions_pb2.EnqueueRequest:
    action = actions_pb2.Action(action_id=action_id(run, name), parent_action_name=parent)
    action.condition.name = "sure"
    action.condition.prompt = "Sure?"
    action.condition.type.simple = types_pb2.BOOLEAN
    return actions_pb2.EnqueueRequest(action=action)


def trace_request(run: str, name: str, *, parent: str = "a0") -> actions_pb2.EnqueueRequest:
    action = actions_pb2.Action(action_id=action_id(run, name), parent_action_name=parent)
    action.trace.name = "spelled"
    action.trace.phase = phase_pb2.ACTION_PHASE_SUCCEEDED
    action.trace.start_time.GetCurrentTime()
    action.trace.end_time.GetCurrentTime()
    return actions_pb2.EnqueueRequest(action=action)


def where(field: str, *values: str, function: int = list_pb2.Filter.EQUAL) -> list_pb2.Filter:
    return list_pb2.Filter(function=function, field=field, values=values)


def parsed(answer: Answer, message: type[M]) -> Sequence[M]:
    """The messages of a stream."""
    return [message.FromString(body) for body in answer.bodies]
