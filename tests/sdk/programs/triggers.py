"""Triggers that are deployed with their tasks, fire by themselves, and are run by hand."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import flyte
import flyte.remote
from speak import say, tell

START = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=4)

env = flyte.TaskEnvironment(name="triggers")

tick = flyte.Trigger(
    name="tick",
    automation=flyte.Cron("@every 1s"),
    inputs={"when": flyte.TriggerTime, "x": 3},
    env_vars={"MARK": "set"},
    labels={"made": "by-trigger"},
    custom_context={"who": "trigger"},
)
once = flyte.Trigger(
    name="once", automation=flyte.FixedRate(60, start_time=START), inputs={"when": flyte.TriggerTime}, auto_activate=True
)
by_hand = flyte.Trigger(name="by_hand", description="run by people", inputs={"x": 5})
on_model = flyte.Trigger(
    name="on_model", automation=flyte.OnArtifact("model", region="eu"), inputs={"x": flyte.TriggeredArtifact}
)


@env.task(triggers=[tick, by_hand, on_model])
async def stamp(when: datetime = datetime(2000, 1, 1, tzinfo=UTC), x: int = 1) -> str:
    context = flyte.ctx()
    start = context.run_start_time
    return f"{when.isoformat()} {start.isoformat()} {x} {context.custom_context.get('who')}"


@env.task(triggers=[once])
async def only_time(when: datetime) -> str:
    return when.isoformat()


def fired(name: str) -> list[flyte.remote.Run]:
    """Runs that a trigger started, the oldest first."""
    found = [
        run
        for run in flyte.remote.Run.listall(limit=100, sort_by=("created_at", "desc"))
        if run.pb2.action.metadata.trigger_name == name
    ]
    return sorted(found, key=lambda run: run.pb2.action.status.start_time.ToNanoseconds())


def wait_for(name: str, count: int) -> list[flyte.remote.Run]:
    deadline = time.monotonic() + 40
    while len(found := fired(name)) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{name}: {len(found)} of {count}")
        time.sleep(0.2)
    return found


def origin(run: flyte.remote.Run) -> dict[str, object]:
    metadata = run.pb2.action.metadata
    return {
        "trigger": metadata.trigger_id.name.name,
        "task": metadata.trigger_id.name.task_name,
        "revision": metadata.trigger_id.revision,
        "source": metadata.source,
        "labels": dict(run.pb2.labels),
    }


if __name__ == "__main__":
    flyte.init_from_config()
    flyte.deploy(env)
    for number, run in enumerate(wait_for("tick", 3)[:3]):
        tell(f"tick {number}", run, origin=origin(run))
    flyte.remote.Trigger.update("tick", "triggers.stamp", active=False)
    time.sleep(0.5)  # what was under way at that moment is there by now
    before = len(fired("tick"))
    time.sleep(2.5)
    say("paused", before=before, after=len(fired("tick")))
    (run,) = wait_for("once", 1)
    tell("once", run, start=START.isoformat(), origin=origin(run))

    trigger = flyte.remote.Trigger.get(name="by_hand", task_name="triggers.stamp")
    run = flyte.run(trigger)
    tell("by hand", run, origin=origin(run))
    tell("with another input", flyte.run(trigger, x=9))
    paused = flyte.remote.Trigger.get(name="tick", task_name="triggers.stamp")
    tell("a paused one", flyte.run(paused, x=11))
    listed = {each.name: each.is_active for each in flyte.remote.Trigger.listall(task_name="triggers.stamp", limit=1)}
    say("listed", triggers=listed)
    say("details", last=paused.status.triggered_at.seconds, revision=paused.id.revision)
