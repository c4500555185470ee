"""One user who does a little of everything, for the sake of the requests that the SDK makes of it."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import flyte
import flyte.report
from flyte.io import File
from flyte.remote import Action, ActionDetails, Condition, Project, Run, Task, User
from flyte.remote._common import TimeFilter

env = flyte.TaskEnvironment(name="everything")
older = flyte.TaskEnvironment(name="older", env_vars={"_U_USE_ACTIONS": "0"})
whole = flyte.TaskEnvironment(name="whole", depends_on=[env])


@env.task(cache="auto", retries=1)
async def square(x: int) -> int:
    return x * x


@older.task
async def older_square(x: int) -> int:
    return x * x


@older.task
async def older_squares(n: int) -> list[int]:
    return list(await asyncio.gather(*(older_square(x) for x in range(n))))


@flyte.trace
async def spelled(number: int) -> str:
    if number > 2:
        raise ValueError("too many")
    return "one" if number == 1 else "two"


@env.task
async def fails() -> None:
    raise ValueError("as it should")


@env.task(report=True)
async def parent(text: File, n: int = 2) -> list[str]:
    sys.stdout.write("a line of the log\n")
    await flyte.report.replace.aio("<h1>Fine</h1>", do_flush=True)
    with flyte.group("squares"):
        found = await asyncio.gather(*(square(x) for x in range(n)))
    words = [await spelled(1), await spelled(2)]
    for attempt in (spelled(3), fails()):
        try:
            await attempt
        except Exception as error:
            words.append(type(error).__name__)
    condition = await flyte.new_condition.aio("sure", prompt="Sure?", data_type=bool)
    words.append(str(await condition.wait.aio()))
    async with text.open("rb") as file:
        words.append(bytes(await file.read()).decode())
    return [*map(str, found), *words]


@env.task
async def waits() -> None:
    await asyncio.sleep(600)


async def answer(run: Run) -> None:
    async with asyncio.timeout(30):
        while True:
            async for condition in Condition.listall.aio(run_name=run.name):
                if "PAUSED" in condition.phase:
                    await condition.signal.aio(True)
                    return
            await asyncio.sleep(0.05)


def runs() -> None:
    text = Path(tempfile.mkdtemp()) / "text.txt"
    text.write_text("hello")
    waiting = flyte.with_runcontext(name="everything-waits", interruptible=False).run(waits)
    told = flyte.with_runcontext(
        labels={"team": "red"}, annotations={"a": "b"}, env_vars={"A": "1"}, queue="default", max_action_concurrency=4
    )
    run = told.run(parent, text=File.from_local_sync(str(text)))
    olders = flyte.run(older_squares, n=2)
    asyncio.run(answer(run))
    run.wait(quiet=True)
    assert len(run.outputs()[0]) == 8, run.outputs()
    run.inputs()
    list(run.get_logs())
    run.get_report()
    run.download_code()
    olders.wait(quiet=True)
    waiting.abort(reason="enough")
    waiting.wait(quiet=True)
    flyte.rerun(run.name, recover=True).abort()
    lists(run)


def lists(run: Run) -> None:
    hour = TimeFilter(after=datetime.now(UTC) - timedelta(hours=1), before=datetime.now(UTC))
    me = User.get()
    list(
        Run.listall(
            in_phase=("succeeded", "failed"),
            task_name="everything.parent",
            task_version="1",
            created_by_subject=me.subject(),
            sort_by=("created_at", "desc"),
            limit=3,
            created_at=hour,
            updated_at=hour,
            with_labels={"team": "red"},
            with_label_keys=["team"],
        )
    )
    list(Run.listall(in_phase=("running",), paused_actions_only=True))
    list(Action.listall(for_run_name=run.name, in_phase=("succeeded",), sort_by=("created_at", "asc")))
    for action in list(Action.listall(for_run_name=run.name)):
        ActionDetails.get(run_name=run.name, name=action.name)
    Run.get(run.name).details()


def tasks() -> None:
    flyte.deploy(whole, version="1")
    flyte.deploy(whole, version="1")
    list(Task.listall(by_task_name="everything.square", limit=5))
    task = Task.get("everything.square", auto_version="latest")
    task.fetch()
    flyte.run(task, x=3).wait(quiet=True)


def projects() -> None:
    Project.create(id="everything-new", name="New", description="One", labels={"a": "b"})
    Project.update(id="everything-new", description="Another")
    project = Project.get("everything-new")
    project.archive()
    project.unarchive()
    list(Project.listall(sort_by=("created_at", "asc")))


if __name__ == "__main__":
    flyte.init_from_config()
    projects()
    tasks()
    runs()
