"""Trees of tasks that wait at a gate. ``trees.py <gate> <tree> <number>`` starts one and prints the run's name."""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import flyte
from flyte.artifacts import Metadata, new
from flyte.extras import Sleep
from flyte.io import File
from gate import visit

timers = flyte.TaskEnvironment(name="timers", plugin_config=Sleep())
env = flyte.TaskEnvironment(name="trees", depends_on=[timers])


@env.task
async def leaf(gate: str, number: int) -> int:
    visit(gate, f"leaf {number}")
    return number


@env.task
async def fan(gate: str, number: int) -> int:
    """Children first, and a visit while they run."""
    leaves = [asyncio.ensure_future(leaf(gate, n)) for n in range(number)]
    await asyncio.to_thread(visit, gate, "fan")
    return sum(await asyncio.gather(*leaves))


@env.task
async def late(gate: str, number: int) -> int:
    """A visit first, then a child."""
    await asyncio.to_thread(visit, gate, "late")
    return await leaf(gate, number)


@env.task
async def stubborn(gate: str, number: int) -> int:
    """Does not end when it is asked to."""
    signal.signal(signal.SIGTERM, lambda *_: visit(gate, "asked to end"))
    visit(gate, "stubborn")
    return number


@env.task
async def deep(gate: str, number: int) -> int:
    return 0 if number == 0 else 1 + await deep(gate, number - 1)


@timers.task
async def moment(length: timedelta) -> None:
    """Needs no process."""


@env.task
async def one(gate: str, number: int) -> int:
    return number


@env.task
async def family(gate: str, number: int) -> int:
    """One child with a process, the others without."""
    waits = [moment(timedelta(milliseconds=10)) for _ in range(number - 1)]
    results = await asyncio.gather(one(gate, number), *waits)
    return int(results[0] or 0)


@env.task
async def families(gate: str, number: int) -> int:
    return sum(await asyncio.gather(*(family(gate, 5) for _ in range(number))))


@env.task
async def busy(gate: str, number: int) -> int:
    """Computes while its children run: it is held at the gate between their start and their end."""
    children = [asyncio.ensure_future(one(gate, n)) for n in range(number)]
    await asyncio.to_thread(visit, gate, "busy")
    return sum(await asyncio.gather(*children))


@env.task(produces_artifacts=True)
async def maker(gate: str, number: int) -> File:
    """Leaves an artifact."""
    visit(gate, "maker")
    path = Path(tempfile.mkdtemp()) / "made"
    path.write_text("made")
    return new(await File.from_local(str(path)), Metadata(name="made"))


if __name__ == "__main__":
    flyte.init_from_config()
    place, tree, size = sys.argv[1:]
    run = flyte.run(globals()[tree], gate=place, number=int(size))
    sys.stdout.write(f"{run.name}\n")
