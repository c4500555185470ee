"""What a user runs on their own machine while the server looks on."""

from __future__ import annotations

import asyncio
import sys

import flyte
import flyte.remote
import flyte.report

env = flyte.TaskEnvironment(name="tracked")
_tries: list[str] = []


@flyte.trace
async def note(text: str) -> str:
    return text.upper()


@env.task
async def square(x: int) -> int:
    return x * x


@env.task(retries=2)
async def shaky(x: int) -> int:
    """The second try does it."""
    _tries.append("one")
    if len(_tries) < 2:
        raise ValueError("not yet")
    return await square(x)


@env.task(report=True)
async def main(n: int = 3, name: str = "you") -> str:
    await flyte.report.replace.aio(f"<p>{name} has {n}</p>", do_flush=True)
    squares = await asyncio.gather(*(square(x) for x in range(n)))
    return f"{await note(name)}: {sum(squares) + await shaky(10)}"


@env.task
async def breaks(x: int) -> int:
    raise ValueError(f"no use for {x}")


@env.task
async def broken() -> int:
    return await breaks(7)


@env.task
async def endless() -> None:
    print("it runs", flush=True)
    await asyncio.sleep(600)


async def here(name: str) -> None:
    await flyte.with_runcontext(mode="local", name=name, tracked=True, tracked_strict=True).run.aio(endless)


if __name__ == "__main__":
    flyte.init_from_config()
    try:
        asyncio.run(here(sys.argv[1]))
    except KeyboardInterrupt:
        flyte.remote.Run.get(sys.argv[1])  # the SDK's thread does one after the other: it has told of the end by then
