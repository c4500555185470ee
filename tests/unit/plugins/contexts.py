"""Attempts as plugins see them, of tasks that the SDK serialised, and what becomes of them as pods."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flyte
from flyte._internal.runtime.task_serde import translate_task_to_wire
from flyte.models import SerializationContext
from flyteidl2.task import run_pb2, task_definition_pb2
from google.protobuf import json_format

from flyte_unified.core.ids import ActionKey
from flyte_unified.core.phases import Phase
from flyte_unified.ledger.api import Action, ActionType, Run, TaskId
from flyte_unified.plugins.api import Pod, Refusal, TaskContext
from flyte_unified.plugins.pods.build import Pods
from flyte_unified.plugins.pods.config import PodConfig

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the SDK's own, whenever it reads its first type; not to be the first test's failure
    import flyte.io

KEY = ActionKey("flytesnacks", "development", "r1", "a0")


def spec_of(task: Any) -> task_definition_pb2.TaskSpec:
    """What the SDK would send for ``task``."""
    scope = {"project": KEY.project, "domain": KEY.domain, "org": "acme", "version": "v1"}
    return translate_task_to_wire(task, SerializationContext(root_dir=Path.cwd(), **scope))


def task_in(environment: flyte.TaskEnvironment) -> Any:
    """A task of this environment that takes and gives a number."""

    async def double(x: int) -> int:
        return 2 * x

    return environment.task(double)


def context_of(
    spec: task_definition_pb2.TaskSpec, *, run_spec: run_pb2.RunSpec | None = None, attempt: int = 1, **action: Any
) -> TaskContext:
    """Its attempt in a cluster with an S3 store."""
    base = "s3://bucket/runs/r1"
    return TaskContext(
        action=Action(
            key=KEY,
            parent=None,
            depth=0,
            action_type=ActionType.TASK,
            phase=Phase.QUEUED,
            created_at=1,
            updated_at=1,
            attempt=attempt,
            input_uri=f"{base}/inputs/inputs.pb",
            output_base=base,
            task=TaskId(KEY.project, KEY.domain, spec.task_template.id.name, "v1"),
            **action,
        ),
        spec=spec,
        run=Run(
            key=KEY.run_key,
            run_spec=b"",
            labels={},
            source=0,
            request_id=None,
            content="",
            output_base=base,
            start_time=1_700_000_000_000_000,
            created_by="",
            created_at=1,
        ),
        run_spec=run_spec or run_pb2.RunSpec(),
        output_prefix=f"{base}/a0/{attempt}",
        previous_prefix=f"{base}/a0/{attempt - 1}" if attempt > 1 else "",
        raw_prefix=f"s3://bucket/raw/r1/a0/{attempt}",
        endpoint="http://flyte.flyte.svc:8090/t/run-token",
        namespace="flyte",
    )


CONTAINER = {"image": "team/app:1", "args": ["a0", "--outputs-path", "{{.outputPrefix}}"]}


def spec(**template: Any) -> task_definition_pb2.TaskSpec:
    """A task by its template's JSON; a container that runs the SDK's runtime unless it says another target."""
    target = {} if {"container", "k8sPod"} & template.keys() else {"container": CONTAINER}
    identity = {"id": {"name": "env.train"}, "type": "python"}
    return json_format.ParseDict({"taskTemplate": identity | target | template}, task_definition_pb2.TaskSpec())


def pod_of(context: TaskContext, **config: Any) -> Pod:
    work = Pods(PodConfig(**config)).describe(context)
    assert isinstance(work, Pod), work
    return work


def built(template: Mapping[str, Any] | None = None, run: Mapping[str, Any] | None = None, **config: Any) -> dict[str, Any]:
    """The pod's spec."""
    run_spec = json_format.ParseDict(run or {}, run_pb2.RunSpec())
    return dict(pod_of(context_of(spec(**(template or {})), run_spec=run_spec), **config).manifest["spec"])


def refused(template: Mapping[str, Any], run: Mapping[str, Any] | None = None, **config: Any) -> str:
    run_spec = json_format.ParseDict(run or {}, run_pb2.RunSpec())
    work = Pods(PodConfig(**config)).describe(context_of(spec(**template), run_spec=run_spec))
    assert isinstance(work, Refusal)
    assert work.code == "BadTaskSpecification"
    return work.message


def env_of(container: Mapping[str, Any]) -> dict[str, Any]:
    names = [entry["name"] for entry in container["env"]]
    assert len(names) == len(set(names)), "the API server keeps the last of two, and warns"
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container["env"]}
