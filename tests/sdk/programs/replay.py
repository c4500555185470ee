"""A parent that dies between its steps, and goes on where it was. What runs leaves a line in a diary."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

import flyte
from speak import children, say, tell

env = flyte.TaskEnvironment(name="replay")


def write(diary: str, line: str) -> None:
    with Path(diary).open("a") as file:
        file.write(f"{line}\n")


@env.task
async def child(diary: str, name: str) -> str:
    write(diary, f"child {name}")
    return name.upper()


@flyte.trace
async def noted(diary: str, name: str) -> str:
    write(diary, f"trace {name}")
    return name.title()


@flyte.trace
async def fails(diary: str) -> str:
    write(diary, "trace that fails")
    raise ValueError("a trace may fail")


@env.task(retries=1)
async def crashing(diary: str, how: str) -> list[str]:
    done = [await child(diary, "first"), await noted(diary, "second")]
    try:
        await fails(diary)
    except ValueError as error:
        done.append(str(error))
    if os.environ["FLYTE_ATTEMPT_NUMBER"] == "0":
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise RuntimeError("half way")
    return [*done, await child(diary, "third"), await noted(diary, "fourth")]


if __name__ == "__main__":
    flyte.init_from_config()
    directory = Path(tempfile.mkdtemp())
    runs = {how: flyte.run(crashing, diary=str(directory / how), how=how) for how in ("killed", "raised")}
    for how, run in runs.items():
        tell(how, run)
        say(f"{how} diary", lines=(directory / how).read_text().splitlines())
        say(f"{how} children", actions=children(run))
