"""Runs that say how they want to run: each tells what its tasks saw of it, and what the server keeps of it."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

import flyte
import flyte.errors
from flyte.io import File
from flyte.remote import Run, RunDetails
from speak import say, tell

env = flyte.TaskEnvironment(name="specified", env_vars={"OF_TASK": "task", "OF_BOTH": "task"})


@env.task
async def leaf(number: int) -> list[float]:
    """When it computed."""
    begun = time.time()
    await asyncio.sleep(0.3)
    return [begun, time.time()]


@env.task(queue="narrow")
async def narrow_leaf(number: int) -> list[float]:
    begun = time.time()
    await asyncio.sleep(0.1)
    return [begun, time.time()]


@env.task
async def fan(width: int) -> list[list[float]]:
    return list(await asyncio.gather(*(leaf(number) for number in range(width))))


@env.task
async def narrow_fan(width: int, place: str, number: int) -> list[list[float]]:
    """Begins when the other one is there, too."""
    Path(place, str(number)).touch()
    while len(list(Path(place).iterdir())) < 2:
        await asyncio.sleep(0.02)
    return list(await asyncio.gather(*(narrow_leaf(number) for number in range(width))))


@env.task
async def saw() -> list[str | None]:
    return [os.environ.get(name) for name in ("OF_TASK", "OF_RUN", "OF_BOTH")]


@env.task
async def sees() -> list[str | None]:
    """The same of a child; and where data goes."""
    raw = File.new_remote().path
    return [*await saw(), raw, os.environ["_U_RUN_BASE"]]


def kept(run: Run) -> dict[str, object]:
    """What the server says of the run's spec."""
    spec = RunDetails.get(run.name).pb2.run_spec
    return {
        "labels": dict(spec.labels.values),
        "annotations": dict(spec.annotations.values),
        "interruptible": spec.interruptible.value,
        "account": spec.security_context.run_as.k8s_service_account,
        "queue": spec.queue,
        "concurrency": spec.max_action_concurrency,
    }


if __name__ == "__main__":
    flyte.init_from_config()
    raw, base, account = sys.argv[1:]
    run = flyte.with_runcontext(
        labels={"team": "red"},
        annotations={"why": "because"},
        env_vars={"OF_RUN": "run", "OF_BOTH": "run"},
        interruptible=True,
        service_account=account,
        raw_data_path=raw,
        run_base_dir=base,
        queue="narrow",
        max_action_concurrency=4,
    ).run(sees)
    tell("all", run)
    say("kept", **kept(run))
    say("listed", runs=[[each.name, dict(each.pb2.labels)] for each in Run.listall(with_labels={"team": "red"})])
    bounded = flyte.with_runcontext(max_action_concurrency=2).run(fan, width=6)
    with tempfile.TemporaryDirectory() as directory:
        narrow = [flyte.run(narrow_fan, width=4, place=directory, number=number) for number in range(2)]
        for number, run in enumerate(narrow):
            tell(f"narrow {number}", run)
    tell("bounded", bounded)
    try:
        flyte.with_runcontext(queue="narow").run(leaf, number=0)
    except flyte.errors.RuntimeUserError as error:
        say("unknown queue", error=str(error))
