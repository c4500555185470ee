"""The command line with a stand-in for the manager, as a program of its own: ``fake_server.py MODE VERB ...``.

MODE says how the stand-in behaves: ``good``, ``fails`` (its start raises), ``hangs`` (its stop never ends), ``stuck``
(neither does a thread of it).
"""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import types
from collections.abc import Sequence

import structlog

from flyte_unified.core.errors import Unavailable
from flyte_unified.settings import Settings


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class Manager:
    mode = ""

    def __init__(self, settings: Settings, *, sockets: Sequence[socket.socket]) -> None:
        self.address = settings.base_url(sockets[0].getsockname()[1])
        self.interpreter, self.interpreter_reason = settings.execution.python or sys.executable, "the server's own"

    async def start(self) -> None:
        if self.mode == "fails":
            raise Unavailable("the database is away")
        if self.mode == "slow":
            say("starting")
            await asyncio.Event().wait()
        if self.mode == "stuck":
            asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)
        structlog.get_logger().info("ready")

    async def stop(self) -> None:
        say("stopping")
        if self.mode in {"hangs", "stuck"}:
            await asyncio.Event().wait()
        say("stopped")

    async def kill(self) -> None:
        say("killed")


if __name__ == "__main__":
    Manager.mode = sys.argv[1]
    module = types.ModuleType("flyte_unified.manager")
    module.Manager = Manager  # type: ignore[attr-defined]  # a module made here has what we give it
    sys.modules[module.__name__] = module
    from flyte_unified.cli import main

    sys.exit(main(sys.argv[2:]))
