"""Tasks that are more than a function: timers, pools, pods, containers, types that take a cluster."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from datetime import timedelta

import flyte
import flyte.errors
from flyte.extend import AsyncFunctionTaskTemplate, TaskPluginRegistry
from flyte.extras import ContainerTask, Sleep
from flyteidl2.core import tasks_pb2
from speak import children, raised, say, tell

env = flyte.TaskEnvironment(name="kinds", env_vars={"FROM_TASK": "task"})
pooled = flyte.TaskEnvironment(name="pooled", reusable=flyte.ReusePolicy(replicas=2, idle_ttl=60))
podded = flyte.TaskEnvironment(name="podded", pod_template=flyte.PodTemplate(labels={"team": "ours"}))
named = flyte.TaskEnvironment(name="named", pod_template="a-template-of-the-cluster")


@dataclass
class Cluster:
    """The plugin of a task type that this machine has nothing for."""


@dataclass(kw_only=True)
class ClusterTask(AsyncFunctionTaskTemplate):
    plugin_config: Cluster
    task_type: str = "spark"


@dataclass
class Connected:
    """The plugin of a task type that nobody here has heard of, and that has no container."""


@dataclass(kw_only=True)
class ConnectedTask(AsyncFunctionTaskTemplate):
    plugin_config: Connected
    task_type: str = "quantum"

    def sql(self, sctx: object) -> tasks_pb2.Sql:
        return tasks_pb2.Sql(statement="select 1")


TaskPluginRegistry.register(Cluster, ClusterTask)
TaskPluginRegistry.register(Connected, ConnectedTask)

spark_env = flyte.TaskEnvironment(name="sparks", plugin_config=Cluster())
quantum_env = flyte.TaskEnvironment(name="quanta", plugin_config=Connected())


class Tracker(flyte.Link):
    """Names are put in by the client where it knows them, else by the server."""

    name = "Tracker"
    icon_uri = ""

    def get_link(
        self,
        run_name: str,
        project: str,
        domain: str,
        context: dict[str, str],
        parent_action_name: str,
        action_name: str,
        pod_name: str,
        **_: object,
    ) -> str:
        return f"https://tracker.example/{project}/{run_name}/{action_name}/{pod_name}"


sleep_env = flyte.TaskEnvironment(name="sleeps", plugin_config=Sleep())

container = ContainerTask(
    name="hello_container",
    image="debian:stable-slim",
    command=["/bin/echo", "hello"],
)
containers = flyte.TaskEnvironment.from_task("containers", container)


@sleep_env.task
async def nap(duration: timedelta) -> None:
    """The server does this, and needs no process for it."""


@spark_env.task
async def sparkling() -> int:
    return 1


@quantum_env.task
async def entangled() -> int:
    return 1


@pooled.task
async def reused() -> int:
    return os.getpid()


@podded.task
async def in_pod() -> int:
    return os.getpid()


@named.task
async def in_named_pod() -> int:
    return os.getpid()


@env.task
async def napping() -> list[float]:
    begun = time.monotonic()
    await asyncio.gather(*(nap(timedelta(seconds=0.3 + number / 100)) for number in range(20)))
    return [time.monotonic() - begun]


@env.task(links=[Tracker()])
async def tracked() -> int:
    return 1


@env.task
async def tracker() -> int:
    return await tracked()


@env.task
async def in_parent() -> list[int]:
    return [await reused(), await in_pod()]


if __name__ == "__main__":
    flyte.init_from_config()
    run = {
        "nap": flyte.run(nap, duration=timedelta(seconds=0.2)),
        "naps": flyte.run(napping),
        "reused": flyte.run(reused),
        "pod": flyte.run(in_pod),
        "named pod": flyte.run(in_named_pod),
        "children": flyte.run(in_parent),
        "tracker": flyte.run(tracker),
        "container": flyte.run(container),
        "spark": flyte.run(sparkling),
        "unknown": flyte.run(entangled),
    }
    for case in run:
        tell(case, run[case], raised=raised(run[case]))
    say("naps children", actions=children(run["naps"]))
    say("tracker children", run=run["tracker"].name, actions=children(run["tracker"]))
