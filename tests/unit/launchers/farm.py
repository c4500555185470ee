"""Connectors that a test plays, and a launcher of their jobs on a real database and a real directory; time is virtual."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from flyteidl2.connector import connector_pb2
from flyteidl2.core import execution_pb2, interface_pb2
from flyteidl2.task import common_pb2
from google.protobuf.message import Message

from flyte_unified.core.errors import FlyteUnifiedError
from flyte_unified.launchers.api import Attempt, Ended, Event, WorkId
from flyte_unified.launchers.connectors.launcher import ConnectorLauncher
from flyte_unified.net.connectors import ConnectorClient
from flyte_unified.plugins.api import Exit, Job
from tests.unit.executor.world import ROOT, World, world_in

Phases = execution_pb2.TaskExecution
WORK = WorkId(ROOT, 1)
POLL = 10.0


def resource(phase: Phases.Phase, message: str = "", *, outputs: tuple[str, ...] | None = None) -> connector_pb2.Resource:
    made = connector_pb2.Resource(phase=phase, message=message)
    if outputs is not None:
        made.outputs.CopyFrom(common_pb2.Outputs())
        for name in outputs:
            made.outputs.literals.add(name=name)
    return made


class Farm(ConnectorClient):
    """What it is asked for, and what it answers: ``states`` one after the other, the last for ever.

    ``troubles`` by method come first. ``gate`` holds whoever creates.
    """

    def __init__(self, *states: connector_pb2.Resource) -> None:
        super().__init__(timeout=1.0)
        self.states = list(states)
        self.troubles: dict[str, list[FlyteUnifiedError]] = {}
        self.calls: Counter[str] = Counter()
        self.times: list[float] = []
        self.created: list[connector_pb2.CreateTaskRequest] = []
        self.deleted: list[bytes] = []
        self.runs: dict[str, list[str]] = {}
        self.pages: list[connector_pb2.GetTaskLogsResponse] = []
        self.creating = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def create(self, address: str, request: connector_pb2.CreateTaskRequest) -> bytes:
        await self._asked("create")
        self.created.append(request)
        self.creating.set()
        await self.gate.wait()
        return f"job {len(self.created)} at {address}".encode()

    async def get(self, address: str, request: connector_pb2.GetTaskRequest) -> connector_pb2.Resource:
        self.times.append(asyncio.get_running_loop().time())
        await self._asked("get")
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    async def delete(self, address: str, request: connector_pb2.DeleteTaskRequest) -> None:
        await self._asked("delete")
        self.deleted.append(request.resource_meta)

    async def categories(self, address: str) -> list[connector_pb2.TaskCategory]:
        await self._asked(f"categories of {address}")
        return [connector_pb2.TaskCategory(name=name) for name in self.runs.get(address, [])]

    async def logs(
        self, address: str, request: connector_pb2.GetTaskLogsRequest
    ) -> AsyncGenerator[connector_pb2.GetTaskLogsResponse]:
        await self._asked("logs")
        for page in self.pages:
            yield page

    async def _asked(self, method: str) -> None:
        await asyncio.sleep(0)
        self.calls[method] += 1
        if self.troubles.get(method):
            raise self.troubles[method].pop(0)


@dataclass
class Stand:
    """One server after the other, on the same database."""

    world: World
    farm: Farm
    events: list[Event] = field(default_factory=list)
    secrets: dict[str, bytes | FlyteUnifiedError] = field(default_factory=dict)
    """By name the value, or why there is none."""
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    @asynccontextmanager
    async def server(self) -> AsyncIterator[tuple[ConnectorLauncher, list[Event]]]:
        """And what it found."""
        self.events.clear()
        launcher = ConnectorLauncher(
            client=self.farm,
            database=self.world.database,
            store=self.world.store,
            clock=self.world.clock,
            poll=POLL,
            logs=f"{self.world.base}/_logs",
            log_limit=1 << 20,
            reveal=self.reveal,
        )
        found = await launcher.start(self._heard)
        try:
            yield launcher, found
        finally:
            await launcher.close()

    async def reveal(self, project: str, domain: str, name: str) -> bytes:
        found = self.secrets[name]
        if isinstance(found, FlyteUnifiedError):
            raise found
        return found

    def job(self, *connectors: str, outputs: tuple[str, ...] = ()) -> Attempt:
        request = connector_pb2.CreateTaskRequest(output_prefix=f"{self.world.base}/r1/a0/1")
        request.template.type = "farm"
        for name in outputs:
            request.template.interface.outputs.variables.append(interface_pb2.VariableEntry(key=name))
        uri = f"{self.world.base}/r1/inputs.pb"
        return Attempt(id=WORK, work=Job(connectors=connectors or ("c:1",), request=request, input_uri=uri))

    async def until(self, holds: Callable[[], object]) -> None:
        async with self._news:
            await self._news.wait_for(lambda: bool(holds()))

    async def ended(self) -> Exit:
        await self.until(lambda: any(isinstance(event, Ended) for event in self.events))
        return next(event.exit for event in self.events if isinstance(event, Ended))

    def told(self) -> list[str]:
        """Cluster events."""
        details = [event.details for event in self.events if event.details is not None]
        return [happened.message for record in details for happened in record.cluster_events]

    def _heard(self, event: Event) -> None:
        self.events.append(event)
        self._telling = asyncio.create_task(self._tell())

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()


@asynccontextmanager
async def standing(directory: Path, *states: connector_pb2.Resource) -> AsyncIterator[Stand]:
    async with world_in(directory) as world:
        inputs: Message = common_pb2.Inputs()
        await world.store.put(f"{world.base}/r1/inputs.pb", inputs.SerializeToString())
        yield Stand(world, Farm(*states))
