"""What the tests of triggers stand on: real rooms in one thread, so that a virtual clock waits for all they do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from flyteidl2.common import identifier_pb2, list_pb2
from flyteidl2.core import interface_pb2, literals_pb2, types_pb2
from flyteidl2.task import common_pb2, run_pb2, task_definition_pb2, task_service_pb2
from flyteidl2.trigger import trigger_definition_pb2
from flyteidl2.trigger import trigger_service_pb2 as idl
from flyteidl2.workflow import run_definition_pb2, run_service_pb2
from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool

from flyte_unified.artifacts.service import Artifacts
from flyte_unified.core.clock import SECOND, Clock, Micros, micros
from flyte_unified.core.context import CallContext, Identity
from flyte_unified.core.ids import ActionKey
from flyte_unified.core.queues import Queues
from flyte_unified.db import schema
from flyte_unified.db.api import Database, Notice, Work
from flyte_unified.db.batches import drive
from flyte_unified.identity.api import Identities
from flyte_unified.ledger.api import Ledger, Run
from flyte_unified.notifications.rules import Names
from flyte_unified.notifications.service import Notifications
from flyte_unified.projects.service import Projects
from flyte_unified.runs.create import Creator
from flyte_unified.runs.details import Reader
from flyte_unified.runs.handlers import RunsHandlers
from flyte_unified.settings_service.api import ScopedSettings
from flyte_unified.storage.local import LocalStore
from flyte_unified.storage.signing import Signer
from flyte_unified.tasks.handlers import TasksHandlers
from flyte_unified.tasks.service import Tasks
from flyte_unified.triggers.catchup import CatchUp
from flyte_unified.triggers.handlers import TriggersHandlers
from flyte_unified.triggers.offers import Offers
from flyte_unified.triggers.scheduler import Scheduler
from flyte_unified.triggers.service import Triggers

T = TypeVar("T")

PROJECT, DOMAIN, TASK = "p", "development", "env.main"
MINUTE = 60 * SECOND
CTX = CallContext(procedure="/test", identity=Identity(subject="grace"))


class InlineDatabase:
    """SQLite in memory, every piece of work at once and alone. ``failing`` is raised by what is asked next."""

    def __init__(self) -> None:
        self._engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
        self._connection = self._engine.connect()
        self.failing: list[Exception] = []
        self.notices: list[Notice] = []
        self.asked = 0

    async def start(self) -> None:
        schema.create(self._connection)
        self._connection.commit()

    async def stop(self) -> None:
        self._connection.close()
        self._engine.dispose()

    async def write(
        self,
        work: Callable[[], Work[T]],
        *,
        then: Callable[[T], None] | None = None,
        changed: Callable[[T], Iterable[ActionKey | Notice]] | None = None,
        single: bool = True,
    ) -> T:
        result = self._do(work)
        self._connection.commit()
        if then is not None:
            then(result)
        if changed is not None:
            self.notices += [each for each in changed(result) if isinstance(each, Notice)]
        return result

    async def read(self, work: Callable[[], Work[T]]) -> T:
        return self._do(work)

    def _do(self, work: Callable[[], Work[T]]) -> T:
        self.asked += 1
        if self.failing:
            raise self.failing.pop(0)
        try:
            return drive(self._connection, work)
        except BaseException:
            self._connection.rollback()
            raise


def task_spec(name: str = TASK, *, version: str = "v1", **inputs: int) -> task_definition_pb2.TaskSpec:
    """A task with inputs of the given simple types; ``b`` has the default 7."""
    spec = task_definition_pb2.TaskSpec(short_name="main")
    template = spec.task_template
    template.type = "python"
    template.id.project, template.id.domain, template.id.name, template.id.version = PROJECT, DOMAIN, name, version
    template.container.args[:] = ["a0"]
    template.interface.SetInParent()
    for key, simple in inputs.items():
        variable = interface_pb2.Variable(type=types_pb2.LiteralType(simple=simple))
        template.interface.inputs.variables.append(interface_pb2.VariableEntry(key=key, value=variable))
        if key == "b":
            spec.default_inputs.add(name=key).parameter.default.CopyFrom(integer(7))
    return spec


def integer(value: int) -> literals_pb2.Literal:
    return literals_pb2.Literal(scalar=literals_pb2.Scalar(primitive=literals_pb2.Primitive(integer=value)))


def inputs(*, context: dict[str, str] | None = None, **values: int) -> common_pb2.Inputs:
    return common_pb2.Inputs(
        literals=[common_pb2.NamedLiteral(name=name, value=integer(value)) for name, value in values.items()],
        context=[literals_pb2.KeyValuePair(key=key, value=value) for key, value in (context or {}).items()],
    )


def cron(expression: str, zone: str = "", *, kickoff: str = "") -> common_pb2.TriggerAutomationSpec:
    schedule = common_pb2.Schedule(cron=common_pb2.Cron(expression=expression, timezone=zone), kickoff_time_input_arg=kickoff)
    return common_pb2.TriggerAutomationSpec(type=common_pb2.TYPE_SCHEDULE, schedule=schedule)


def rate(minutes: int, *, start: int | None = None) -> common_pb2.TriggerAutomationSpec:
    every = common_pb2.FixedRate(value=minutes, unit=common_pb2.FIXED_RATE_UNIT_MINUTE)
    if start is not None:
        every.start_time.FromMicroseconds(start)
    return common_pb2.TriggerAutomationSpec(type=common_pb2.TYPE_SCHEDULE, schedule=common_pb2.Schedule(rate=every))


def at(text: str) -> Micros:
    """A time as in RFC 3339."""
    return Micros(round(datetime.fromisoformat(text).astimezone(UTC).timestamp() * SECOND))


def named(name: str = "t", *, task: str = TASK, org: str = "acme") -> identifier_pb2.TriggerName:
    return identifier_pb2.TriggerName(org=org, project=PROJECT, domain=DOMAIN, task_name=task, name=name)


@dataclass
class World:
    """``fired`` are the CreateRun calls of the scheduler; ``refusing`` is raised by the next ones instead."""

    database: Database
    data: LocalStore
    base: str
    ledger: Ledger
    projects: Projects
    triggers: Triggers
    artifacts: Artifacts
    settings: ScopedSettings
    specs: Tasks
    tasks: TasksHandlers
    handlers: TriggersHandlers
    runs: RunsHandlers
    creator: Creator
    clock: Clock
    fired: list[run_service_pb2.CreateRunRequest] = field(default_factory=list)
    refusing: list[Exception] = field(default_factory=list)

    def scheduler(self, catch_up: CatchUp | None = None) -> Scheduler:
        return Scheduler(
            triggers=self.triggers,
            offers=Offers(find=self.artifacts.find, specs=self.specs),
            create=self._create,
            clock=self.clock,
            catch_up=catch_up or CatchUp(),
        )

    async def _create(self, message: run_service_pb2.CreateRunRequest, ctx: CallContext) -> object:
        if self.refusing:
            raise self.refusing.pop(0)
        self.fired.append(message)
        return await self.creator.create(message, ctx)

    @property
    def times(self) -> list[Micros]:
        """When the fires of the scheduler were to be."""
        return [micros(message.run_start_time) for message in self.fired]

    async def deploy_task(
        self,
        *triggers: task_definition_pb2.TaskTrigger,
        spec: task_definition_pb2.TaskSpec | None = None,
    ) -> None:
        spec = spec or task_spec()
        place = spec.task_template.id
        identifier = task_definition_pb2.TaskIdentifier(
            project=place.project, domain=place.domain, name=place.name, version=place.version
        )
        request = task_service_pb2.DeployTaskRequest(task_id=identifier, spec=spec, triggers=triggers)
        await self.tasks.deploy_task(request, CTX)

    async def deploy(
        self,
        automation: common_pb2.TriggerAutomationSpec | None = None,
        name: str = "t",
        *,
        revision: int = 0,
        version: str = "v1",
        active: bool = True,
        run_spec: run_pb2.RunSpec | None = None,
        **spec: Any,
    ) -> trigger_definition_pb2.TriggerDetails:
        message = idl.DeployTriggerRequest(
            name=named(name),
            revision=revision,
            automation_spec=automation,
            spec=trigger_definition_pb2.TriggerSpec(active=active, task_version=version, run_spec=run_spec, **spec),
        )
        return (await self.handlers.deploy_trigger(message, CTX)).trigger

    async def get(self, name: str = "t") -> trigger_definition_pb2.TriggerDetails:
        return (await self.handlers.get_trigger_details(idl.GetTriggerDetailsRequest(name=named(name)), CTX)).trigger

    async def switch(self, name: str = "t", *, active: bool) -> None:
        await self.handlers.update_triggers(idl.UpdateTriggersRequest(names=[named(name)], active=active), CTX)

    async def delete(self, *names: str) -> None:
        await self.handlers.delete_triggers(idl.DeleteTriggersRequest(names=[named(name) for name in names]), CTX)

    async def history(self, name: str = "t") -> list[tuple[int, str]]:
        """Revisions and what made them, the newest first."""
        request = idl.GetTriggerRevisionHistoryRequest(name=named(name))
        found = (await self.handlers.get_trigger_revision_history(request, CTX)).triggers
        prefix = "TRIGGER_REVISION_ACTION_"
        action = trigger_definition_pb2.TriggerRevisionAction
        return [(each.id.revision, action.Name(each.action).removeprefix(prefix)) for each in found]

    async def listed(self, *filters: list_pb2.Filter, **fields: Any) -> list[str]:
        request = idl.ListTriggersRequest(request=list_pb2.ListRequest(filters=filters), **fields)
        return [each.id.name.name for each in (await self.handlers.list_triggers(request, CTX)).triggers]

    async def run(self, **fields: Any) -> run_definition_pb2.Run:
        """A run of the trigger ``t``, by hand."""
        fields.setdefault("project_id", identifier_pb2.ProjectIdentifier(name=PROJECT, domain=DOMAIN))
        message = run_service_pb2.CreateRunRequest(trigger_name=named(), **fields)
        return (await self.runs.create_run(message, CTX)).run

    async def stored(self, run: run_definition_pb2.Run) -> tuple[Run, run_pb2.RunSpec, common_pb2.Inputs]:
        """The run, its spec and its inputs, as they are kept."""
        identifier = run.action.id
        key = ActionKey(identifier.run.project, identifier.run.domain, identifier.run.name, identifier.name)
        kept, spec = await self.ledger.run(key.run_key)
        root = await self.ledger.action(key)
        return kept, spec, common_pb2.Inputs.FromString(await self.data.get(root.input_uri))


async def world_in(directory: Path, clock: Clock, database: Database) -> World:
    """``database`` is started already, and stopped by who started it."""
    data = LocalStore({"objects": directory / "objects"}, signer=Signer(b"k" * 32), clock=clock)
    await data.start()
    ledger = Ledger(database=database, clock=clock)
    projects = Projects(database=database, clock=clock, domains=(DOMAIN,), seed=(PROJECT, "q"))
    await projects.start()
    triggers = Triggers(database=database, clock=clock)
    tasks = Tasks(database=database, ledger=ledger, projects=projects, triggers=triggers, clock=clock)
    identities = Identities()
    settings = ScopedSettings(
        database=database,
        clock=clock,
        require_domain=projects.domains.check,
        require_project=projects.check,
        queues=Queues(),
    )
    creator = Creator(
        ledger=ledger,
        data=data,
        specs=tasks,
        triggers=triggers,
        clock=clock,
        require_project=projects.check,
        complete=settings.complete,
        queues=Queues(),
        notifications=Notifications(names=Names()),
        base=data.base("objects"),
    )
    return World(
        database,
        data,
        data.base("objects"),
        ledger,
        projects,
        triggers,
        Artifacts(database=database, triggers=triggers, clock=clock, require_project=projects.check),
        settings,
        tasks,
        TasksHandlers(tasks=tasks, triggers=triggers, identities=identities),
        TriggersHandlers(triggers=triggers, tasks=tasks, projects=projects, identities=identities),
        RunsHandlers(ledger=ledger, creator=creator, reader=Reader(ledger=ledger, data=data)),
        creator,
        clock,
    )
