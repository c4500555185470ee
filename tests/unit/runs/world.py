"""What the tests of runs and events stand on: real rooms, and a few words to set a scene."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from flyteidl2.actions import actions_service_pb2
from flyteidl2.common import identifier_pb2
from flyteidl2.core import execution_pb2, interface_pb2, literals_pb2, types_pb2
from flyteidl2.task import common_pb2, run_pb2, task_definition_pb2
from flyteidl2.workflow import run_service_pb2

from flyte_unified.actions.recovery import Recovery
from flyte_unified.actions.service import Actions
from flyte_unified.artifacts.elsewhere import ProducedElsewhere
from flyte_unified.artifacts.produced import Produced
from flyte_unified.artifacts.service import Artifacts
from flyte_unified.core.clock import Micros, SystemClock
from flyte_unified.core.context import CallContext, Identity
from flyte_unified.core.errors import NotFound
from flyte_unified.core.ids import ActionKey, RunKey
from flyte_unified.core.phases import Phase
from flyte_unified.core.queues import Queues
from flyte_unified.db.api import Database
from flyte_unified.ledger.api import Action, Ledger, Move, TaskId
from flyte_unified.notifications.rules import Names
from flyte_unified.notifications.service import Notifications
from flyte_unified.runs.create import Creator
from flyte_unified.runs.details import Reader
from flyte_unified.runs.handlers import RunsHandlers
from flyte_unified.settings_service.api import ScopedSettings
from flyte_unified.storage.local import LocalStore
from flyte_unified.storage.signing import Signer
from flyte_unified.triggers.api import Triggers

ORG = "acme"
R1 = RunKey("p", "development", "r1")
A0 = R1.action("a0")


def context(subject: str = "", *, request_id: str = "") -> CallContext:
    headers = (("x-request-id", request_id),) if request_id else ()
    return CallContext("/test", headers=headers, identity=Identity(subject))


class SteppingClock:
    """A second passes with every look at it, so that no two times are equal."""

    def __init__(self) -> None:
        self._seconds = count(1_700_000_000)
        self.ahead = 0

    def now(self) -> Micros:
        return Micros((next(self._seconds) + self.ahead) * 1_000_000)

    def monotonic(self) -> float:
        return SystemClock().monotonic()


def task_spec(name: str = "env.main", *, version: str = "v1", **inputs: int) -> task_definition_pb2.TaskSpec:
    """A task whose inputs have the given simple types; ``b`` has the default 7."""
    spec = task_definition_pb2.TaskSpec(short_name=name.split(".")[-1])
    template = spec.task_template
    template.type = "python"
    template.id.project, template.id.domain, template.id.name, template.id.version = "p", "development", name, version
    template.container.args[:] = ["a0", "--inputs", "{{.input}}"]
    template.interface.SetInParent()
    for key, simple in inputs.items():
        variable = interface_pb2.Variable(type=types_pb2.LiteralType(simple=simple))
        template.interface.inputs.variables.append(interface_pb2.VariableEntry(key=key, value=variable))
        if key == "b":
            default = spec.default_inputs.add(name=key)
            default.parameter.var.CopyFrom(variable)
            default.parameter.default.CopyFrom(integer(7))
    spec.environment.name = name.split(".")[0]
    return spec


def integer(value: int) -> literals_pb2.Literal:
    return literals_pb2.Literal(scalar=literals_pb2.Scalar(primitive=literals_pb2.Primitive(integer=value)))


def inputs(**values: int) -> common_pb2.Inputs:
    return common_pb2.Inputs(
        literals=[common_pb2.NamedLiteral(name=name, value=integer(value)) for name, value in values.items()]
    )


@dataclass
class Specs:
    tasks: dict[TaskId, task_definition_pb2.TaskSpec] = field(default_factory=dict)

    async def of_task(self, task: TaskId) -> task_definition_pb2.TaskSpec:
        if task not in self.tasks:
            raise NotFound(f"there is no task {task}")
        return self.tasks[task]

    async def of_trigger(self, task: TaskId, trigger: str) -> task_definition_pb2.TaskSpec:
        raise NotFound(f"there is no trigger {trigger} of {task}")


@dataclass
class World:
    clock: SteppingClock
    data: LocalStore
    base: str
    ledger: Ledger
    specs: Specs
    actions: Actions
    handlers: RunsHandlers
    artifacts: Artifacts
    triggers: Triggers

    @property
    def productions(self) -> ProducedElsewhere:
        produced = Produced(artifacts=self.artifacts, clock=self.clock)
        return ProducedElsewhere(produced=produced, ledger=self.ledger, store=self.data)

    def files(self) -> list[str]:
        """Every object stored, below the base."""
        base = Path(self.base)
        return sorted(str(path.relative_to(base)) for path in base.rglob("*") if path.is_file())

    async def run(
        self,
        name: str = "r1",
        *,
        project: str = "p",
        spec: task_definition_pb2.TaskSpec | None = None,
        run_spec: run_pb2.RunSpec | None = None,
        subject: str = "",
    ) -> ActionKey:
        """Creates a run; the key of its root."""
        message = run_service_pb2.CreateRunRequest(task_spec=spec or task_spec(), run_spec=run_spec)
        message.run_id.CopyFrom(identifier_pb2.RunIdentifier(project=project, domain="development", name=name))
        await self.handlers.create_run(message, context(subject))
        return RunKey(project, "development", name).action("a0")

    async def child(self, name: str, parent: ActionKey = A0, *, spec: task_definition_pb2.TaskSpec | None = None) -> ActionKey:
        """Enqueues a task's action below ``parent``."""
        message = self._action(parent.sibling(name), parent)
        message.task.spec.CopyFrom(spec or task_spec("env.child"))
        return (await self.actions.enqueue(message, Identity())).key

    async def trace(self, name: str, parent: ActionKey = A0) -> ActionKey:
        message = self._action(parent.sibling(name), parent)
        message.trace.name, message.trace.phase = "fetch", int(Phase.SUCCEEDED)
        message.trace.spec.interface.SetInParent()
        message.trace.outputs.output_uri = f"{self.base}/trace/outputs.pb"
        return (await self.actions.enqueue(message, Identity())).key

    async def condition(self, name: str, parent: ActionKey = A0, *, kind: int = types_pb2.BOOLEAN) -> ActionKey:
        message = self._action(parent.sibling(name), parent)
        message.condition.name, message.condition.prompt = "approve", "Go on?"
        message.condition.type.simple = kind
        return (await self.actions.enqueue(message, Identity())).key

    async def move(self, key: ActionKey, *phases: Phase) -> Action:
        changed = await self.ledger.move(key, *(Move(to=phase) for phase in phases))
        return changed[0]

    def _action(self, key: ActionKey, parent: ActionKey) -> actions_service_pb2.Action:
        return actions_service_pb2.Action(
            action_id=key.idl(),
            parent_action_name=parent.name,
            input_uri=f"{self.base}/{key.name}/inputs.pb",
            run_output_base=self.base,
        )


@asynccontextmanager
async def world_in(directory: Path, database: Database) -> AsyncIterator[World]:
    """``database`` is started already, and stopped by who started it."""
    clock = SteppingClock()
    data = LocalStore({"objects": directory / "objects"}, signer=Signer(b"k" * 32), clock=clock)
    ledger = Ledger(database=database, clock=clock)
    specs = Specs()

    async def require_project(project: str, domain: str) -> None:
        if project not in ("p", "q") or domain != "development":
            raise NotFound(f"there is no project {project!r} with a domain {domain!r}")

    async def read_error(uri: str) -> execution_pb2.ErrorDocument | None:
        return None

    async def exists(uri: str) -> bool:
        return await data.head(uri) is not None

    recovery = Recovery(ledger=ledger, exists=exists)
    queues = Queues(("gpu=2", "q"))
    notifications = Notifications(names=Names())
    actions = Actions(
        ledger=ledger,
        clock=clock,
        recovery=recovery,
        read_error=read_error,
        owns=data.owns,
        queues=queues,
        announce=notifications.of_condition,
    )
    triggers = Triggers(database=database, clock=clock)
    artifacts = Artifacts(database=database, triggers=triggers, clock=clock, require_project=require_project)
    creator = Creator(
        ledger=ledger,
        data=data,
        specs=specs,
        triggers=triggers,
        clock=clock,
        require_project=require_project,
        complete=ScopedSettings(
            database=database, clock=clock, require_domain=require_project, require_project=require_project, queues=queues
        ).complete,
        queues=queues,
        notifications=notifications,
        base=data.base("objects"),
    )
    handlers = RunsHandlers(ledger=ledger, creator=creator, reader=Reader(ledger=ledger, data=data))
    try:
        yield World(clock, data, data.base("objects"), ledger, specs, actions, handlers, artifacts, triggers)
    finally:
        ledger.changes.close()
        await asyncio.sleep(0)
