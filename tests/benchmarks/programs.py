"""What a client runs: the stock SDK, warm, from ``flyte.run`` to the result. One JSON line a case."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import timedelta
from typing import Any

import flyte
from flyte.extras import Sleep

sleeps = flyte.TaskEnvironment("sleeps", plugin_config=Sleep())


@sleeps.task
async def nap(time: timedelta) -> None: ...


parents = flyte.TaskEnvironment("parents", depends_on=[sleeps])


@parents.task
async def one() -> None:
    await nap(timedelta(0))


@parents.task
async def chain(n: int) -> None:
    for index in range(n):
        await nap(timedelta(microseconds=index))


@parents.task
async def fan(n: int) -> None:
    await asyncio.gather(*(nap(timedelta(microseconds=index)) for index in range(n)))


@parents.task
async def leaf(x: int) -> int:
    return x


@parents.task
async def leaves(n: int) -> int:
    return sum(await asyncio.gather(*(leaf(index) for index in range(n))))


CASES: dict[str, tuple[Any, dict[str, int]]] = {
    "one": (one, {}),
    "chain": (chain, {"n": 200}),
    "fan": (fan, {"n": 1000}),
    "leaves": (leaves, {"n": 100}),
    "few leaves": (leaves, {"n": 20}),
}


def main() -> None:
    endpoint, *cases = sys.argv[1:]
    flyte.init(
        endpoint=endpoint, insecure=True, project="flytesnacks", domain="development", image_builder="remote", log_level=40
    )
    for case in cases:
        task, inputs = CASES[case]
        began = time.perf_counter()
        run = flyte.run(task, **inputs)
        run.wait(quiet=True)
        run.outputs()
        sys.stdout.write(json.dumps({"case": case, "seconds": time.perf_counter() - began}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
