"""``flyte-unified start``: take the port, take the data directory, run the manager until a signal.

The first Ctrl-C (or SIGTERM) ends work in order within ``server.shutdown_grace``; the second ends everything at once.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from flyte_unified import __version__
from flyte_unified.cli import options
from flyte_unified.cli.datadir import held, temporary
from flyte_unified.cli.listen import listen, port_of
from flyte_unified.core.errors import FailedPrecondition
from flyte_unified.settings import Settings

if TYPE_CHECKING:
    from flyte_unified.manager import Manager

_KILL_TIME = 1.0
"""Seconds that ending everything at once may take."""
_INTERRUPTED = 128 + signal.SIGINT


def add_to(verbs: Any) -> None:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "start",
        help="run the server",
        description="Run the server until Ctrl-C. A second Ctrl-C ends it at once.",
        epilog="Every other setting: flyte.yaml or the environment; see `flyte-unified config show`.",
    )
    options.add(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if sys.platform == "win32":
        raise FailedPrecondition("Windows is not supported; run flyte-unified in WSL")
    settings = options.load(args)
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(sock) for sock in listen(settings.server.host, settings.server.port)]
        if settings.data.ephemeral:
            settings = settings.ephemeral_in(stack.enter_context(temporary()))
        stack.enter_context(held(settings.data.dir, port=port_of(sockets)))

        from flyte_unified import logs

        logs.configure(settings.log)
        runner = asyncio.Runner()
        try:
            in_order = runner.run(_serve(settings, sockets))
        except BaseException:
            runner.close()
            raise
        if in_order:
            runner.close()
            return 0
    sys.stderr.flush()
    os._exit(_INTERRUPTED)  # closing the loop, and an ordinary exit, would wait for threads that still work


async def _serve(settings: Settings, sockets: list[socket.socket]) -> bool:
    """Run until a signal. True after a stop in order, False after one that was cut short."""
    signals = _Signals()
    from flyte_unified.manager import Manager

    manager = Manager(settings, sockets=sockets)
    try:
        if await signals.until(manager.start(), name="manager start"):
            sys.stdout.write(banner(settings, manager.address, port=port_of(sockets)))
            sys.stdout.flush()
            await signals.next()
        if sys.stderr.isatty():
            sys.stderr.write("stopping; Ctrl-C again ends everything at once\n")
        if await signals.until(manager.stop(), name="manager stop", within=settings.server.shutdown_grace):
            return True
    except BaseException:
        await _kill(manager)
        raise
    await _kill(manager)
    return False


async def _kill(manager: Manager) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_KILL_TIME):
            await manager.kill()


class _Signals:
    """SIGINT and SIGTERM as something to wait for, each one once."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[int] = asyncio.Queue()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._queue.put_nowait, number)

    async def next(self) -> int:
        return await self._queue.get()

    async def until(self, work: Coroutine[Any, Any, None], *, name: str, within: float | None = None) -> bool:
        """Do ``work`` unless a signal or the end of ``within`` seconds comes first. Whether it was done."""
        doing = asyncio.create_task(work, name=name)
        told = asyncio.create_task(self.next(), name="signal")
        await asyncio.wait({doing, told}, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        done = doing.done()
        told.cancel()
        if done:
            doing.result()
        else:
            doing.cancel()
            await asyncio.wait({doing}, timeout=_KILL_TIME)
        return done


def banner(settings: Settings, address: str, *, port: int) -> str:
    """What people need to know of a server that is ready: ten lines at most."""
    directory = f"{settings.data.dir}{' (removed at the end)' if settings.data.ephemeral else ''}"
    lines = {
        "Console": f"{address}/v2",
        "API": address,
        "Data": directory,
        "Tasks": f"{settings.execution.slots} slots, {settings.execution.python}",
        "Settings": str(settings.file or "defaults"),
        "SDK": f"flyte-unified config client --port {port} --write .flyte/config.yaml",
    }
    return f"flyte-unified {__version__}\n" + "".join(f"  {name:<9} {value}\n" for name, value in lines.items())
