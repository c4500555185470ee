"""Runs and actions as they are born, for tests of the ledger."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flyteidl2.task import run_pb2, task_definition_pb2

from flyte_unified.core.clock import Micros
from flyte_unified.core.ids import ActionKey, RunKey
from flyte_unified.ledger.api import Action, EncodedSpec, NewRun, Run, TaskId, task_action

RUN = RunKey("p", "development", "r")
ROOT = RUN.action("a0")
BORN = Micros(1)
TASK = TaskId("p", "development", "env.main", "v1")


def spec(command: str = "a0") -> EncodedSpec:
    message = task_definition_pb2.TaskSpec()
    message.task_template.type = "python"
    message.task_template.container.command.append(command)
    return EncodedSpec.of(message)


def action(name: str, *, parent: str | None = "a0", **fields: Any) -> Action:
    """A queued action of ``RUN``."""
    born = task_action(RUN.action(name), spec(), now=BORN, parent=parent, input_uri=f"/in/{name}", output_base="/out")
    return replace(born, task=TASK, **fields)


def run(key: ActionKey = ROOT, *, content: str = "same", request_id: str | None = None, chosen: bool = True) -> NewRun:
    """A run with its root, named by its caller unless ``chosen`` is False."""
    new = Run(
        key=key.run_key,
        run_spec=run_pb2.RunSpec(labels=run_pb2.Labels(values={"a": "b"})).SerializeToString(),
        labels={"a": "b"},
        source=0,
        request_id=request_id,
        content=content,
        output_base="/out",
        start_time=BORN,
        created_by="ada",
        created_at=BORN,
    )
    root = replace(action("a0", parent=None), key=key)
    return NewRun(run=new, root=root, spec=spec().raw, chosen=chosen)
