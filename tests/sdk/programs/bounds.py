"""Tasks that take too long: to run, to start, or altogether."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import flyte
import flyte.errors
from speak import children, raised, say, tell

env = flyte.TaskEnvironment(name="bounds")
large = flyte.TaskEnvironment(name="large", resources=flyte.Resources(cpu=1000))

LONG = 600
"""Seconds: nobody waits so long."""


@env.task(timeout=timedelta(seconds=0.5))
async def slow() -> int:
    await asyncio.sleep(LONG)
    return 1


@env.task(timeout=timedelta(seconds=0.5), retries=1)
async def slow_twice() -> int:
    await asyncio.sleep(LONG)
    return 1


@large.task(timeout=flyte.Timeout(max_queued_time=timedelta(seconds=0.5)))
async def crowded_out() -> int:
    """Asks for more than there is beside another task."""
    return 1


@env.task(timeout=flyte.Timeout(deadline=timedelta(seconds=1.5)), retries=1000)
async def overdue() -> int:
    await asyncio.sleep(0.2)
    raise ValueError("once more")


@env.task
async def blocker(flag: str) -> int:
    Path(flag).touch()
    await asyncio.sleep(LONG)
    return 1


@env.task
async def queued_behind() -> str:
    flag = Path.cwd() / "flag"
    occupied = asyncio.create_task(blocker(str(flag)))
    async with asyncio.timeout(60):
        while not flag.exists():
            await asyncio.sleep(0.02)
    try:
        await crowded_out()
    except flyte.errors.TaskTimeoutError as error:
        return type(error).__name__
    finally:
        occupied.cancel()
    return "nothing was raised"


@env.task
async def told() -> list[str]:
    names = []
    for task in (slow, overdue):
        try:
            await task()
        except flyte.errors.TaskTimeoutError as error:
            names.append(type(error).__name__)
    return names


if __name__ == "__main__":
    flyte.init_from_config()
    run = {
        "slow": flyte.run(slow),
        "slow twice": flyte.run(slow_twice),
        "overdue": flyte.run(overdue),
        "told": flyte.run(told),
    }
    for case in run:
        tell(case, run[case], raised=raised(run[case]))
    queued = flyte.run(queued_behind)
    tell("queued", queued)
    say("queued children", actions=children(queued))
