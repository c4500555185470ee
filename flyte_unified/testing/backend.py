"""A whole server on a free port with a directory of its own, gone at the end. Nothing of the user's home is read or written."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import structlog
import yaml
from flyteidl2.project import project_service_pb2

from flyte_unified.manager import Manager
from flyte_unified.rpc.sockets import listen
from flyte_unified.settings import Settings, load, remote_bundles

_START_SECONDS = 30.0


def settings_in(directory: Path, values: Mapping[str, Any] | None = None) -> Settings:
    """Settings of a server whose data lies in ``directory`` and ends with it; ``values`` by ``section.key``.

    Code bundles lie elsewhere: the SDK remembers for a day where it uploaded one, and a later server may get the same port.
    """
    local = Path(tempfile.gettempdir()) / f"flyte-unified-bundles-{os.getuid()}"
    bundles = remote_bundles((values or {}).get("storage.root", "")) or local
    defaults = {"data.ephemeral": True, "storage.bundles": str(bundles), "server.port": 0}
    return load(environ={}, flags={"data.dir": str(directory)}).with_values({**defaults, **(values or {})}, source="test")


@asynccontextmanager
async def running(values: Mapping[str, Any] | None = None, *, directory: Path | None = None) -> AsyncGenerator[Manager]:
    """A server in this event loop. ``directory`` keeps its data afterwards; else it is temporary.

    Its log is structlog's; where nobody configured that, only warnings are shown.
    """
    if not structlog.is_configured():
        structlog.configure(processors=[_warnings, *structlog.get_config()["processors"]])
    with tempfile.TemporaryDirectory(prefix="flyte-", ignore_cleanup_errors=True) as temporary:
        settings = settings_in(directory or Path(temporary), values)
        manager = Manager(settings, sockets=listen(settings.server.host, settings.server.port))
        try:
            await manager.start()
            yield manager
        finally:
            await manager.stop()


def _warnings(_logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Drops what is less. A processor: who captures the log, as a test does, takes its place and sees all."""
    if method in ("debug", "info"):
        raise structlog.DropEvent
    return event


class Backend:
    """A server in a thread, for tests that are not asynchronous. ``with Backend() as backend``."""

    def __init__(self, values: Mapping[str, Any] | None = None, *, directory: Path | None = None) -> None:
        self._values = values
        self._directory = directory
        self._started: Future[tuple[Manager, asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._ended: Future[None] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="flyte-unified")
        self.endpoint = ""
        """``localhost:port``: what ``flyte.init(endpoint=..., insecure=True)`` takes"""
        self.address = ""
        """The same as a URL"""

    def __enter__(self) -> Backend:
        self._thread.start()
        manager, self._loop, self._over = self._started.result(_START_SECONDS)
        self.manager = manager
        self.address = manager.address
        self.endpoint = manager.address.removeprefix("http://")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
        self._ended.result()

    def create_project(self, name: str) -> None:
        """A new project, with every domain. Raises AlreadyExists."""
        project = project_service_pb2.Project(id=name, name=name)
        asyncio.run_coroutine_threadsafe(self.manager.projects.create(project), self._loop).result(_START_SECONDS)

    def write_config(self, path: Path, *, project: str, domain: str = "development") -> Path:
        """A configuration file for the SDK and its command line, at ``path``: ``flyte.init_from_config(path)``."""
        config = {
            "admin": {"endpoint": f"dns:///{self.endpoint}", "insecure": True},
            "image": {"builder": "remote"},
            "task": {"project": project, "domain": domain},
        }
        path.write_text(yaml.safe_dump(config))
        return path

    async def _serve(self) -> None:
        over = asyncio.Event()
        try:
            async with running(self._values, directory=self._directory) as manager:
                self._started.set_result((manager, asyncio.get_running_loop(), over))
                await over.wait()
        except BaseException as error:
            (self._ended if self._started.done() else self._started).set_exception(error)
        else:
            self._ended.set_result(None)
