"""Which plugin of a cluster a task goes to."""

from __future__ import annotations

import pytest
from flyteidl2.connector import connector_pb2
from flyteidl2.task import run_pb2, task_definition_pb2

from flyte_unified.plugins.api import Job, Pod, Refusal, Resource, TaskContext, Timer, Work
from flyte_unified.plugins.cluster import ClusterPlugins
from flyte_unified.plugins.operators.config import OperatorConfig
from flyte_unified.plugins.operators.operators import Operators
from flyte_unified.plugins.pods.build import Pods
from flyte_unified.plugins.pods.config import PodConfig
from tests.unit.plugins.contexts import context_of, spec

DURATION = {"inputs": {"variables": [{"key": "d", "value": {"type": {"simple": "DURATION"}}}]}}


def connectors(context: TaskContext) -> Job | None:
    template = context.spec.task_template
    if template.type not in ("bigquery", "databricks"):
        return None
    return Job(connectors=("c:1",), request=connector_pb2.CreateTaskRequest(template=template), input_uri="")


def described(found: task_definition_pb2.TaskSpec, run: run_pb2.RunSpec | None = None) -> Work:
    pods = Pods(PodConfig())
    return ClusterPlugins(pods=pods, operators=Operators(pods, OperatorConfig()), connectors=connectors).describe(
        context_of(found, run_spec=run)
    )


@pytest.mark.parametrize(
    ("found", "work"),
    [
        (spec(), Pod),
        (spec(type="python-task"), Pod),
        (spec(type="of-the-future"), Pod),
        (spec(type="core-sleep", interface=DURATION), Timer),
        (spec(type="pytorch", custom={"workers": 1}), Resource),
        (spec(type="clustered", custom={"replicas": 1, "nprocPerNode": 1}), Resource),
        (spec(type="databricks"), Job),
        (task_definition_pb2.TaskSpec(task_template={"type": "bigquery"}), Job),
    ],
)
def test_a_task_goes_to_the_plugin_of_its_type(found: task_definition_pb2.TaskSpec, work: type[Work]):
    """Connectors come before pods: their tasks may bring a container that is not to be run."""
    assert isinstance(described(found), work)


def test_a_task_that_nothing_runs():
    """Is refused; without connectors theirs are, too."""
    nobody = described(task_definition_pb2.TaskSpec(task_template={"type": "snowflake"}))
    assert isinstance(nobody, Refusal) and nobody.code == "UnsupportedTaskType" and "snowflake" in nobody.message
    pods = Pods(PodConfig())
    alone = ClusterPlugins(pods=pods, operators=Operators(pods, OperatorConfig()))
    assert isinstance(alone.describe(context_of(spec(type="databricks"))), Pod)


def test_debug_mode_needs_a_link() -> None:
    """Where nothing leads to the editor the client would wait for ever; a link that the task brings is told as it is."""
    run = run_pb2.RunSpec(envs={"values": [{"key": "_F_E_VS", "value": "1"}]})
    refused = described(spec(), run)
    assert isinstance(refused, Refusal) and refused.code == "DebugUnavailable"
    links = [{"name": "VS Code Debugger", "uri": "/ide/{{.podName}}/", "linkType": "IDE"}]
    work = described(spec(metadata={"logLinks": links}), run)
    assert isinstance(work, Pod)
    (link,) = work.links
    assert link.ready and link.uri.startswith("/ide/") and "{{" not in link.uri
    assert isinstance(described(spec(), run_pb2.RunSpec(envs={"values": [{"key": "_F_E_VS", "value": "0"}]})), Pod)
