"""Which tasks are a connector's, and what it is told of them."""

from __future__ import annotations

import pytest
from flyteidl2.task import run_pb2
from google.protobuf import json_format

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.plugins import registry
from flyte_unified.plugins.api import Container, Job, Process, Refusal, TaskContext, Timer, Work
from flyte_unified.plugins.connectors import Connectors
from tests.unit.plugins.contexts import context_of, spec

IMAGE = {"image": "img"}
PROGRAM = {"image": "img", "args": ["a0", "--outputs-path", "{{.outputPrefix}}"]}
DURATION = {"inputs": {"variables": [{"key": "length", "value": {"type": {"simple": "DURATION"}}}]}}


def described(context: TaskContext, *endpoints: str) -> Work:
    return registry.describe(context, connectors=Connectors(endpoints).describe)


def job(context: TaskContext, *endpoints: str) -> Job:
    work = described(context, *endpoints)
    assert isinstance(work, Job), work
    return work


@pytest.mark.parametrize(
    ("endpoints", "task", "addresses"),
    [
        (["query=a:1", "b:1"], {"type": "query", "container": None}, ("a:1",)),
        (["query=a:1"], {"type": "query", "container": PROGRAM}, ("a:1",)),
        (["spark=a:1"], {"type": "spark", "container": PROGRAM}, ("a:1",)),
        (["b:1", "grpcs://c:1"], {"type": "query", "container": None}, ("b:1", "grpcs://c:1")),
        (["b:1"], {"type": "query", "container": IMAGE}, ("b:1",)),
    ],
)
def test_a_job(endpoints: list[str], task: dict[str, object], addresses: tuple[str, ...]) -> None:
    """A type that was given to a connector is its, whatever it brings; a bare address is asked for what brings no program."""
    given = {name: value for name, value in task.items() if value is not None}
    context = context_of(spec(**given))
    if "container" not in given:
        context.spec.task_template.ClearField("container")
    assert job(context, *endpoints).connectors == addresses


@pytest.mark.parametrize(
    ("task", "kind"),
    [
        ({"type": "python-task", "container": PROGRAM}, Process),
        ({"type": "anything", "container": PROGRAM}, Process),
        ({"type": "raw-container", "container": IMAGE}, Container),
        ({"type": "core-sleep", "interface": DURATION, "container": IMAGE}, Timer),
    ],
)
def test_no_job(task: dict[str, object], kind: type) -> None:
    """What brings its own program is not asked for."""
    assert isinstance(described(context_of(spec(**task)), "b:1"), kind)


def test_a_task_without_program_needs_a_connector() -> None:
    """The refusal says what would run it."""
    work = described(context_of(spec(type="query", container=IMAGE)))
    assert work == Refusal(
        "UnsupportedTaskType", "a task of type 'query' is run by a connector, and connectors.endpoints names none"
    )


def test_what_a_connector_is_told() -> None:
    """Whose attempt it is, what the run asks for, and the task with its variables put in."""
    run = run_pb2.RunSpec()
    run.labels.values["team"] = "soil"
    run.annotations.values["note"] = "wet"
    run.envs.values.add(key="COLOUR", value="red")
    run.interruptible.value = True
    run.security_context.run_as.k8s_service_account = "farmer"
    task = spec(
        type="query",
        container=PROGRAM,
        custom={"configs": {"region": "north", "size": 3}, "task_type": "q"},
        metadata={"retries": {"retries": 2}, "metadata": {"labels": {"team": "sand", "crop": "rye"}}},
    )
    request = job(context_of(task, run_spec=run, attempt=2), "query=a:1").request
    told = json_format.MessageToDict(request.task_execution_metadata)
    execution = told["taskExecutionId"]
    assert execution["retryAttempt"] == 1
    assert execution["nodeExecutionId"]["nodeId"] == "a0"
    assert execution["nodeExecutionId"]["executionId"]["name"] == "r1"
    assert told["maxAttempts"] == 3
    assert told["interruptible"] is True
    assert told["k8sServiceAccount"] == told["identity"]["k8sServiceAccount"] == "farmer"
    assert {name: told["labels"][name] for name in ("team", "crop", "run")} == {"team": "soil", "crop": "rye", "run": "r1"}
    assert told["annotations"] == {"note": "wet"}
    assert told["environmentVariables"]["COLOUR"] == "red"
    assert told["environmentVariables"]["ACTION_NAME"] == "a0"
    assert request.output_prefix
    assert list(request.template.container.args)[-1] == request.output_prefix
    assert dict(request.connection.configs) == {"region": "north"}
    assert request.connection.task_type == "q"
    assert "{{.outputPrefix}}" in task.task_template.container.args


def test_a_connector_that_starts_no_program_gets_no_way_to_the_server() -> None:
    """The run's token stays here."""
    context = context_of(spec(type="query", container=IMAGE))
    context.spec.task_template.ClearField("container")
    assert dict(job(context, "b:1").request.task_execution_metadata.environment_variables) == {}


def test_secrets_go_by_name() -> None:
    """Their values are put in just before a call."""
    context = context_of(spec(type="query", container=IMAGE, custom={"secrets": {"key": "farm-key"}}))
    assert dict(job(context, "b:1").request.connection.secrets) == {"key": "farm-key"}


@pytest.mark.parametrize("endpoints", [["farm"], ["query=farm"], ["query="], ["query=a:1", "query=b:1"]])
def test_endpoints_that_are_none(endpoints: list[str]) -> None:
    """Name the setting."""
    with pytest.raises(InvalidArgument, match=r"connectors\.endpoints"):
        Connectors(endpoints)
