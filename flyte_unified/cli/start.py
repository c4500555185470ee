"""``flyte-unified start``: take the port, take the data directory, run the manager until a signal.

The first Ctrl-C (or SIGTERM) ends work in order within ``server.shutdown_grace``; the second ends everything at once.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
from collections.abc import Coroutine, Iterator
from typing import TYPE_CHECKING, Any

from flyte_unified import __version__
from flyte_unified.cli import options
from flyte_unified.cli.datadir import held, temporary
from flyte_unified.rpc.sockets import listen, port_of
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
    settings = options.load(args)
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(sock) for sock in listen(settings.server.host, settings.server.port)]
        if settings.data.ephemeral:
            settings = settings.ephemeral_in(stack.enter_context(temporary()))
        stack.enter_context(held(settings.data.dir, port=port_of(sockets)))

        with _without("rich"):  # of which structlog would print tracebacks; it takes a fourteenth of a start to load
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
    with _nothing_is_garbage():
        from flyte_unified.manager import Manager

        manager = Manager(settings, sockets=sockets)
    try:
        with _nothing_is_garbage():
            started = await _done(manager.start(), unless=signals.first, name="manager start")
        if started:
            sys.stdout.write(banner(settings, manager, port=port_of(sockets)))
            sys.stdout.flush()
            await signals.first
        if sys.stderr.isatty():
            sys.stderr.write("stopping; Ctrl-C again ends everything at once\n")
        if await _done(manager.stop(), unless=signals.second, name="manager stop", within=settings.server.shutdown_grace):
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


@contextlib.contextmanager
def _nothing_is_garbage() -> Iterator[None]:
    """What a start makes stays. Looking through it for garbage would take a seventh of the start, and go on ever after."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextlib.contextmanager
def _without(module: str) -> Iterator[None]:
    """As if ``module`` were not installed."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # the import system's own way to say so
    try:
        yield
    finally:
        del sys.modules[module]


class _Signals:
    """The first and the second SIGINT or SIGTERM, as futures."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.first: asyncio.Future[None] = loop.create_future()
        self.second: asyncio.Future[None] = loop.create_future()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._received)

    def _received(self) -> None:
        future = self.second if self.first.done() else self.first
        if not future.done():
            future.set_result(None)


async def _done(
    work: Coroutine[Any, Any, None], *, unless: asyncio.Future[None], name: str, within: float | None = None
) -> bool:
    """Do ``work`` until ``unless`` or the end of ``within`` seconds. Whether it was done; its error is raised."""
    doing = asyncio.create_task(work, name=name)
    await asyncio.wait({doing, unless}, timeout=within, return_when=asyncio.FIRST_COMPLETED)
    if doing.done():
        doing.result()
        return True
    doing.cancel()
    await asyncio.wait({doing}, timeout=_KILL_TIME)
    return False


def banner(settings: Settings, manager: Manager, *, port: int) -> str:
    """What people need to know of a server that is ready: ten lines at most."""
    directory = f"{settings.data.dir}{' (removed at the end)' if settings.data.ephemeral else ''}"
    lines = {
        "Console": f"{manager.address}/v2",
        "API": manager.address,
        "Data": directory,
        "Tasks": f"{settings.execution.slots} slots, {manager.interpreter} ({manager.interpreter_reason})",
        "Settings": str(settings.file or "defaults"),
        "SDK": f"flyte-unified config client --port {port} --write .flyte/config.yaml",
    }
    return f"flyte-unified {__version__}\n" + "".join(f"  {name:<9} {value}\n" for name, value in lines.items())
