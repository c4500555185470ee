"""How a task's action begins."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from flyteidl2.task import task_definition_pb2

from flyte_unified.core.clock import Micros
from flyte_unified.core.ids import ActionKey
from flyte_unified.core.phases import Phase
from flyte_unified.ledger.model import Action, ActionType, TaskId
from flyte_unified.ledger.moves import first_record


class EncodedSpec(NamedTuple):
    """A task spec as it is stored: under the SHA-256 of its bytes, in hex."""

    digest: str
    raw: bytes
    message: task_definition_pb2.TaskSpec

    @classmethod
    def of(cls, message: task_definition_pb2.TaskSpec) -> EncodedSpec:
        raw = message.SerializeToString(deterministic=True)
        return cls(hashlib.sha256(raw).hexdigest(), raw, message)


def task_action(
    key: ActionKey,
    spec: EncodedSpec,
    *,
    now: Micros,
    parent: str | None,
    input_uri: str,
    output_base: str,
    group: str = "",
    cache_key: str = "",
    queue: str = "",
) -> Action:
    """A task's action, queued."""
    task = spec.message
    template = task.task_template
    return Action(
        key=key,
        parent=parent,
        depth=0,
        action_type=ActionType.TASK,
        group_name=group,
        phase=Phase.QUEUED,
        created_at=now,
        updated_at=now,
        task=TaskId(template.id.project, template.id.domain, template.id.name, template.id.version),
        task_type=template.type,
        short_name=task.short_name,
        environment_name=task.environment.name,
        spec_digest=spec.digest,
        input_uri=input_uri,
        output_base=output_base,
        cache_key=cache_key,
        queue=queue,
        record=first_record(Phase.QUEUED, at=now).SerializeToString(),
    )
