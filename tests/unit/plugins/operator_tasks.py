"""Tasks of operators' types, and what becomes of them."""

from __future__ import annotations

from typing import Any

from flyteidl2.plugins import ray_pb2
from flyteidl2.task import run_pb2, task_definition_pb2
from google.protobuf import json_format
from google.protobuf.message import Message

from flyte_unified.plugins.api import Refusal, Resource
from flyte_unified.plugins.operators.config import OperatorConfig
from flyte_unified.plugins.operators.operators import Operators
from flyte_unified.plugins.pods.build import Pods
from flyte_unified.plugins.pods.config import PodConfig
from tests.unit.plugins.contexts import context_of, spec

SPOT = {"key": "spot", "operator": "Exists"}
CLUSTER = PodConfig(
    environment={"TEAM": "blue"},
    interruptible_tolerations=(SPOT,),
    templates=lambda namespace, name: {
        "template": {
            "spec": {"containers": [{"name": "default", "env": [{"name": "BASE", "value": "1"}]}], "hostNetwork": True}
        }
    },
)
COMMAND = ["a0", "--outputs-path", "s3://bucket/runs/r1/a0/1"]


def json_of(message: Message) -> dict[str, Any]:
    """As the SDK puts it into ``custom``."""
    return json_format.MessageToDict(message)


def task(kind: str, custom: dict[str, Any] | Message, **template: Any) -> task_definition_pb2.TaskSpec:
    said = json_of(custom) if isinstance(custom, Message) else custom
    return spec(type=kind, custom=said, **template)


def resource_of(found: task_definition_pb2.TaskSpec, config: OperatorConfig | None = None, **run: Any) -> Resource:
    context = context_of(found, run_spec=json_format.ParseDict(run, run_pb2.RunSpec()))
    work = Operators(Pods(CLUSTER), config or OperatorConfig()).describe(context)
    assert isinstance(work, Resource), work
    return work


def built(found: task_definition_pb2.TaskSpec, config: OperatorConfig | None = None, **run: Any) -> dict[str, Any]:
    return dict(resource_of(found, config, **run).manifest["spec"])


def refused(found: task_definition_pb2.TaskSpec) -> str:
    work = Operators(Pods(CLUSTER), OperatorConfig()).describe(context_of(found))
    assert isinstance(work, Refusal) and work.code == "BadTaskSpecification", work
    return work.message


def main(template: dict[str, Any], name: str) -> dict[str, Any]:
    [container] = [container for container in template["spec"]["containers"] if container["name"] == name]
    return dict(container)


def tolerates(template: dict[str, Any]) -> bool:
    return SPOT in template["spec"].get("tolerations", ())


SPARK = {"mainApplicationFile": "local:///opt/venv/bin/runtime.py", "executorPath": "/opt/venv/bin/python"}


def ray(**more: Any) -> ray_pb2.RayJob:
    group = {"groupName": "gpus", "replicas": 2, "minReplicas": 1, "maxReplicas": 4}
    return json_format.ParseDict({"rayCluster": {"workerGroupSpec": [group]}} | more, ray_pb2.RayJob())
