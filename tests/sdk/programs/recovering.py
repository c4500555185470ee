"""A run that failed, and runs that go on from what it had done."""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path

import flyte
from flyte.remote import Action
from speak import children, say, tell

env = flyte.TaskEnvironment(name="recovering")


@env.task
async def stamp(word: str) -> str:
    return f"{word} {uuid.uuid4().hex}"


@env.task
async def fragile(flag: str) -> list[str]:
    first = await stamp("first")
    if not Path(flag).exists():
        raise RuntimeError("not yet")
    return [first, await stamp("second")]


if __name__ == "__main__":
    flyte.init_from_config()
    flag = Path(tempfile.mkdtemp()) / "flag"
    failed = flyte.run(fragile, flag=str(flag))
    tell("failed", failed)
    child = next(action for action in Action.listall(for_run_name=failed.name) if action.name != "a0")
    flag.touch()
    runs = {
        "recovered": flyte.rerun(failed.name, recover=True),
        "forced": flyte.rerun(failed.name, recover=True, force_rerun_actions=[child.name]),
        "again": flyte.rerun(failed.name),
    }
    runs["recovered"].wait(quiet=True)
    runs["twice"] = flyte.rerun(runs["recovered"].name, recover=True)
    for case, run in runs.items():
        tell(case, run)
        say(f"{case} children", actions=children(run))
