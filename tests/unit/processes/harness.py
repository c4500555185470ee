"""A launcher over real processes, and what it told; ends with proof that nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil

from flyte_unified.launchers.processes import facts, logs
from flyte_unified.launchers.processes.launcher import ProcessLauncher
from flyte_unified.launchers.processes.work import Exited, ProcessWork, Started, WorkEvent

PYTHON = Path(sys.executable)
_PATIENCE = 30.0


class Processes:
    """One server's view of the processes of ``root``. ``events`` holds all that it was told, in order."""

    def __init__(self, root: Path, *, ephemeral: bool = False, fork: bool = True) -> None:
        self.root = root
        self.events: list[WorkEvent] = []
        self.messages: list[str] = []
        self._told = asyncio.Condition()
        self._notes: set[asyncio.Task[None]] = set()
        logger = logging.getLogger(f"{__name__}.{id(self)}")
        logger.propagate = False
        logger.addHandler(_Collect(self.messages))
        self.launcher = ProcessLauncher(
            directory=root / "keeper",
            ephemeral=ephemeral,
            on_event=self.on_event,
            logger=logger,
            fork=fork,
        )

    def on_event(self, event: WorkEvent) -> None:
        self.events.append(event)
        note = asyncio.ensure_future(self._tell())
        self._notes.add(note)
        note.add_done_callback(self._notes.discard)

    async def _tell(self) -> None:
        async with self._told:
            self._told.notify_all()

    async def launch(self, work: str, *argv: str, warm: bool = False, **options: Any) -> None:
        env = {"PATH": os.environ["PATH"], "HOME": str(self.root), "FSSPEC_FILE_AUTO_MKDIR": "1", **options.pop("env", {})}
        await self.launcher.launch(
            ProcessWork(
                id=work,
                argv=argv,
                env=env,
                directory=self.root / "work" / work,
                log=self.log(work),
                interpreter=PYTHON,
                warm=warm,
                **options,
            )
        )

    async def python(self, work: str, code: str, *argv: str, **options: Any) -> None:
        await self.launch(work, "python", "-c", code, *argv, **options)

    async def event(self, kind: type[WorkEvent], work: str) -> Any:
        """The first event of ``kind`` about ``work``, past or to come."""

        def found() -> WorkEvent | None:
            return next((e for e in self.events if isinstance(e, kind) and e.id == work), None)

        async with asyncio.timeout(_PATIENCE), self._told:
            await self._told.wait_for(found)
        return found()

    async def exited(self, work: str) -> Exited:
        return await self.event(Exited, work)

    async def started(self, work: str) -> Started:
        return await self.event(Started, work)

    def log(self, work: str) -> Path:
        return self.root / "logs" / work

    async def output(self, work: str) -> list[str]:
        return [line.text for line in (await logs.read(self.log(work), limit=1 << 22)).lines]

    async def follow(self, work: str) -> AsyncIterator[logs.LogLine]:
        follower = logs.follow(
            self.log(work),
            running=lambda: self.launcher.running(work),
            grown=lambda offset: self.launcher.grown(work, offset),
        )
        async for batch in follower:
            for line in batch.lines:
                yield line

    async def says(self, work: str, text: str) -> None:
        """Returns when the work's output has a line with ``text``."""
        async with asyncio.timeout(_PATIENCE), contextlib.aclosing(self.follow(work)) as lines:
            async for line in lines:
                if text in line.text:
                    return
        raise AssertionError(f"{work} ended without saying {text!r}: {await self.output(work)}")


@contextlib.asynccontextmanager
async def processes(root: Path, **options: Any) -> AsyncIterator[Processes]:
    """A started launcher; at the end everything is stopped and proven gone."""
    server = Processes(root, **options)
    await server.launcher.start()
    try:
        yield server
    finally:
        await server.launcher.stop(0.2)
        assert survivors(root) == []


def survivors(root: Path) -> list[str]:
    """Living processes that belong to ``root``, by what their command line or directory says."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            words = [*process.cmdline(), process.cwd()]
            if process.status() != psutil.STATUS_ZOMBIE and any(str(root) in word for word in words):
                found.append(f"{process.pid} {words}")
    return found


async def gone(pid: int) -> None:
    """Returns when ``pid`` has ended."""
    if psutil.pid_exists(pid):
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        try:
            handle = facts.end_of(pid)
        except ProcessLookupError:
            return
        loop.add_reader(handle, ended.set)
        try:
            async with asyncio.timeout(_PATIENCE):
                await ended.wait()
        finally:
            loop.remove_reader(handle)
            handle.close()


class _Collect(logging.Handler):
    def __init__(self, messages: list[str]) -> None:
        super().__init__()
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        self._messages.append(record.getMessage())
