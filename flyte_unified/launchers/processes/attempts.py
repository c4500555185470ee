"""The launcher port over local processes: an attempt becomes a process of the chosen interpreter, in a directory of its own."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import structlog

from flyte_unified.core.clock import Micros
from flyte_unified.core.ids import ROOT_ACTION, ActionKey
from flyte_unified.launchers.api import INTERPRETER, Attempt, Ended, Event, Started, WorkId
from flyte_unified.launchers.processes.containers import Containers
from flyte_unified.launchers.processes.images import Images, Lookup, lay_out, variables_of
from flyte_unified.launchers.processes.launcher import ProcessLauncher
from flyte_unified.launchers.processes.needs import Needs
from flyte_unified.launchers.processes.secrets import Reveal, Secrets
from flyte_unified.launchers.processes.surroundings import Surroundings
from flyte_unified.launchers.processes.work import Exited, ProcessWork, WorkEvent
from flyte_unified.plugins.api import Container, Exit, Need, Process

_log = structlog.get_logger(__name__)

_WARM = frozenset({"a0"})
"""Programs that a fork server can be: the SDK's."""
_SDK = Need("flyte", "uv pip install --python {python} flyte, or name another Python with flyte-unified start --python")


class ProcessAttempts:
    """``interpreter`` runs the tasks that name none; logs stand under ``logs``, working directories under ``work``.

    ``launcher`` makes the process launcher, given whom to tell of events. ``reveal`` knows values of secrets,
    ``images`` what was built here; ``engine`` runs containers.
    """

    def __init__(
        self,
        *,
        launcher: Callable[[Callable[[WorkEvent], None]], ProcessLauncher],
        interpreter: Path,
        work: Path,
        logs: Path,
        warm: bool,
        log_limit: int,
        environment: Mapping[str, str],
        reveal: Reveal,
        images: Lookup | None = None,
        engine: str = "",
    ) -> None:
        self._on_event: Callable[[Event], None] = lambda _: None
        self._processes = launcher(self._heard)
        self._interpreter = interpreter
        self._work = work
        self._logs = logs
        self._warm = warm
        self._log_limit = log_limit
        self._secrets = Secrets(reveal)
        self._containers = Containers(engine=engine, left=work / "containers")
        self._sweeping: asyncio.Task[None] | None = None
        self._needs = Needs()
        self._images = Images(images)
        self._begins: dict[WorkId, asyncio.Event] = {}
        self._chosen: dict[WorkId, str] = {}
        self._surroundings = Surroundings(environment)

    @property
    def processes(self) -> ProcessLauncher:
        return self._processes

    def log_path(self, work: WorkId) -> Path:
        """Where the output of an attempt is kept."""
        return self._logs.joinpath(*work.action, f"{work.attempt}.log")

    async def begun(self, work: WorkId) -> None:
        """Returns once the attempt's process has been started, or its log is there."""
        if self._processes.running(str(work)) or await asyncio.to_thread(self.log_path(work).exists):
            return
        await self._begins.setdefault(work, asyncio.Event()).wait()

    async def start(self, on_event: Callable[[Event], None]) -> list[Event]:
        self._on_event = on_event
        found = await self._processes.start()
        self._sweeping = asyncio.create_task(self._containers.sweep(), name="containers that were left")
        if self._warm:
            await self._processes.warm_up(self._interpreter, self._surroundings.environment({}, {}, self._interpreter))
            if not await self._processes.sdk(self._interpreter):
                _log.warning("tasks' Python has no SDK", mend=_SDK.advice.format(python=self._interpreter))
        return [self._event(event) for event in found]

    async def launch(self, attempt: Attempt) -> None:
        work = attempt.work
        if not isinstance(work, Process):
            raise TypeError(f"{attempt.id} is no process")
        if isinstance(work, Container):
            try:
                await self._processes.launch(await self._contained(attempt, work))
            except BaseException:
                await self._containers.remove(self._work / str(attempt.id))
                raise
            return
        secrets = await self._secrets.given(work.secrets, attempt.id.action)
        image = await asyncio.to_thread(self._images.of, work)
        usual = image.python if image is not None else self._interpreter
        interpreter = Path(work.environment.get(INTERPRETER) or usual)
        self._chosen[attempt.id] = str(interpreter)
        asked = {**variables_of(image, self._surroundings.inherited), **work.environment}
        environment = self._surroundings.environment(asked, work.system, interpreter)
        if attempt.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, attempt.gpus))
        needs = work.needs
        if work.arguments[0] in _WARM and not await self._processes.sdk(interpreter):  # one on PYTHONPATH will do
            needs = (_SDK, *needs)
        await self._needs.check(needs, interpreter, environment)
        directory = self._work / str(attempt.id)
        if image is not None:
            await asyncio.to_thread(lay_out, image, directory)
        await self._processes.launch(
            ProcessWork(
                id=str(attempt.id),
                argv=work.arguments,
                env=environment,
                directory=directory,
                log=self.log_path(attempt.id),
                interpreter=interpreter,
                warm=self._warm and work.arguments[0] in _WARM,
                memory_limit=work.resources.memory_limit or None,
                log_limit=self._log_limit,
                secrets={name: value for name, value in secrets.variables.items() if name not in work.system},
                private=secrets.private,
                note=await self._note(attempt, work, interpreter),
            )
        )

    async def _note(self, attempt: Attempt, work: Process, interpreter: Path) -> str:
        """Once for a run."""
        if attempt.id.action.name != ROOT_ACTION or attempt.id.attempt > 1:
            return ""
        return self._images.note(work, await self._processes.version(interpreter), interpreter)

    async def _contained(self, attempt: Attempt, work: Container) -> ProcessWork:
        """The process around a container."""
        secrets = await self._secrets.given(work.secrets, attempt.id.action, mounted=False)
        interpreter = Path(sys.executable)
        environment = self._surroundings.environment({}, {}, interpreter)
        directory = self._work / str(attempt.id)
        contained = await self._containers.prepare(
            work,
            directory,
            gpus=attempt.gpus,
            secrets={name: value for name, value in secrets.variables.items() if name not in work.system},
            files=secrets.files,
            environment=environment,
        )
        self._chosen[attempt.id] = f"{contained.engine}, in the image {work.image}"
        return ProcessWork(
            id=str(attempt.id),
            argv=contained.command,
            env=environment,
            directory=directory,
            log=self.log_path(attempt.id),
            interpreter=interpreter,
            warm=False,
            memory_limit=contained.memory_limit,
            log_limit=self._log_limit,
            secrets=contained.variables,
        )

    async def kill(self, work: WorkId, *, grace: float) -> None:
        await self._processes.kill(str(work), grace)

    async def forget(self, work: WorkId) -> None:
        self._chosen.pop(work, None)
        await self._containers.remove(self._work / str(work))
        self._processes.forget(str(work))

    async def clear(self, action: ActionKey, *, attempts: int) -> None:
        directories = [self._work / str(WorkId(action, attempt)) for attempt in range(1, attempts + 1)]
        await asyncio.to_thread(_remove, directories)

    async def stop(self, *, grace: float) -> None:
        await self._processes.stop(grace)

    async def close(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.wait([self._sweeping])
        await self._processes.close()

    def _heard(self, event: WorkEvent) -> None:
        self._on_event(self._event(event))

    def _event(self, event: WorkEvent) -> Event:
        work = WorkId.parse(event.id)
        if (begun := self._begins.pop(work, None)) is not None:
            begun.set()
        if isinstance(event, Exited):
            exit = Exit(code=event.exit_code, signal=event.signal, out_of_memory=event.oom)  # noqa: A001
            return Ended(id=work, at=Micros(event.at), exit=exit)
        where = self._chosen.get(work, str(self._interpreter))
        return Started(id=work, at=Micros(event.at), pid=event.pid, where=where)


def _remove(directories: Iterable[Path]) -> None:
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)
