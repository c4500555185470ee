"""Tasks whose SDK speaks to the older QueueService and StateService, as it does unless it is told otherwise."""

from __future__ import annotations

import asyncio
import os

import flyte
from speak import tell

env = flyte.TaskEnvironment(name="older")
older = flyte.TaskEnvironment(name="by_task", env_vars={"_U_USE_ACTIONS": "0"})


@env.task
async def square(x: int) -> int:
    return x * x


@env.task
async def squares(n: int) -> list[str]:
    with flyte.group("squares"):
        found = await asyncio.gather(*(square(x) for x in range(n)))
    return [*map(str, found), os.environ["_U_USE_ACTIONS"]]


@older.task
async def add(x: int) -> str:
    return f"{x + 1} {os.environ['_U_USE_ACTIONS']}"


@older.task
async def sums(n: int) -> list[str]:
    return list(await asyncio.gather(*(add(x) for x in range(n))))


if __name__ == "__main__":
    flyte.init_from_config()
    tell("by run", flyte.with_runcontext(env_vars={"_U_USE_ACTIONS": "0"}).run(squares, n=3))
    tell("by task", flyte.run(sums, n=2))
