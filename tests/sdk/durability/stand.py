"""What the tests of durability stand on: a server as a process that can be killed, and a gate that holds tasks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from flyteidl2.common import identifier_pb2, list_pb2
from flyteidl2.dataproxy import dataproxy_service_pb2
from flyteidl2.workflow import run_definition_pb2, run_service_pb2
from google.protobuf.message import Message

from flyte_unified.core.phases import Phase
from flyte_unified.launchers.processes import facts
from tests.sdk.forks import STOCK, SURROUNDINGS, Forked

PROGRAMS = Path(__file__).parent
_SCRIPTS = Path(sys.executable).parent
PROJECT, DOMAIN = "flytesnacks", "development"
PATIENCE = 100.0
"""Seconds after which what a test waits for has not happened."""


@dataclass
class Visit:
    """A task at the gate."""

    name: str
    pid: int
    attempt: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    left: bool = False

    def go(self) -> None:
        self.left = True
        self.writer.write(b"go\n")

    async def say(self, word: str) -> None:
        """The task prints ``word``; returns when it has."""
        self.writer.write(word.encode() + b"\n")
        assert json.loads(await self.reader.readline()) == {"said": word}


class Gate:
    """Who has come, in order. ``open`` lets everybody through, and whoever comes later."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.visits: list[Visit] = []
        self._came = asyncio.Condition()
        self._writers: list[asyncio.StreamWriter] = []
        self._open = False

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Gate]:
        server = await asyncio.start_unix_server(self._meet, self.path)
        try:
            yield self
        finally:
            server.close()
            for writer in self._writers:
                writer.close()
            await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)

    def open(self) -> None:
        self._open = True
        for visit in self.visits:
            if not visit.left:
                visit.go()

    def close(self) -> None:
        """Forgets who came, and holds whoever comes."""
        self._open = False
        self.visits.clear()

    def of(self, name: str) -> list[Visit]:
        return [visit for visit in self.visits if visit.name == name]

    async def comes(self, name: str, attempt: int = 1) -> Visit:
        """The visit of the task ``name``, past or to come."""

        def found() -> Visit | None:
            return next((visit for visit in self.of(name) if visit.attempt == attempt), None)

        await self.until(found)
        visit = found()
        assert visit is not None
        return visit

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE), self._came:
            await self._came.wait_for(lambda: bool(holds()))

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        facts = json.loads(await reader.readline())
        visit = Visit(**facts, reader=reader, writer=writer)
        if self._open:
            visit.go()
        self.visits.append(visit)
        async with self._came:
            self._came.notify_all()


@dataclass
class Server:
    """``flyte-unified start`` in ``directory``, and its life after death."""

    directory: Path
    settings: dict[str, str] = field(default_factory=dict)
    port: int = 0
    process: Forked | None = None

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def address(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        settings = {f"FLYTE_UNIFIED_{name}": value for name, value in self.settings.items()}
        home = self.directory / "home"
        home.mkdir(exist_ok=True)
        return {
            **SURROUNDINGS,
            "HOME": str(home),
            "TMPDIR": str(self.directory),
            **settings,
        }

    @property
    def _start(self) -> list[str]:
        return ["start", "--port", str(self.port), "--data-dir", str(self.data), "--python", sys.executable]

    async def spawn(self, *arguments: str) -> asyncio.subprocess.Process:
        """A server process that is started from nothing, whatever becomes of it."""
        with (self.directory / "server.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "flyte_unified", *self._start, *arguments),
                cwd=self.directory,
                env=self.environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )

    async def start(self, *arguments: str) -> None:
        """Returns when it is ready; at the port that it had before."""
        command = [str(_SCRIPTS / "flyte-unified"), *self._start, *arguments]
        environment = self.environment
        with (self.directory / "server.log").open("ab") as log:
            self.process = await STOCK.get("server").start(command, cwd=self.directory, env=environment, errors=log.fileno())
        async with asyncio.timeout(PATIENCE):
            while line := (await self.process.stdout.readline()).decode():
                if found := re.search(r"API +http://localhost:(\d+)", line):
                    self.port = int(found[1])
                if line.lstrip().startswith("SDK"):
                    return
        raise AssertionError((self.directory / "server.log").read_text()[-4000:])

    def signal(self, number: int) -> None:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    async def ended(self) -> int:
        assert self.process is not None
        async with asyncio.timeout(PATIENCE):
            return await self.process.wait()

    async def kill(self) -> None:
        """kill -9"""
        self.signal(signal.SIGKILL)
        await self.ended()

    async def restart(self) -> None:
        await self.kill()
        await self.start()

    async def stop(self) -> int:
        """Ctrl-C"""
        self.signal(signal.SIGINT)
        return await self.ended()

    def keeper(self) -> int:
        """The keeper's process id."""
        return int(json.loads((self.data / "keeper" / "keeper").read_bytes())["pid"])

    def fork_servers(self) -> list[int]:
        """Those of the keeper's children that lead no session: the others are tasks."""
        children = psutil.Process(self.keeper()).children()
        return [child.pid for child in children if child.status() != psutil.STATUS_ZOMBIE and os.getsid(child.pid) != child.pid]

    # Clients

    async def run(self, gate: Gate, tree: str, number: int) -> str:
        """The name of a new run, started by the SDK in a process of its own."""
        config = self.directory / "config.yaml"
        config.write_text(
            json.dumps(
                {
                    "admin": {"endpoint": f"dns:///localhost:{self.port}", "insecure": True},
                    "image": {"builder": "remote"},
                    "task": {"project": PROJECT, "domain": DOMAIN},
                }
            )
        )
        environment = {**self.environment, "FLYTECTL_CONFIG": str(config)}
        command = ["trees.py", str(gate.path), tree, str(number)]
        done = await asyncio.to_thread(STOCK.get("client").run, command, cwd=PROGRAMS, env=environment, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout.split()[-1]

    async def again(self, run: str) -> str:
        """The name of another run of the same task with the same inputs, as the console starts it."""
        root = await self.details(run, "a0")
        key = identifier_pb2.ActionIdentifier(run=identifier(run), name="a0")
        message = run_service_pb2.GetActionDataRequest(action_id=key)
        data = await self.call("workflow.RunService", "GetActionData", message, run_service_pb2.GetActionDataResponse)
        project = identifier_pb2.ProjectIdentifier(name=PROJECT, domain=DOMAIN)
        request = run_service_pb2.CreateRunRequest(project_id=project, task_spec=root.task, inputs=data.inputs)
        reply = await self.call("workflow.RunService", "CreateRun", request, run_service_pb2.CreateRunResponse)
        return str(reply.run.action.id.run.name)

    async def call(self, service: str, method: str, message: Message, answer: type[Message]) -> Any:
        """One Connect call. Raises aiohttp.ClientError when no server answers."""
        headers, body = {"content-type": "application/proto"}, message.SerializeToString()
        url = f"{self.address}/flyteidl2.{service}/{method}"
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, data=body, headers=headers) as reply,
        ):
            assert reply.status == 200, await reply.text()
            return answer.FromString(await reply.read())

    async def stream(self, service: str, method: str, message: Message, answer: type[Message]) -> AsyncIterator[Any]:
        raw = message.SerializeToString()
        headers = {"content-type": "application/connect+proto"}
        url = f"{self.address}/flyteidl2.{service}/{method}"
        body = b"\0" + len(raw).to_bytes(4, "big") + raw
        timeout = aiohttp.ClientTimeout(total=None, sock_read=PATIENCE)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.post(url, data=body, headers=headers) as reply:
            while True:
                head = await reply.content.readexactly(5)
                data = await reply.content.readexactly(int.from_bytes(head[1:], "big"))
                if head[0] & 2:
                    assert b"error" not in data, data
                    return
                yield answer.FromString(data)

    async def phase(self, run: str) -> Phase:
        """How the run ended."""
        message = run_service_pb2.WatchRunDetailsRequest(run_id=identifier(run))
        watch = self.stream("workflow.RunService", "WatchRunDetails", message, run_service_pb2.WatchRunDetailsResponse)
        async with asyncio.timeout(PATIENCE), contextlib.aclosing(watch) as updates:  # type: ignore[type-var]
            async for update in updates:
                phase = Phase(update.details.action.status.phase)
                if phase.terminal:
                    return phase
        raise AssertionError("the watch ended before the run")

    async def ended_children(self, run: str, number: int) -> None:
        """Returns when ``number`` actions below the root have ended."""
        message = run_service_pb2.WatchActionsRequest(run_id=identifier(run))
        watch = self.stream("workflow.RunService", "WatchActions", message, run_service_pb2.WatchActionsResponse)
        ended: set[str] = set()
        async with asyncio.timeout(PATIENCE), contextlib.aclosing(watch) as updates:  # type: ignore[type-var]
            async for update in updates:
                for enriched in update.enriched_actions:
                    action = enriched.action
                    if Phase(action.status.phase).terminal and action.id.name != "a0":
                        ended.add(action.id.name)
                if len(ended) >= number:
                    return
        raise AssertionError("the watch ended")

    async def actions(self, run: str) -> list[run_definition_pb2.Action]:
        found: list[run_definition_pb2.Action] = []
        token = ""
        while not found or token:
            request = list_pb2.ListRequest(limit=200, token=token)
            message = run_service_pb2.ListActionsRequest(run_id=identifier(run), request=request)
            reply = await self.call("workflow.RunService", "ListActions", message, run_service_pb2.ListActionsResponse)
            found += reply.actions
            token = reply.token
        return found

    async def details(self, run: str, action: str) -> run_definition_pb2.ActionDetails:
        key = identifier_pb2.ActionIdentifier(run=identifier(run), name=action)
        message = run_service_pb2.GetActionDetailsRequest(action_id=key)
        reply = await self.call("workflow.RunService", "GetActionDetails", message, run_service_pb2.GetActionDetailsResponse)
        details = reply.details
        assert isinstance(details, run_definition_pb2.ActionDetails)
        return details

    async def log(self, run: str, action: str, attempt: int = 1) -> list[str]:
        key = identifier_pb2.ActionIdentifier(run=identifier(run), name=action)
        message = dataproxy_service_pb2.TailLogsRequest(action_id=key, attempt=attempt)
        lines = []
        answer = dataproxy_service_pb2.TailLogsResponse
        async for reply in self.stream("dataproxy.DataProxyService", "TailLogs", message, answer):
            lines += [line.message for logs in reply.logs for line in logs.lines]
        return lines

    async def metric(self, name: str) -> float:
        async with aiohttp.ClientSession() as session, session.get(f"{self.address}/metrics") as reply:
            found = re.search(rf"^flyte_unified_{name} (\S+)$", await reply.text(), re.MULTILINE)
        assert found
        return float(found[1])

    def survivors(self) -> list[psutil.Process]:
        """Living processes that belong to this server, by their command line or directory."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                words = [*process.cmdline(), process.cwd()]
                if process.status() != psutil.STATUS_ZOMBIE and any(str(self.directory) in word for word in words):
                    found.append(process)
        return found


def identifier(run: str) -> identifier_pb2.RunIdentifier:
    return identifier_pb2.RunIdentifier(project=PROJECT, domain=DOMAIN, name=run)


@contextlib.asynccontextmanager
async def standing(directory: Path, *arguments: str, **settings: str) -> AsyncIterator[tuple[Server, Gate]]:
    """A server and a gate; at the end nothing of them is left."""
    server = Server(directory, {"EXECUTION_RETRY_BACKOFF": "0.05", "EXECUTION_KILL_GRACE": "0.5", **settings})
    async with Gate(directory / "gate").serving() as gate:
        try:
            await server.start(*arguments)
            yield server, gate
        finally:
            gate.open()
            if server.process is not None and server.process.returncode is None:
                await server.kill()
            for process in server.survivors():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            await asyncio.gather(*(gone(process.pid) for process in server.survivors()))


async def gone(pid: int) -> None:
    """Returns when ``pid`` has ended."""
    try:
        handle = facts.end_of(pid)
    except ProcessLookupError:
        return
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(handle, ended.set)
    try:
        async with asyncio.timeout(PATIENCE):
            await ended.wait()
    finally:
        loop.remove_reader(handle)
        handle.close()
