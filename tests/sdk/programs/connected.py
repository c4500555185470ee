"""Tasks that a connector runs (``farm.py``), alone and below a task that is a process."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import flyte
import flyte.errors
from appears import appears
from flyte.connectors import AsyncConnectorExecutorMixin
from flyte.extend import TaskTemplate
from flyte.models import NativeInterface, SerializationContext
from speak import raised, say, tell

FARM = os.environ.get("FARM") or sys.argv[1]
"""Where jobs are; tasks are told by the run."""


class FarmTask(AsyncConnectorExecutorMixin, TaskTemplate):
    """Twice its number, once it is grown."""

    def __init__(self, behaviour: str, *, task_type: str = "farm", water: str = "", **options: Any) -> None:
        interface = NativeInterface({"x": (int, None)}, {"o0": int})
        super().__init__(
            name=f"connected.{behaviour}.{task_type}", interface=interface, task_type=task_type, image=None, **options
        )
        self.behaviour = behaviour
        self.water = water

    def custom_config(self, sctx: SerializationContext) -> dict[str, Any]:
        secrets = {"water": self.water} if self.water else {}
        return {"behaviour": self.behaviour, "farm": FARM, "configs": {"soil": "loam"}, "secrets": secrets}


TASKS = {name: FarmTask(name) for name in ("succeeds", "forgets", "fails", "cancelled", "held", "refused")}
TASKS["watered"] = FarmTask("watered", water="well")
TASKS["parched"] = FarmTask("parched", water="dry-well")
TASKS["stumbles"] = FarmTask("stumbles", retries=1)
SILENT = FarmTask("succeeds", task_type="silent_farm")
UNKNOWN = FarmTask("succeeds", task_type="unheard_of")
jobs = flyte.TaskEnvironment.from_task("jobs", *TASKS.values(), SILENT, UNKNOWN)
env = flyte.TaskEnvironment(name="connected", depends_on=[jobs])


@env.task
async def parent(x: int) -> str:
    """Its children are jobs; one fails."""
    doubled = await asyncio.gather(*(TASKS["succeeds"](x=n) for n in range(x)))
    try:
        await TASKS["fails"](x=1)
    except flyte.errors.RuntimeUserError as error:
        return f"{doubled}, {error.code}: {error}"
    return "nothing was raised"


def main() -> None:
    """All of them; or one, which is not waited for."""
    flyte.init_from_config()
    match sys.argv[2:]:
        case [name]:
            print(flyte.run(TASKS[name], x=21).name)
        case _:
            everything()


def everything() -> None:
    runs = {name: flyte.run(task, x=21) for name, task in TASKS.items()}
    runs["silent"] = flyte.run(SILENT, x=2)
    runs["unknown"] = flyte.run(UNKNOWN, x=2)
    runs["parent"] = flyte.with_runcontext(env_vars={"FARM": FARM}).run(parent, x=3)
    held = appears(FARM, "connected.held.*/looks")
    runs["held"].abort("no more rain")
    for name, run in runs.items():
        tell(name, run, raised=raised(run))
    say("deleted", held=str(held), deleted=str(appears(FARM, "*/deleted")))


if __name__ == "__main__":
    main()
