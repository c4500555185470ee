"""What programs are made of: tasks in tasks, maps, groups, context, traces, files, reports, checkpoints."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

import flyte
import flyte.report
from flyte.io import Dir, File
from speak import children, say, tell

env = flyte.TaskEnvironment(name="shapes", env_vars={"FROM_TASK": "task", "FROM_BOTH": "task"})


@env.task
async def square(x: int) -> int:
    return x * x


@env.task
async def sum_of_squares(n: int) -> int:
    return sum(await asyncio.gather(*(square(x) for x in range(n))))


@env.task
async def tower(n: int) -> int:
    return 0 if n == 0 else 1 + await tower(n - 1)


@env.task
def double(x: int) -> int:
    return 2 * x


@env.task
def doubled(n: int) -> list[int]:
    return list(flyte.map(double, range(n)))


@env.task
async def grouped() -> int:
    with flyte.group("pair"):
        first, second = await asyncio.gather(square(5), square(6))
    return first + second


@env.task
async def context() -> dict[str, str]:
    return flyte.get_custom_context()


@env.task
async def contexts() -> dict[str, str]:
    with flyte.custom_context(shade="dark"):
        return await context()


@flyte.trace
async def spelled(number: int) -> str:
    return {1: "one", 2: "two"}.get(number, "many")


@env.task
async def traced() -> str:
    return " ".join([await spelled(1), await spelled(2), await spelled(3)])


@env.task
async def upper(text: File) -> File:
    async with text.open("rb") as file:
        content = bytes(await file.read())
    result = Path(tempfile.mkdtemp()) / "upper.txt"
    result.write_bytes(content.upper())
    return await File.from_local(str(result))


@env.task
async def listed(folder: Dir) -> list[str]:
    return sorted([file.name async for file in folder.walk()])


@env.task
async def made_folder() -> Dir:
    folder = Path(tempfile.mkdtemp())
    (folder / "below").mkdir()
    (folder / "one.txt").write_text("1")
    (folder / "below" / "two.txt").write_text("2")
    return await Dir.from_local(str(folder))


@env.task
async def files(text: File) -> tuple[File, list[str]]:
    return await upper(text), await listed(await made_folder())


@env.task(report=True)
async def reported() -> int:
    await flyte.report.replace.aio("<h1>All is well</h1>")
    await flyte.report.flush.aio()
    return 1


@env.task(retries=2)
async def resumed() -> list[str]:
    """Each attempt adds a word to what the attempt before it saved; the third one is the last."""
    context = flyte.ctx()
    checkpoint = context.checkpoint
    found = await checkpoint.load()
    words = found.read_text().split() if found and found.is_file() else []
    words.append(f"attempt{os.environ['FLYTE_ATTEMPT_NUMBER']}")
    await checkpoint.save(" ".join(words).encode())
    if len(words) < 3:
        raise RuntimeError(f"ended after {words[-1]}")
    return words


@env.task(retries=1)
async def starts() -> list[str]:
    """The run's start as each attempt sees it."""
    checkpoint = flyte.ctx().checkpoint
    found = await checkpoint.load()
    before = found.read_text().split() if found and found.is_file() else []
    seen = [*before, flyte.ctx().run_start_time.isoformat()]
    await checkpoint.save(" ".join(seen).encode())
    if len(seen) < 2:
        raise RuntimeError("once more")
    return seen


@env.task
async def environment() -> dict[str, str]:
    names = ("FROM_TASK", "FROM_RUN", "FROM_BOTH", "FLYTE_ATTEMPT_NUMBER", "FLYTECTL_CONFIG", "DO_NOT_TRACK")
    found = {name: os.environ[name] for name in names if name in os.environ}
    return {**found, "interpreter": sys.executable}


@env.task
async def spoken() -> None:
    print("first line")
    print("to stderr", file=sys.stderr)
    print("a line without an end", end="")


def files_through() -> None:
    text = Path(tempfile.mkdtemp()) / "text.txt"
    text.write_text("quiet words")
    run = flyte.run(files, text=File.from_local_sync(str(text)))
    run.wait(quiet=True)
    made, names = run.outputs()
    with made.open_sync("rb") as file:
        say("files", text=bytes(file.read()).decode(), names=names)


STARTS = {
    "nested": lambda: flyte.run(sum_of_squares, n=3),
    "deep": lambda: flyte.run(tower, n=3),
    "map": lambda: flyte.run(doubled, n=3),
    "group": lambda: flyte.run(grouped),
    "context": lambda: flyte.with_runcontext(custom_context={"colour": "blue"}).run(contexts),
    "trace": lambda: flyte.run(traced),
    "report": lambda: flyte.run(reported),
    "checkpoint": lambda: flyte.run(resumed),
    "starts": lambda: flyte.run(starts),
    "environment": lambda: flyte.with_runcontext(env_vars={"FROM_RUN": "run", "FROM_BOTH": "run"}).run(environment),
    "logs": lambda: flyte.run(spoken),
}


if __name__ == "__main__":
    flyte.init_from_config()
    cases = sys.argv[1:]
    if "files" in cases:
        files_through()
    runs = {case: STARTS[case]() for case in cases if case in STARTS}
    for case, run in runs.items():
        tell(case, run)
        if case in ("nested", "map", "group", "trace"):
            say(f"{case} children", actions=children(run))
        elif case == "report":
            say(case, html=run.get_report())
        elif case == "logs":
            say(case, lines=list(run.get_logs()))
