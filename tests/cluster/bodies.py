"""The bodies of attempts, as they come to the test: who runs, who ran, and whether anything ever ran twice at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from flyteidl2.task import task_definition_pb2

from tests.unit.executor.world import spec

_PROGRAM = Path(__file__).with_name("body.py")
AWAY = float(os.environ.get("FLYTE_TEST_AWAY", "0"))
"""Seconds for which API server and database are away, at the least. A minute takes a minute, so not by default."""
PATIENCE = 25.0 + 2 * AWAY
"""Seconds after which what a test waits for has not happened."""


@dataclass(eq=False)
class Body:
    """One process. It waits until it is told how to end."""

    run: str
    action: str
    attempt: int
    pid: int
    writer: asyncio.StreamWriter
    told: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self, status: int = 0) -> None:
        self.told = True
        self.writer.write(b"%d\n" % status)


class Bodies:
    """``all`` in the order in which they came; ``twice`` names actions that came while a body of theirs was still there."""

    def __init__(self, path: Path, *, s3: str = "") -> None:
        self.path = path
        self.all: list[Body] = []
        self.twice: list[str] = []
        self.open = False
        """Whether who comes may go on at once."""
        self._s3 = s3 or "-"
        self._news = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def meeting(self) -> AsyncIterator[Bodies]:
        server = await asyncio.start_unix_server(self._meet, self.path)
        try:
            yield self
        finally:
            server.close()
            for body in self.all:
                body.writer.close()
            await asyncio.gather(*(body.over.wait() for body in self.all))

    def task(self, *, retries: int = 0) -> task_definition_pb2.TaskSpec:
        """A task whose body this is. To be taken for Flyte's runtime, its command line names that."""
        message = spec(retries=retries)
        message.task_template.interface.SetInParent()
        container = message.task_template.container
        container.image = "registry.test/any:v1"
        container.command[:] = [sys.executable, "-I", "-S", str(_PROGRAM)]
        container.args[:] = [str(self.path), "{{.outputPrefix}}", self._s3, "a0"]
        return message

    async def comes(self, run: str, attempt: int = 1, action: str = "a0") -> Body:
        """The body of that attempt, there already or to come."""

        def found() -> Body | None:
            wanted = (run, action, attempt)
            return next((body for body in self.all if (body.run, body.action, body.attempt) == wanted), None)

        await self.until(found)
        body = found()
        assert body is not None
        return body

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE), self._news:
            await self._news.wait_for(lambda: bool(holds()))

    def let_go(self) -> None:
        """Everybody, and whoever comes later."""
        self.open = True
        for body in self.all:
            if not body.told:
                body.end()

    def of(self, run: str) -> list[int]:
        """The attempts of ``run`` that had a body, in the order in which they came."""
        return [body.attempt for body in self.all if body.run == run]

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = Body(**json.loads(await reader.readline()), writer=writer)
        here = [other for other in self.all if not other.over.is_set()]
        self.twice += [f"{body.run}/{body.action}" for o in here if (o.run, o.action) == (body.run, body.action)]
        self.all.append(body)
        if self.open:
            body.end()
        async with self._news:
            self._news.notify_all()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
        body.over.set()
        async with self._news:
            self._news.notify_all()
