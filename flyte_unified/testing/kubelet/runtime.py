"""Containers as processes: what a container runtime is to a kubelet. The keeper of ``launchers.processes`` does the work.

It owns the processes (so that they outlive a kubelet, as containers do), keeps their output, watches their memory, ends
whole trees, and remembers each end until it is told to forget: with that a new kubelet finds everything again.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import structlog

from flyte_unified.core.errors import FlyteUnifiedError
from flyte_unified.launchers.processes import facts, logs
from flyte_unified.launchers.processes.launcher import ProcessLauncher
from flyte_unified.launchers.processes.work import Adopted, Exited, ProcessWork, Started, WorkEvent
from flyte_unified.testing.kubelet import enter
from flyte_unified.testing.kubelet.volumes import Mount

_log = structlog.get_logger(__name__)
_ENTER = Path(enter.__file__)
_PROBE_SECONDS = 10.0
_OUTPUT = 10 * 1024
"""Bytes of a handler's output that are kept, as a kubelet does."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What a container's programs run in."""

    place: Path
    """The container's directory on this node."""
    env: Mapping[str, str]
    mounts: Sequence[Mount]
    directory: Path
    """The working directory, as the container sees it."""
    interpreter: Path
    network: Path | None = None
    """The file of a network namespace; by default it is the machine's."""

    def log(self, run: int) -> Path:
        return self.place / f"{run}.log"

    def message(self, run: int) -> Path:
        """The file that is the container's terminationMessagePath."""
        return self.place / f"{run}.message"

    def failure(self, run: int) -> Path:
        """Says why the program could not be started; empty, or missing, if it could."""
        return self.place / f"{run}.failure"

    def command(self, name: str, argv: Sequence[str], *, mounts: Sequence[Mount]) -> list[str]:
        """The command that runs ``argv`` in here. Writes its specification, called ``name``."""
        stage = self.place / "stage"
        stage.mkdir(parents=True, exist_ok=True)
        spec = {
            "argv": list(argv),
            "directory": str(self.directory),
            "mounts": [{"source": str(m.source), "target": str(m.target), "read_only": m.read_only} for m in mounts],
            "stage": str(stage),
            "failure": str(self.place / f"{name}.failure"),
            "network": str(self.network or ""),
        }
        path = self.place / f"{name}.json"
        path.write_text(json.dumps(spec))
        return [sys.executable, "-I", "-S", str(_ENTER), str(path)]


@dataclass(slots=True)
class Run:
    """One run of a container: a process. Both futures get their result, whatever happens."""

    container: str
    number: int
    started: asyncio.Future[Started | Adopted] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    exited: asyncio.Future[Exited] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    failure: str = ""
    """Why the process could not even be asked for."""
    launching: asyncio.Task[None] | None = None

    @property
    def id(self) -> str:
        return f"{self.container}.{self.number}"


class Runtime:
    """All containers of one node, known by ids made of the pod's uid, the container's name and the number of the run."""

    def __init__(self, directory: Path, *, ephemeral: bool) -> None:
        self.directory = directory
        self.runs: dict[str, dict[int, Run]] = {}
        """By container (the pod's uid and the container's name, with a dot between) and number."""
        self.mount_refusal = ""
        """Why containers cannot have mounts of their own here; empty if they can."""
        self._execs = itertools.count(1)
        self._ends: set[asyncio.Task[None]] = set()
        self._launcher = ProcessLauncher(
            directory=directory / "launcher", ephemeral=ephemeral, on_event=self._hear, logger=structlog.get_logger(__name__)
        )

    async def start(self) -> None:
        for name in ("home", "tmp", "pods"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        for event in await self._launcher.start():
            self._hear(event)
        self.mount_refusal = await self._try_mount()

    async def stop(self, grace: float) -> None:
        """End every process, and the keeper."""
        await self._launcher.stop(grace)
        await self._settle()

    async def leave(self) -> None:
        """Go, and let the processes run on, unless this runtime is ephemeral."""
        await self._launcher.close()
        await self._settle()

    def launch(self, work: ProcessWork) -> Run:
        """Start a process. It may fail, which its exit tells."""
        run = self._run(work.id)
        run.launching = asyncio.create_task(self._launch(run, work), name=f"launch {work.id}")
        return run

    async def kill(self, run: Run, grace: float) -> None:
        """SIGTERM for the first process, and SIGKILL for all after ``grace`` seconds; at once if that is 0."""
        if run.launching is not None:
            await asyncio.wait({run.launching})
        if grace <= 0:
            return await self._launcher.kill(run.id, 0)
        await self.signal(run, signal.SIGTERM)
        end = asyncio.create_task(self._kill_later(run, grace), name=f"end of {run.id}")
        self._ends.add(end)
        end.add_done_callback(self._ends.discard)
        return None

    async def _kill_later(self, run: Run, grace: float) -> None:
        try:
            async with asyncio.timeout(grace):
                await asyncio.shield(run.exited)
        except TimeoutError:
            await self._launcher.kill(run.id, 0)

    async def signal(self, run: Run, number: int) -> None:
        """Send a signal to the container's first process."""
        started = await asyncio.shield(run.started)
        if started.pid and not run.exited.done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(started.pid, number)

    def forget(self, run: Run) -> None:
        """Nothing of ``run`` is needed any more."""
        of_container = self.runs.get(run.container, {})
        of_container.pop(run.number, None)
        if not of_container:
            self.runs.pop(run.container, None)
        self._launcher.forget(run.id)

    def follow(self, run_id: str, path: Path, *, offset: int, wait: bool) -> AsyncIterator[logs.Batch]:
        """The lines of a log from ``offset``; with ``wait`` until its process has ended."""
        return logs.follow(
            path,
            running=lambda: wait and self._launcher.running(run_id),
            grown=lambda known: self._launcher.grown(run_id, known),
            offset=offset,
        )

    async def execute(self, sandbox: Sandbox, argv: Sequence[str]) -> tuple[int, str]:
        """Run a command beside a container's process, in the same surroundings. Returns exit code and output.

        It is killed with all of its session when the caller is cancelled.
        """
        name = f"exec-{next(self._execs)}"
        process = await asyncio.create_subprocess_exec(
            *sandbox.command(name, argv, mounts=sandbox.mounts),
            env=dict(sandbox.env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            output, _ = await process.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            failure = sandbox.place / f"{name}.failure"
            why = failure.read_text() if failure.exists() else ""
            failure.unlink(missing_ok=True)
            (sandbox.place / f"{name}.json").unlink(missing_ok=True)
        code = process.returncode or 0
        return (code if code >= 0 else 128 - code), why or output[:_OUTPUT].decode(errors="replace")

    async def _launch(self, run: Run, work: ProcessWork) -> None:
        try:
            await self._launcher.launch(work)
        except FlyteUnifiedError as error:
            run.failure = error.message
            self._hear(Exited(run.id, None, None, 0, 0, oom=False, known=False))

    def _run(self, run_id: str) -> Run:
        container, _, number = run_id.rpartition(".")
        return self.runs.setdefault(container, {}).setdefault(int(number), Run(container, int(number)))

    def _hear(self, event: WorkEvent) -> None:
        run = self._run(event.id)
        if isinstance(event, Exited):
            if not run.started.done():
                run.started.set_result(Started(event.id, 0, event.at))
            if not run.exited.done():
                run.exited.set_result(event)
        elif not run.started.done():
            run.started.set_result(event)

    async def _settle(self) -> None:
        tasks = [
            *self._ends,
            *(run.launching for runs in self.runs.values() for run in runs.values() if run.launching is not None),
        ]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _try_mount(self) -> str:
        if not facts.LINUX:
            return "mount namespaces are Linux'"
        place = self.directory / "tmp"
        sandbox = Sandbox(self.directory, os.environ, [Mount(place, PurePosixPath(place), read_only=True)], place, place)
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                code, output = await self.execute(sandbox, ["true"])
        except TimeoutError:
            return "a mount did not come to an end"
        return output if code else ""
