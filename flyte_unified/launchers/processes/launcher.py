"""Tasks as processes of this machine, seen from the server: a thin client of the keeper, which owns them.

A new server finds the old keeper and all that runs in it; a dead keeper is replaced by one that takes the tasks over.
What is asked for is remembered here until it is confirmed, and asked again of the next keeper.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flyte_unified.core.errors import Internal, Unavailable
from flyte_unified.launchers.processes import command, keeper
from flyte_unified.launchers.processes.forkserver import Frames
from flyte_unified.launchers.processes.interpreters import Interpreter, Interpreters
from flyte_unified.launchers.processes.task import read_json
from flyte_unified.launchers.processes.work import Adopted, Exited, PrivateFiles, ProcessWork, Started, WorkEvent

_ATTEMPTS = 5
_BRIEF = 1.0
"""Seconds of life that are too short for a keeper, if it happens so many times in a row."""
_STOP_SECONDS = 3.0
_HERE = Path(__file__).parent


class LaunchFailed(Internal):
    """The process could not be created."""


class ProcessLauncher:
    """Launches, kills and watches processes. All methods belong to one event loop, which they never block.

    ``on_event`` is called on the loop. ``fork`` says whether tasks may be forked from a preloaded process; by default
    everywhere but on macOS, where single-use processes are started ahead instead.
    """

    def __init__(
        self,
        *,
        directory: Path,
        ephemeral: bool,
        on_event: Callable[[WorkEvent], None],
        logger: logging.Logger,
        interpreters: Interpreters | None = None,
        fork: bool = sys.platform != "darwin",
    ) -> None:
        self._directory = directory.absolute()
        self._ephemeral = ephemeral
        self._on_event = on_event
        self._logger = logger
        self._interpreters = interpreters or Interpreters()
        self._fork = fork
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._frames = Frames()
        self._listening: asyncio.Task[None] | None = None
        self._closing = False
        self._running: dict[str, int] = {}
        self._connected = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._held: dict[str, list[int]] = {}
        self._launches: dict[str, tuple[dict[str, Any], asyncio.Future[None]]] = {}
        self._kills: dict[str, float] = {}
        self._forgets: set[str] = set()
        self._stop_grace: float | None = None
        self._growth: dict[str, asyncio.Event] = {}
        self._read_at_import: dict[str, set[str]] = {}
        self._unfit: set[str] = set()
        self.keeper_pid = 0

    async def start(self) -> list[WorkEvent]:
        """Find or start the keeper. Returns what runs (Adopted) and what ended while nobody listened (Exited)."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = await self._connect()
        self._listening = asyncio.create_task(self._listen(), name="process launcher")
        return found

    async def launch(self, work: ProcessWork) -> None:
        """Start ``work``, unless it was started before. Its Started follows. Raises LaunchFailed, BadInterpreter."""
        interpreter, mark = await self._interpreters.inspect(work.interpreter)
        program = await asyncio.to_thread(command.resolve, work.argv, interpreter, env=work.env)
        warm = self._warm(interpreter, mark, work.env, secrets=work.secrets) if work.warm and program.source else None
        order = {
            "id": work.id,
            "command": list(program.command),
            "program": program.source,
            "argv": list(program.argv),
            "directory": str(work.directory.absolute()),
            "log": str(work.log.absolute()),
            "log_limit": work.log_limit,
            "memory_limit": work.memory_limit or 0,
            "private": work.private and _written(work.private),
            "note": work.note,
        }
        message = {"verb": "launch", "order": order, "env": {**work.env, **work.secrets}, "warm": warm}
        accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._closing or self._listening is None or self._listening.done():
            raise Unavailable("the server is stopping, or has no keeper of local processes")
        if work.id not in self._running:
            self._running[work.id] = 0
            self._idle.clear()
        self._launches[work.id] = (message, accepted)
        self._send(message)
        await accepted

    async def kill(self, id: str, grace: float) -> None:  # noqa: A002 - the work's id
        """End ``id`` with all of its descendants: SIGTERM, and SIGKILL after ``grace`` seconds. Exited follows."""
        if id in self._running:
            self._kills[id] = grace
            self._send({"verb": "kill", "id": id, "grace": grace})

    def forget(self, id: str) -> None:  # noqa: A002
        """The exit of ``id`` is recorded elsewhere: do not tell it again."""
        self._forgets.add(id)
        self._send({"verb": "forget", "id": id})

    def running(self, id: str) -> bool:  # noqa: A002
        """Whether ``id`` was launched or adopted and its Exited is still to come."""
        return id in self._running

    def root(self, id: str) -> int:  # noqa: A002
        """The process id of ``id``'s first process; 0 before its start is known and after its end."""
        return self._running.get(id, 0)

    async def grown(self, id: str, offset: int) -> None:  # noqa: A002
        """Return when the log of ``id`` is longer than ``offset``, or its end may have come."""
        if id in self._running:
            event = self._growth.setdefault(id, asyncio.Event())
            self._send({"verb": "follow", "id": id, "offset": offset})
            await event.wait()

    async def version(self, interpreter: Path) -> tuple[int, int, int]:
        """Of Python. Raises BadInterpreter."""
        return (await self._interpreters.inspect(interpreter))[0].version

    async def sdk(self, interpreter: Path) -> str | None:
        """The version of the SDK that is installed there, if any. Raises BadInterpreter."""
        return (await self._interpreters.inspect(interpreter))[0].flyte

    async def warm_up(self, interpreter: Path, env: Mapping[str, str] | None = None) -> None:
        """Have a fork server ready for tasks with an environment like ``env`` (by default ours). Does not wait for it."""
        found, mark = await self._interpreters.inspect(interpreter)
        env = {"FSSPEC_FILE_AUTO_MKDIR": "1", **(os.environ if env is None else env)}  # as every task of the SDK has it
        if warm := self._warm(found, mark, env):
            self._send({"verb": "warm", "warm": warm})

    async def stop(self, grace: float) -> None:
        """End every task, SIGKILL after ``grace`` seconds, then the keeper. Nothing is left."""
        self._closing = True
        if self._listening is None or self._listening.done():
            return
        self._stop_grace = grace
        self._send({"verb": "stop", "grace": grace})
        try:
            async with asyncio.timeout(grace + _STOP_SECONDS):
                await self._connected.wait()  # a keeper that is just being replaced would be left behind
                await self._idle.wait()
        except TimeoutError:
            self._logger.error("tasks did not end: %s", ", ".join(sorted(self._running)) or "no keeper answers")
        await self._leave()
        self._send({"verb": "quit"})
        with contextlib.suppress(ConnectionError):  # it went with something unread, as an exit that others forget just now
            if self._writer is not None:
                await self._writer.drain()
            if self._reader is not None:
                while await self._reader.read(1 << 16):
                    pass
        await self.close()

    async def close(self) -> None:
        """Leave. Tasks go on, unless the launcher is ephemeral."""
        self._closing = True
        await self._leave()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        for _, accepted in self._launches.values():
            accepted.cancel()
        for descriptors in self._held.values():
            for descriptor in descriptors:
                os.close(descriptor)
        self._held.clear()
        self._wake_all()

    async def _leave(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
            self._listening = None

    # The keeper

    async def _connect(self) -> list[WorkEvent]:
        """Connect to the keeper, a new one if need be. Returns what it has to tell that we did not know."""
        for _ in range(_ATTEMPTS):
            place = await asyncio.to_thread(read_json, str(self._directory / "keeper"))
            try:
                self._reader, writer = await asyncio.open_unix_connection(place["socket"])
            except (KeyError, FileNotFoundError, ConnectionRefusedError):
                await self._start_keeper()
                continue
            self._frames = Frames()
            writer.write(Frames.pack({"verb": "hello", "version": keeper.VERSION, "ephemeral": self._ephemeral}))
            messages: list[dict[str, Any]] = []
            while not messages and (data := await self._read()):
                messages = self._frames.feed(data)
            if messages and messages[0]["welcome"] == keeper.VERSION:
                self._writer = writer
                self._connected.set()
                found = self._welcomed(messages[0])
                for message in messages[1:]:
                    self._hear(message)
                return found
            if messages:  # of another version: it goes, the tasks stay
                writer.write(Frames.pack({"verb": "quit"}))
                while await self._read():
                    pass
            writer.close()
        raise Unavailable(f"the keeper of local processes does not answer; see {self._directory}/keeper.log")

    async def _read(self) -> bytes:
        assert self._reader is not None
        try:
            return await self._reader.read(1 << 18)
        except ConnectionError:
            return b""

    async def _start_keeper(self) -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(_HERE / "keeper.py"), str(self._directory), str(int(self._ephemeral))),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, err = await process.communicate()
        if process.returncode and process.returncode != -signal.SIGALRM:  # else there is another, which may answer by now
            raise Unavailable(f"the keeper of local processes cannot be started: {err.decode(errors='replace')}")

    def _welcomed(self, welcome: dict[str, Any]) -> list[WorkEvent]:
        """Compare what the keeper has with what we know, and ask again for what it does not have."""
        self.keeper_pid = welcome["pid"]
        found: list[WorkEvent] = []
        present = set()
        for row in welcome["running"]:
            present.add(row["id"])
            if not self._running.get(row["id"]):
                self._begun(row)
                found.append(Adopted(row["id"], row["pid"], row["at"]))
        for event in map(_exited, welcome["exited"]):
            if event.id in self._forgets:
                self._send({"verb": "forget", "id": event.id})
            else:
                self._ended(event.id)
                found.append(event)
        self._forgets &= {record["id"] for record in welcome["exited"]}
        for work in self._running.keys() - present - self._launches.keys():
            self._ended(work)
            found.append(Exited(work, None, None, 0, time.time_ns() // 1000, oom=False, known=False))
        for message, _ in self._launches.values():
            self._send(message)
        for work, grace in self._kills.items():
            self._send({"verb": "kill", "id": work, "grace": grace})
        if self._stop_grace is not None:
            self._send({"verb": "stop", "grace": self._stop_grace})
        self._wake_all()
        return found

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        began, brief = loop.time(), 0
        while True:
            if data := await self._read():
                for message in self._frames.feed(data):
                    self._hear(message)
                continue
            if self._writer is not None:
                self._writer.close()
                self._writer = None
                self._connected.clear()
            brief = brief + 1 if loop.time() - began < _BRIEF else 0
            self._logger.warning("the keeper of local processes ended; starting another, which takes the tasks over")
            try:
                if brief >= _ATTEMPTS:
                    raise Unavailable(f"the keeper of local processes keeps ending; see {self._directory}/keeper.log")
                found = await self._connect()
                began = loop.time()
            except Unavailable as error:
                self._logger.error("%s", error)
                for work in list(self._launches):
                    self._settle(work, LaunchFailed(str(error)))
                return
            for event in found:
                self._on_event(event)

    def _send(self, message: dict[str, Any]) -> None:
        if self._writer is not None:
            self._writer.write(Frames.pack(message))

    def _hear(self, message: dict[str, Any]) -> None:
        if "accepted" in message:
            self._settle(message["accepted"], None)
        elif "started" in message:
            self._begun({**message, "id": message["started"]})
            self._on_event(Started(message["started"], message["pid"], message["at"], message["warm"]))
        elif "exited" in message:
            event = _exited(message["exited"])
            self._ended(event.id)
            self._on_event(event)
        elif "forgotten" in message:
            self._forgets.discard(message["forgotten"])
        elif "grew" in message:
            self._grew(message["grew"])
        elif key := message.get("ready") or message.get("differs"):
            self._read_at_import.setdefault(key.partition("-")[0], set()).update(message["names"])
        elif "unfit" in message:
            self._unfit.add(message["unfit"])
            self._logger.warning("tasks start without a fork server: %s", message["reason"])
        elif message.get("verb") == "launch":
            self._settle(message["id"], LaunchFailed(f"{message['id']}: {message['error']}"))
            self._ended(message["id"])
        elif "error" in message:
            self._logger.error("the keeper failed at %s of %s: %s", message["verb"], message["id"], message["error"])

    def _settle(self, work: str, error: Exception | None) -> None:
        """Answer the caller of ``launch``. The request is kept until the process exists: a keeper may die before."""
        if work in self._launches and not (accepted := self._launches[work][1]).done():
            if error is None:
                accepted.set_result(None)
            else:
                accepted.set_exception(error)

    def _begun(self, row: dict[str, Any]) -> None:
        work = row["id"]
        self._settle(work, None)
        self._launches.pop(work, None)
        self._running[work] = row["pid"]
        self._idle.clear()
        if work not in self._held:
            self._held[work] = _hold(row["home"])

    def _ended(self, work: str) -> None:
        self._settle(work, None)
        self._launches.pop(work, None)
        self._running.pop(work, None)
        for descriptor in self._held.pop(work, ()):
            os.close(descriptor)
        self._kills.pop(work, None)
        self._grew(work)
        if not self._running:
            self._idle.set()

    def _grew(self, work: str) -> None:
        if event := self._growth.pop(work, None):
            event.set()

    def _wake_all(self) -> None:
        for work in list(self._growth):
            self._grew(work)

    # Fork servers

    def _warm(
        self, interpreter: Interpreter, mark: str, env: Mapping[str, str], *, secrets: Mapping[str, str] | None = None
    ) -> dict[str, Any] | None:
        """The fork server that fits ``env``, or None when there can be none, or it would have to know one of ``secrets``."""
        family = mark[:16]
        if interpreter.flyte is None or command.inherited(secrets or {}, also=self._read_at_import.get(family, set())):
            return None
        chosen = command.inherited(env, also=self._read_at_import.get(family, set()))
        variant = hashlib.sha256(repr(sorted(chosen.items())).encode()).hexdigest()[:16]
        if (key := f"{family}-{variant}") in self._unfit:
            return None
        return {
            "key": key,
            "command": [str(interpreter.path), str(_HERE / "forkserver.py")],
            "env": chosen,
            "modules": ["flyte._bin.runtime"],
            "canary": command.RUNTIME,
            "single": not self._fork,
            "avoid": [],
        }


def _written(private: PrivateFiles) -> dict[str, Any]:
    files = {name: base64.b64encode(content).decode() for name, content in private.files.items()}
    return {"directory": private.directory, "files": files}


def _hold(home: str) -> list[int]:
    """Keep the task's pipes in being: what it writes while there is no keeper would be gone when it ends before there is."""
    held: list[int] = []
    with contextlib.suppress(OSError):  # it has ended, or we have too many: then the keeper alone holds them
        held += [os.open(home + name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC) for name in ("/out", "/err")]
    return held


def _exited(record: dict[str, Any]) -> Exited:
    return Exited(
        id=record["id"],
        exit_code=record["code"],
        signal=record["signal"],
        max_rss_bytes=record["max_rss"],
        at=record["at"],
        oom=record["oom"],
        known=record["known"],
        cpu_seconds=record["cpu"],
    )
