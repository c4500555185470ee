"""What a new user runs from the command line."""

from __future__ import annotations

import asyncio

import flyte

env = flyte.TaskEnvironment(name="hello")


@env.task
async def square(x: int) -> int:
    return x * x


@env.task
async def main(n: int = 2, name: str = "you") -> str:
    print(f"hello {name}")
    return f"{name}: {sum(await asyncio.gather(*(square(x) for x in range(n))))}"


@env.task
async def endless() -> None:
    await asyncio.sleep(600)
