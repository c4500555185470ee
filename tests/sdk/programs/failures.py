"""Ways for a task to fail, and one that only looks like it."""

from __future__ import annotations

import asyncio
import atexit
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path

import flyte
import flyte.errors
from speak import children, raised, say, tell

env = flyte.TaskEnvironment(name="failures")
small = flyte.TaskEnvironment(name="small", resources=flyte.Resources(memory=("64Mi", "256Mi")))
graphic = flyte.TaskEnvironment(name="graphic", resources=flyte.Resources(gpu=1))


@env.task(retries=2)
async def stubborn() -> int:
    raise ValueError(f"no luck in attempt {os.environ['FLYTE_ATTEMPT_NUMBER']}")


@env.task(retries=3)
async def lucky() -> int:
    attempt = int(os.environ["FLYTE_ATTEMPT_NUMBER"])
    if attempt < 2:
        raise ValueError("not yet")
    return attempt


@env.task(
    retries=flyte.RetryStrategy(
        count=3, backoff=flyte.Backoff(base=timedelta(seconds=0.3), factor=2.0, cap=timedelta(seconds=0.8))
    )
)
async def patient() -> int:
    raise ValueError("never")


@env.task(retries=3)
async def hopeless() -> int:
    raise flyte.errors.NonRecoverableError("there is no other way")


@env.task(retries=5)
async def exits() -> int:
    os._exit(41)


@env.task
async def killed() -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 1


@env.task
async def survivor() -> int:
    """Crashes once, as a machine would."""
    attempt = int(os.environ["FLYTE_ATTEMPT_NUMBER"])
    if attempt == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return attempt


@env.task
async def crash_at_exit() -> int:
    """Its work is done when a library's destructor aborts the process."""
    atexit.register(os.abort)
    return 7


def _at_exit(damage: str) -> None:
    """After the SDK wrote its outputs."""
    path = Path(flyte.ctx().output_path) / "outputs.pb"

    def spoil() -> None:
        if damage == "missing":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-2])
        os._exit(0)

    atexit.register(spoil)


@env.task
async def spoiled(damage: str) -> str:
    _at_exit(damage)
    return "these outputs will not be read"


@env.task
async def needs_library() -> int:
    import a_library_that_nobody_has  # noqa: F401

    return 1


@small.task(retries=1)
async def greedy() -> int:
    hoard = b"x" * (1 << 30)
    await asyncio.sleep(60)
    return len(hoard)


@graphic.task
async def graphics() -> int:
    return 1


@env.task
async def caught_memory() -> str:
    try:
        await greedy()
    except flyte.errors.OOMError as error:
        return str(error)
    return "nothing was raised"


@env.task
async def caught() -> str:
    try:
        await hopeless()
    except flyte.errors.RuntimeUserError as error:
        return f"{type(error).__name__} {error.code}: {error}"
    return "nothing was raised"


@env.task
async def caught_crash() -> str:
    try:
        await killed()
    except flyte.errors.BaseRuntimeError as error:
        return f"{type(error).__name__} {error.code}"
    return "nothing was raised"


@env.task
async def uncaught() -> int:
    return await hopeless()


TASKS = {
    "stubborn": stubborn,
    "lucky": lucky,
    "patient": patient,
    "hopeless": hopeless,
    "exits": exits,
    "killed": killed,
    "survivor": survivor,
    "crash at exit": crash_at_exit,
    "library": needs_library,
    "memory": caught_memory,
    "graphics": graphics,
    "caught": caught,
    "caught crash": caught_crash,
    "uncaught": uncaught,
}


if __name__ == "__main__":
    flyte.init_from_config()
    cases = sys.argv[1:]
    runs = {case: flyte.run(TASKS[case]) for case in cases if case in TASKS}
    runs |= {case: flyte.run(spoiled, damage=case) for case in cases if case not in TASKS}
    for case, run in runs.items():
        tell(case, run, raised=raised(run))
    for case in {"memory", "uncaught"} & runs.keys():
        say(f"{case} children", actions=children(runs[case]))
