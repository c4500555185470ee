"""A small service for the edge's tests: Flyte's own descriptors, handlers of no meaning, on a real port."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import traceback
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import structlog
from flyteidl2.project import project_service_pb2
from flyteidl2.workflow import internal_run_service_pb2, run_service_pb2
from google.protobuf.duration_pb2 import Duration

from flyte_unified.core.context import CallContext, Headers, Identity
from flyte_unified.core.errors import FailedPrecondition, PermissionDenied
from flyte_unified.rpc.edge import Edge
from flyte_unified.rpc.registry import Registry
from flyte_unified.rpc.sockets import listen

TOKEN = "run-token-of-a0"
GET_PROJECT = "/flyteidl2.project.ProjectService/GetProject"
CREATE_PROJECT = "/flyteidl2.project.ProjectService/CreateProject"
WATCH = "/flyteidl2.workflow.RunService/WatchRunDetails"
BIDI = "/flyteidl2.workflow.InternalRunService/RecordActionStream"


class Projects:
    """GetProject does what the id says."""

    def __init__(self) -> None:
        self.context: CallContext | None = None
        self.began = asyncio.Event()
        self.release = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def get_project(self, message: Any, ctx: CallContext) -> Any:
        self.context = ctx
        match message.id:
            case "wrong":
                raise FailedPrecondition("id: 100 % wröng", details=[Duration(seconds=7)])
            case "long error":
                raise FailedPrecondition("e" * 100_000, details=[Duration(seconds=7)])
            case "crash":
                raise KeyError("a secret of the inside")
            case "cancel":
                raise asyncio.CancelledError
            case "headers":
                ctx.response_headers.append(("x-head", "1"))
                ctx.response_trailers.append(("x-tail", "2"))
            case "hold":
                self.began.set()
                await self.release.wait()
            case "wait":
                await self._wait()
        return project_service_pb2.GetProjectResponse(project={"id": message.id, "description": "d" * len(message.id)})

    async def _wait(self) -> None:
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()


class Runs:
    """WatchRunDetails sends as many messages as the run's name says; ``wait`` sends one and waits for ever."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.sent = 0

    async def watch_run_details(self, message: Any, ctx: CallContext) -> AsyncIterator[Any]:
        name = message.run_id.name
        try:
            if name == "flood":
                while True:
                    yield _details("x" * 60_000)
                    self.sent += 1
            for number in range(1 if name == "wait" else int(name)):
                yield _details(str(number))
            if name == "wait":
                await asyncio.Event().wait()
            if name == "3":
                raise FailedPrecondition("three")
        finally:
            self.ended.set()


def _details(text: str) -> Any:
    return run_service_pb2.WatchRunDetailsResponse(details={"run_spec": {"cluster_pool": text}})


class Internal:
    """RecordActionStream answers each message as it comes."""

    async def record_action_stream(self, messages: AsyncIterator[Any], ctx: CallContext) -> AsyncIterator[Any]:
        async for message in messages:
            name = message.request.action_id.name
            yield internal_run_service_pb2.RecordActionStreamResponse(response={"action_id": {"name": name}})


class Service:
    """The three services and the edge that serves them."""

    def __init__(self, **options: Any) -> None:
        self.projects, self.runs, self.internal = Projects(), Runs(), Internal()
        self.observed: list[tuple[str, str, str]] = []
        self.in_flight = 0
        registry = Registry()
        registry.add("flyteidl2.project.ProjectService", self.projects)
        registry.add("flyteidl2.workflow.RunService", self.runs)
        registry.add("flyteidl2.workflow.InternalRunService", self.internal)
        self.logged: list[MutableMapping[str, Any]] = []
        self.edge = Edge(
            registry=registry,
            identify=identify,
            observe=self._observe,
            in_flight=self._in_flight,
            logger=structlog.wrap_logger(structlog.ReturnLogger(), processors=[self._log]),
            **options,
        )

    @property
    def port(self) -> int:
        return self.edge.port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def outcomes(self) -> list[str]:
        return [code for _, _, code in self.observed]

    def _log(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if event.get("exc_info"):
            event["exc_info"] = "".join(traceback.format_exception(*sys.exc_info()))
        self.logged.append({"level": method, **event})
        raise structlog.DropEvent

    def _observe(self, procedure: str, protocol: str, code: str, seconds: float) -> None:
        self.observed.append((procedure, protocol, code))

    def _in_flight(self, step: int) -> None:
        self.in_flight += step


def identify(token: str | None, headers: Headers) -> Identity:
    if token is None:
        return Identity()
    if token != TOKEN:
        raise PermissionDenied("the run token is not known")
    return Identity(subject="run")


@contextlib.asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Service]:
    service = Service(**options)
    await service.edge.start(listen("127.0.0.1", 0))
    try:
        yield service
    finally:
        await service.edge.stop(1.0)


async def curl(*arguments: str) -> tuple[int, str, bytes]:
    """curl's view of a URL: status, headers, body."""
    process = await asyncio.create_subprocess_exec(
        "curl", "--silent", "--show-error", "--include", "--max-time", "20", *arguments, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output
    while True:
        head, _, output = output.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        if status != 100:
            return status, head.decode().lower(), output


async def http1(port: int, data: bytes) -> bytes:
    """What the server says to ``data``, until it hangs up."""
    async with connected(port) as (reader, writer):
        writer.write(data)
        return await rest(reader)


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def rest(reader: asyncio.StreamReader) -> bytes:
    """Everything until the other side has closed, gently or not."""
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""
