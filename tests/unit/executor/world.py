"""A controller on a real ledger and a real directory; its launcher is a machine that the test plays."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from flyteidl2.core import execution_pb2, interface_pb2, literals_pb2, types_pb2
from flyteidl2.task import common_pb2, run_pb2, task_definition_pb2
from flyteidl2.workflow import run_definition_pb2
from google.protobuf.duration_pb2 import Duration

from flyte_unified.actions.queue import Rows
from flyte_unified.artifacts.produced import Produced
from flyte_unified.artifacts.service import Artifacts
from flyte_unified.cache.service import Cache
from flyte_unified.core.clock import SECOND, Micros
from flyte_unified.core.ids import ActionKey, RunKey
from flyte_unified.core.phases import Phase
from flyte_unified.db.api import Work
from flyte_unified.db.sqlite import SQLiteDatabase
from flyte_unified.executor.caching import Caching
from flyte_unified.executor.controller import Controller
from flyte_unified.executor.judge import Options
from flyte_unified.executor.policy import Backoff
from flyte_unified.executor.slots import Capacity, Slots
from flyte_unified.launchers.api import Attempt, Ended, Event, Progress, Started, WorkId
from flyte_unified.ledger.api import Action, Details, EncodedSpec, Ledger, Move, NewRun, Run, task_action
from flyte_unified.plugins import registry
from flyte_unified.plugins.api import Exit, TaskContext
from flyte_unified.plugins.api import Work as TaskWork
from flyte_unified.storage.local import LocalStore
from flyte_unified.storage.signing import Signer
from flyte_unified.triggers.service import Triggers
from tests.virtual_time import LoopClock

T = TypeVar("T")

RUN = RunKey("p", "development", "r1")
ROOT = RUN.action("a0")


class Clock(LoopClock):
    """The loop's; ``asleep`` is how long the machine has slept, in microseconds."""

    asleep = 0

    def now(self) -> Micros:
        return Micros(super().now() + self.asleep)


class Machine:
    """The launcher port, played by hand: what was asked for, and what the test lets happen."""

    def __init__(self, *, clock: Clock, found: Sequence[Event] = (), heard: Sequence[Event] = ()) -> None:
        self._clock = clock
        self._found = list(found)
        self._heard = heard
        self._on_event: Callable[[Event], None] = lambda _: None
        self._asked = asyncio.Condition()
        self.attempts: dict[WorkId, Attempt] = {}
        self.running: set[WorkId] = set()
        self.kills: list[tuple[WorkId, float]] = []
        self.forgotten: list[WorkId] = []
        self.cleared: list[tuple[ActionKey, int]] = []
        self.refusal: Exception | None = None
        self.stopped = False
        self.obedient = True
        """Whether a process that is killed ends at once."""

    async def start(self, on_event: Callable[[Event], None]) -> list[Event]:
        self._on_event = on_event
        self.running.update(event.id for event in self._found if isinstance(event, Started))
        for event in self._heard:
            on_event(event)
        return self._found

    async def launch(self, attempt: Attempt) -> None:
        await asyncio.sleep(0)
        if self.refusal is not None:
            raise self.refusal
        self.attempts[attempt.id] = attempt
        self.running.add(attempt.id)
        await self._tell()

    async def kill(self, work: WorkId, *, grace: float) -> None:
        self.kills.append((work, grace))
        await self._tell()
        if self.obedient:
            self.end(work, signal=15)

    async def forget(self, work: WorkId) -> None:
        await asyncio.sleep(0)  # as one that removes files
        self.forgotten.append(work)
        await self._tell()

    async def clear(self, action: ActionKey, *, attempts: int) -> None:
        await asyncio.sleep(0)
        self.cleared.append((action, attempts))

    async def stop(self, *, grace: float) -> None:
        self.stopped = True
        for work in sorted(self.running):
            self.end(work, signal=15)

    async def close(self) -> None:
        self._on_event = lambda _: None

    # What the test does

    async def until(self, holds: Callable[[], object]) -> None:
        async with self._asked:
            await self._asked.wait_for(lambda: bool(holds()))

    async def launched(self, key: ActionKey, attempt: int = 1) -> Attempt:
        """Returns when the attempt was asked for."""
        work = WorkId(key, attempt)
        await self.until(lambda: work in self.attempts)
        return self.attempts[work]

    def begin(self, key: ActionKey, attempt: int = 1) -> None:
        self._on_event(Started(id=WorkId(key, attempt), at=self._clock.now(), pid=4711, where="here"))

    def progress(self, key: ActionKey, phase: Phase, details: run_definition_pb2.ActionAttempt | None = None) -> None:
        self._on_event(Progress(id=WorkId(key, 1), at=self._clock.now(), phase=phase, details=details))

    def end(self, work: WorkId, *, code: int | None = None, signal: int | None = None, out_of_memory: bool = False) -> None:
        self.running.discard(work)
        ending = Exit(code=code, signal=signal, out_of_memory=out_of_memory)
        self._on_event(Ended(id=work, at=self._clock.now(), exit=ending))

    async def _tell(self) -> None:
        async with self._asked:
            self._asked.notify_all()


class TimekeepingDatabase(SQLiteDatabase):
    """Virtual time stands still while a write is under way."""

    async def write(self, work: Callable[[], Work[T]], **told: Any) -> T:
        done = threading.Event()
        held = asyncio.get_running_loop().run_in_executor(None, done.wait)
        try:
            return await super().write(work, **told)
        finally:
            done.set()
            await held


def spec(
    task_type: str = "python",
    *,
    retries: int = 0,
    timeout: float = 0.0,
    queued: float = 0.0,
    deadline: float = 0.0,
    backoff: float = 0.0,
    outputs: Sequence[str] = (),
    command: str = "a0",
    **requests: str,
) -> task_definition_pb2.TaskSpec:
    """A task of the SDK's kind. Bounds in seconds; ``requests`` as cpu="2", gpu="1"."""
    message = task_definition_pb2.TaskSpec(short_name="main")
    template = message.task_template
    template.type = task_type
    template.id.project, template.id.domain, template.id.name, template.id.version = "p", "development", "env.main", "v1"
    if task_type == "core-sleep":
        variable = interface_pb2.Variable(type=types_pb2.LiteralType(simple=types_pb2.DURATION))
        template.interface.inputs.variables.append(interface_pb2.VariableEntry(key="length", value=variable))
    else:
        template.container.args[:] = [command, "--outputs-path", "{{.outputPrefix}}"]
    for name, value in requests.items():
        template.container.resources.requests.add(name=name.upper(), value=value)
    for name in outputs:
        template.interface.outputs.variables.append(interface_pb2.VariableEntry(key=name))
    metadata = template.metadata
    metadata.retries.retries = retries
    if backoff:
        metadata.retries.backoff.base.CopyFrom(_duration(backoff))
        metadata.retries.backoff.factor = 2.0
    for bound, length in (
        (metadata.timeout, timeout),
        (metadata.timeouts.queued_timeout, queued),
        (metadata.timeouts.deadline, deadline),
    ):
        if length:
            bound.CopyFrom(_duration(length))
    return message


def _duration(value: float) -> Duration:
    return Duration(seconds=int(value), nanos=round(value % 1 * 1e9))


@dataclass
class World:
    clock: Clock
    store: LocalStore
    ledger: Ledger
    database: SQLiteDatabase
    base: str
    capacity: Capacity
    artifacts: Artifacts
    describe: Callable[[TaskContext], TaskWork] = registry.describe
    queues: dict[str, int] = field(default_factory=dict)
    servers: list[Controller] = field(default_factory=list)

    @property
    def produced(self) -> Produced:
        return Produced(artifacts=self.artifacts, clock=self.clock)

    @asynccontextmanager
    async def server(
        self, *found: Event, heard: Sequence[Event] = (), **options: object
    ) -> AsyncIterator[tuple[Controller, Machine]]:
        """A controller from its start to its crash: nothing is told to the machine at the end.

        ``found`` is what the launcher finds at its start, ``heard`` what it hears before that is over.
        """
        machine = Machine(clock=self.clock, found=found, heard=heard)
        cache = Cache(database=self.database, clock=self.clock)
        values = {"system_retries": 3, "system_backoff": Backoff(base=1.0, factor=2.0), "kill_grace": 5.0} | options
        controller = Controller(
            ledger=self.ledger,
            queue=Rows(ledger=self.ledger),
            store=self.store,
            describe=self.describe,
            launcher=machine,
            slots=Slots(self.capacity, self.queues),
            caching=Caching(catalog=cache, ledger=self.ledger, store=self.store),
            produced=self.produced,
            clock=self.clock,
            options=Options(
                endpoint=lambda run: f"localhost:1/t/{run.run}",
                raw_root=f"{self.base}/_raw",
                log_link=lambda action, attempt: f"/log/{action.name}/{attempt}",
                interpreter="/python",
                **values,  # type: ignore[arg-type]  # fields of Options
            ),
        )
        await controller.start()
        try:
            yield controller, machine
        finally:
            await controller.close()

    async def run(
        self,
        task: task_definition_pb2.TaskSpec | None = None,
        *,
        key: ActionKey = ROOT,
        cache_key: str = "",
        length: float = 0.0,
        run_spec: run_pb2.RunSpec | None = None,
    ) -> ActionKey:
        """Creates a run of one task. ``length``: of a core-sleep, in seconds."""
        encoded = EncodedSpec.of(task or spec())
        inputs = common_pb2.Inputs()
        if encoded.message.task_template.type == "core-sleep":
            literal = literals_pb2.Literal()
            literal.scalar.primitive.duration.CopyFrom(_duration(length))
            inputs.literals.add(name="length", value=literal)
        uri = f"{self.base}/{key.run}/inputs.pb"
        await self.store.put(uri, inputs.SerializeToString())
        now = self.clock.now()
        root = task_action(
            key, encoded, now=now, parent=None, input_uri=uri, output_base=f"{self.base}/{key.run}", cache_key=cache_key
        )
        run = Run(
            key=key.run_key,
            run_spec=(run_spec or run_pb2.RunSpec()).SerializeToString(),
            labels={},
            source=0,
            request_id=None,
            content=key.run,
            output_base=root.output_base,
            start_time=now,
            created_by="",
            created_at=now,
        )
        await self.ledger.create_run(NewRun(run=run, root=root, spec=encoded.raw))
        return key

    async def child(
        self, name: str, *, parent: ActionKey = ROOT, task: task_definition_pb2.TaskSpec | None = None
    ) -> ActionKey:
        key = parent.sibling(name)
        encoded = EncodedSpec.of(task or spec())
        new = task_action(
            key,
            encoded,
            now=self.clock.now(),
            parent=parent.name,
            input_uri=f"{self.base}/{key.run}/inputs.pb",
            output_base=f"{self.base}/{key.run}",
        )
        await self.ledger.enqueue(new, encoded)
        return key

    async def succeed(self, machine: Machine, key: ActionKey, attempt: int = 1) -> None:
        """The attempt's process runs, writes its outputs and ends."""
        machine.begin(key, attempt)
        await self.put(key, "outputs.pb", common_pb2.Outputs().SerializeToString(), attempt=attempt)
        machine.end(WorkId(key, attempt), code=0)

    async def fail(self, machine: Machine, key: ActionKey, attempt: int = 1, *, recoverable: bool = True) -> None:
        """The attempt's process runs, writes an error and ends."""
        machine.begin(key, attempt)
        document = execution_pb2.ErrorDocument()
        document.error.code, document.error.message = "ValueError", "no"
        if recoverable:
            document.error.kind = execution_pb2.ContainerError.RECOVERABLE
        await self.put(key, "error.pb", document.SerializeToString(), attempt=attempt)
        machine.end(WorkId(key, attempt), code=1)

    async def put(self, key: ActionKey, name: str, data: bytes, *, attempt: int = 1) -> None:
        await self.store.put(f"{self.base}/{key.run}/{key.name}/{attempt}/{name}", data)

    async def reaches(self, key: ActionKey, phase: Phase, attempt: int = 1) -> Action:
        """Returns the action when it is in ``phase`` of ``attempt``. Fails when it ends otherwise."""
        async for action in self.ledger.watch_action(key):
            if action.phase is phase and action.attempt == attempt:
                return action
            assert not action.terminal, f"{action.phase.name} in attempt {action.attempt}: {action.execution_error()}"
        raise AssertionError("the watch ended")

    async def ended(self, key: ActionKey) -> Details:
        async for action in self.ledger.watch_action(key):
            if action.terminal:
                return await self.ledger.of(action)
        raise AssertionError("the watch ended")

    async def abort(self, key: ActionKey) -> None:
        await self.ledger.move(key, Move(to=Phase.ABORTED, reason="enough"))


async def _nothing(*_: str) -> None:
    """Every project will do."""


@asynccontextmanager
async def world_in(directory: Path, *, capacity: Capacity | None = None) -> AsyncIterator[World]:
    clock = Clock()
    store = LocalStore({"objects": directory / "objects"}, signer=Signer(b"k" * 32), clock=clock)
    database = TimekeepingDatabase(directory / "flyte.db")
    await database.start()
    try:
        ledger = Ledger(database=database, clock=clock)
        artifacts = Artifacts(
            database=database, triggers=Triggers(database=database, clock=clock), clock=clock, require_project=_nothing
        )
        room = capacity or Capacity(cpu=2.0, memory=1 << 30)
        yield World(clock, store, ledger, database, store.base("objects"), room, artifacts)
        ledger.changes.close()
    finally:
        await database.stop()


def seconds_between(earlier: Micros, later: Micros) -> float:
    return (later - earlier) / SECOND
