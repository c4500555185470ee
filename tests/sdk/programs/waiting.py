"""Runs that wait for a word from outside: the first is answered here, the last by whoever reads what is said."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta

import flyte
import flyte.errors
from flyte.remote import Condition, Run
from speak import children, say, tell

env = flyte.TaskEnvironment(name="waiting")


@env.task
async def asks() -> list[str]:
    answers = []
    for name, kind in (("sure", bool), ("count", int), ("share", float), ("word", str)):
        condition = await flyte.new_condition.aio(name, prompt=f"{name}?", data_type=kind)
        answers.append(repr(await condition.wait.aio()))
    return answers


@env.task
async def asks_once() -> bool:
    condition = await flyte.new_condition.aio("ready", prompt="Ready?", data_type=bool)
    return await condition.wait.aio()


@env.task
async def asks_in_vain() -> str:
    condition = await flyte.new_condition.aio("anyone", data_type=bool, timeout=timedelta(seconds=0.3))
    try:
        await condition.wait.aio()
    except flyte.errors.ConditionTimedoutError as error:
        return f"{type(error).__name__}"
    return "nothing was raised"


async def conditions(run: Run) -> list[Condition]:
    return [condition async for condition in Condition.listall.aio(run_name=run.name) if "PAUSED" in condition.phase]


async def appeared(run: Run) -> Condition:
    """The one condition that the run waits for, as soon as it does."""
    async with asyncio.timeout(30):
        while not (found := await conditions(run)):
            await asyncio.sleep(0.05)
        return found[0]


async def answer(run: Run) -> list[str]:
    seen = []
    for value in (True, 7, 0.25, "fine"):
        condition = await appeared(run)
        seen.append(f"{condition.name}: {condition.expected_type.__name__}")
        await condition.signal.aio(value)
    return seen


if __name__ == "__main__":
    flyte.init_from_config()
    asking = flyte.run(asks)
    vain = flyte.run(asks_in_vain)
    tell("signalled", asking, seen=asyncio.run(answer(asking)))
    tell("timeout", vain)
    say("timeout children", actions=children(vain))
    once = flyte.run(asks_once)
    condition = asyncio.run(appeared(once))
    say("waiting", run=once.name, condition=condition.name, action=condition.action_name)
    if sys.stdin.readline():
        tell("signalled from outside", once)
