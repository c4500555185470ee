"""A connector, served by ``c0 --modules farm``. Its jobs are directories below the one that their task names.

Whoever looks there sees what the connector was asked for; who makes a file ``go`` there ends a job that waits for it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flyte.connectors import AsyncConnector, ConnectorRegistry, Resource, ResourceMeta
from flyteidl2.connector import connector_pb2
from flyteidl2.core.execution_pb2 import TaskExecution, TaskLog
from flyteidl2.core.tasks_pb2 import TaskTemplate
from flyteidl2.logs.dataplane import payload_pb2
from google.protobuf import json_format

Answer = connector_pb2.GetTaskLogsResponse

PHASES = {
    "succeeds": (TaskExecution.QUEUED, TaskExecution.RUNNING, TaskExecution.SUCCEEDED),
    "watered": (TaskExecution.RUNNING, TaskExecution.SUCCEEDED),
    "forgets": (TaskExecution.RUNNING, TaskExecution.SUCCEEDED),
    "fails": (TaskExecution.INITIALIZING, TaskExecution.FAILED),
    "stumbles": (TaskExecution.RUNNING, TaskExecution.RETRYABLE_FAILED),
    "cancelled": (TaskExecution.RUNNING, TaskExecution.ABORTED),
    "held": (TaskExecution.WAITING_FOR_RESOURCES, TaskExecution.RUNNING),
}


@dataclass
class Field(ResourceMeta):
    """A job."""

    place: str
    behaviour: str
    number: int


class Farm(AsyncConnector[Field]):
    name = "Farm"
    task_type_name = "farm"
    metadata_type = Field

    async def create(
        self,
        task_template: TaskTemplate,
        output_prefix: str,
        inputs: dict[str, Any] | None = None,
        task_execution_metadata: connector_pb2.TaskExecutionMetadata | None = None,
        **configs: str,
    ) -> Field:
        custom = json_format.MessageToDict(task_template.custom)
        metadata = json_format.MessageToDict(task_execution_metadata) if task_execution_metadata is not None else {}
        behaviour = custom["behaviour"]
        if behaviour == "refused":
            raise ValueError("the farm is full")
        if behaviour == "stumbles" and metadata["taskExecutionId"].get("retryAttempt"):
            behaviour = "succeeds"
        place = Path(custom["farm"], f"{task_template.id.name}-{uuid.uuid4().hex}")
        place.mkdir()
        asked = {"inputs": inputs, "output_prefix": output_prefix, "metadata": metadata, "configs": configs}
        Path(place, "asked").write_text(json.dumps(asked))
        return Field(str(place), behaviour, (inputs or {}).get("x", 0))

    async def get(self, resource_meta: Field, **configs: str) -> Resource:
        place = Path(resource_meta.place)
        looks = place / "looks"
        seen = len(looks.read_text()) if looks.exists() else 0
        looks.write_text("." * (seen + 1))
        (place / "water").write_text(configs.get("water", ""))
        phases = PHASES[resource_meta.behaviour]
        phase = phases[min(seen, len(phases) - 1)]
        if (place / "go").exists():
            phase = TaskExecution.SUCCEEDED
        done = phase == TaskExecution.SUCCEEDED and resource_meta.behaviour != "forgets"
        return Resource(
            phase=phase,
            message=f"the job {resource_meta.behaviour}",
            log_links=[TaskLog(name="Field", uri=f"http://farm/{place.name}")],
            outputs={"o0": resource_meta.number * 2} if done else None,
        )

    async def delete(self, resource_meta: Field, **configs: str) -> None:
        Path(resource_meta.place, "deleted").touch()

    async def get_logs(
        self, resource_meta: Field, token: str = "", **_: Any
    ) -> AsyncIterator[connector_pb2.GetTaskLogsResponse]:
        """Two pages of two lines."""
        first = int(token or 0)
        body = connector_pb2.GetTaskLogsResponseBody()
        for number in range(first, first + 2):
            line = body.lines.add(message=f"row {number}", originator=payload_pb2.USER)
            line.timestamp.FromSeconds(1_700_000_000 + number)
        yield Answer(body=body)
        header = connector_pb2.GetTaskLogsResponseHeader(token="2" if first == 0 else "")
        yield Answer(header=header)


class SilentFarm(Farm):
    """Without logs."""

    name = "Silent farm"
    task_type_name = "silent_farm"

    def get_logs(self, resource_meta: Field, **_: Any) -> Any:
        raise NotImplementedError


ConnectorRegistry.register(Farm())
ConnectorRegistry.register(SilentFarm())
