"""A parent task, a fan-out and a map: what most programs are made of.

``flyte run examples/hello.py main --names '["Ada", "Grace"]'``
"""

from __future__ import annotations

import asyncio

import flyte

env = flyte.TaskEnvironment(name="hello")


@env.task
async def greet(name: str) -> str:
    return f"Hello, {name}!"


@env.task
async def square(number: int) -> int:
    return number * number


@env.task
async def main(names: list[str], numbers: int = 8) -> str:
    """Greet everybody at once, and add up the squares below ``numbers``, each one an action of its own."""
    greetings = await asyncio.gather(*(greet(name) for name in names))
    print(f"greeted {len(greetings)}")
    total = 0
    async for result in flyte.map.aio(square, range(numbers)):
        total += result
    return f"{' '.join(greetings)} The squares below {numbers} add up to {total}."
