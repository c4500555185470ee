"""Runs and actions that are ended from outside. Tasks note their processes in a diary, a directory of files named by pid."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import flyte
import flyte.errors
from flyte.remote import Action
from speak import children, raised, say, tell

env = flyte.TaskEnvironment(name="aborts")


def note(diary: str) -> None:
    Path(diary, str(os.getpid())).touch()


@env.task
async def sleeper(diary: str) -> int:
    """With a process of its own, which it does not tell anybody about."""
    child = subprocess.Popen(["sleep", "600"])
    Path(diary, str(child.pid)).touch()
    note(diary)
    await asyncio.sleep(600)
    return 1


@env.task
def deaf(diary: str) -> int:
    """Does not want to hear that it is to end."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    note(diary)
    time.sleep(600)
    return 1


@env.task
async def parent(diary: str) -> int:
    note(diary)
    return sum(await asyncio.gather(sleeper(diary), deaf.aio(diary)))


@env.task
async def tolerant(diary: str) -> str:
    try:
        await sleeper(diary)
    except flyte.errors.ActionAbortedError as error:
        return f"caught: {error}"
    return "nothing was raised"


@env.task
async def failing(diary: str) -> int:
    """Its failure takes its other child along."""
    child = asyncio.create_task(sleeper(diary))
    await noted(diary, 2)
    raise ValueError(f"the parent gives up {child.get_name()}")


@env.task(timeout=2)
async def hurried(diary: str) -> int:
    """Its time is up while it waits for its child."""
    return await sleeper(diary)


async def noted(diary: str, count: int) -> list[int]:
    async with asyncio.timeout(30):
        while len(pids(diary)) < count:
            await asyncio.sleep(0.05)
        return pids(diary)


def pids(diary: str) -> list[int]:
    return [int(path.name) for path in Path(diary).iterdir()]


def diary() -> str:
    return tempfile.mkdtemp()


if __name__ == "__main__":
    flyte.init_from_config()
    pages = [diary() for _ in range(4)]
    tasks = (parent, tolerant, failing, hurried)
    whole, one, failed, late = (flyte.run(task, diary=page) for task, page in zip(tasks, pages, strict=True))
    processes = asyncio.run(noted(pages[0], 4))
    whole.abort("no longer wanted")
    whole.abort("said twice")
    tell("run", whole, pids=processes, raised=raised(whole))
    say("run children", actions=children(whole))
    processes = asyncio.run(noted(pages[1], 2))
    child = next(action for action in Action.listall(for_run_name=one.name) if action.name != "a0")
    child.abort("this one only")
    tell("action", one, pids=processes)
    say("action children", actions=children(one))
    tell("failed parent", failed, pids=asyncio.run(noted(pages[2], 2)))
    say("failed parent children", actions=children(failed))
    tell("late parent", late, pids=pids(pages[3]))
    say("late parent children", actions=children(late))
