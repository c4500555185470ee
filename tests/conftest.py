"""What every test gets: an event loop of its own for ``async def``, and nothing that outlives the test.

``async def test_*`` and async fixtures (function scope) run in one loop per test. What a test leaves behind fails it:
asyncio tasks, errors that nobody read, threads, child processes. Warnings are errors already (pyproject.toml).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import os
import shutil
import tempfile
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import psutil
import pytest

from tests.leftovers import stays
from tests.postgres import MISSING, postgres
from tests.virtual_time import VirtualTimeLoop

__all__ = ["postgres"]

_TURNS = 5
"""Turns of the loop that what was cancelled or closed in a test's last step may take to end."""
_PATIENCE = 2.0
"""Seconds in which a thread that was told to end, or a process that was killed, must be gone."""
_LONGEST = 300.0
"""Seconds after which a test that waits for what never comes is told where it waits, and fails."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "virtual_time: run in a loop whose clock jumps when it is idle")
    config.addinivalue_line("markers", "only_sqlite: has no meaning on another database")
    for name in [name for name in os.environ if name.startswith("FLYTE_UNIFIED_")]:
        del os.environ[name]
    os.environ["DO_NOT_TRACK"] = "1"
    # CI judges a change: it draws the same examples every time. At a desk they are new each time, and find more.
    for name, fixed in (("ci", True), ("desk", False)):
        hypothesis.settings.register_profile(
            name, derandomize=fixed, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
        )
    hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "desk")


def pytest_collection_finish() -> None:
    gc.freeze()  # modules and tests stay to the end: no collection need look at them again


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if MISSING:
        terminalreporter.write_line(f"tests over Postgres were left out: {MISSING}")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory with a short name, because a Unix socket's path has room for about 100 bytes."""
    path = Path(tempfile.mkdtemp(prefix="fu-", dir=Path("/tmp").resolve()))
    yield path
    shutil.rmtree(path)


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    threads = set(threading.enumerate())
    children = set(_children())
    yield
    left = _surviving_threads(threads) + [_end(child) for child in _children() if child not in children]
    if left:
        pytest.fail(f"the test left behind: {', '.join(left)}", pytrace=False)


@pytest.fixture
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    """The loop of this test's coroutines and of its async fixtures."""
    virtual = request.node.get_closest_marker("virtual_time") is not None
    unread: list[str] = []
    with asyncio.Runner(debug=False, loop_factory=VirtualTimeLoop if virtual else None) as runner:
        loop = runner.get_loop()
        loop.set_exception_handler(lambda _, context: unread.append(_told(context)))
        yield runner
        left = runner.run(_settle())
    if left or unread:
        pytest.fail("the test left behind: " + ", ".join(left + unread), pytrace=False)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    runner: asyncio.Runner = pyfuncitem._request.getfixturevalue("runner")
    bounded = pyfuncitem.get_closest_marker("virtual_time") is None
    runner.run(_within(_LONGEST if bounded else None, pyfuncitem.obj(**arguments)))
    return True


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> Generator[None, object, object]:
    original = fixturedef.func
    if not (inspect.isasyncgenfunction(original) or inspect.iscoroutinefunction(original)):
        return (yield)
    runner: asyncio.Runner = request.getfixturevalue("runner")
    synchronous = _generator if inspect.isasyncgenfunction(original) else _function
    fixturedef.func = synchronous(original, runner)
    try:
        return (yield)
    finally:
        fixturedef.func = original


def _function(original: Callable[..., Any], runner: asyncio.Runner) -> Callable[..., Any]:
    def fixture(*args: Any, **kwargs: Any) -> Any:
        return runner.run(original(*args, **kwargs))

    return fixture


def _generator(original: Callable[..., Any], runner: asyncio.Runner) -> Callable[..., Any]:
    def fixture(*args: Any, **kwargs: Any) -> Iterator[Any]:
        loop = runner.get_loop()
        entered: asyncio.Future[Any] = loop.create_future()
        leave = asyncio.Event()
        held = loop.create_task(_held(original(*args, **kwargs), entered, leave), name=original.__qualname__)
        yield runner.run(_result(entered))
        leave.set()
        runner.run(_result(held))

    return fixture


async def _held(iterator: AsyncGenerator[Any], entered: asyncio.Future[Any], leave: asyncio.Event) -> None:
    """Both halves of a fixture in one task, as a task group or a timeout around its ``yield`` needs it."""
    try:
        entered.set_result(await anext(iterator))
    except Exception as error:
        entered.set_exception(error)
        return
    await leave.wait()
    async for _ in iterator:
        raise RuntimeError("an async fixture yields once")


async def _within(seconds: float | None, test: Awaitable[None]) -> None:
    async with asyncio.timeout(seconds):
        await test


async def _result(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


async def _settle() -> list[str]:
    """The tasks that are still there after a few turns of the loop, by name."""
    for _ in range(_TURNS):
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if not others:
            return []
        await asyncio.sleep(0)
    return [f"task {task.get_name()} at {task.get_coro()}" for task in others if not task.done()]


def _told(context: dict[str, Any]) -> str:
    return f"{context.get('message')}: {context.get('exception')!r}"


def _surviving_threads(before: set[threading.Thread]) -> list[str]:
    survivors = [thread for thread in threading.enumerate() if thread not in before and not stays(thread)]
    for thread in survivors:
        thread.join(_PATIENCE)
    return [f"thread {thread.name}" for thread in survivors if thread.is_alive()]


def _children() -> list[psutil.Process]:
    try:
        if hasattr(os, "waitid"):  # one system call says that there are none, which is nearly always so
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return []
    return psutil.Process().children(recursive=True)


def _end(child: psutil.Process) -> str:
    """Kill what a test forgot, so that the next one is not judged by it."""
    told = f"process {child.pid}"
    with contextlib.suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
        told = f"{told} ({child.status()}) {' '.join(child.cmdline())}"
        child.kill()
        child.wait(_PATIENCE)
    return told
