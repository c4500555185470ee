"""A task of an operator's type, with its real library: ``libraries.py <library>``. Runs in the library's own environment."""

from __future__ import annotations

import os
import sys
from typing import Any

import flyte
from speak import say, tell


def ray() -> tuple[Any, dict[str, Any]]:
    import ray
    from flyteplugins.ray import RayJobConfig, WorkerNodeConfig

    config = RayJobConfig(worker_node_config=[WorkerNodeConfig(group_name="workers", replicas=2)])
    env = flyte.TaskEnvironment(name="rays", plugin_config=config)

    @env.task
    async def squares(n: int) -> list[int]:
        square = ray.remote(lambda x: x * x)
        return list(ray.get([square.remote(x) for x in range(n)]))

    return squares, {"n": 4}


def dask() -> tuple[Any, dict[str, Any]]:
    from distributed import Client
    from flyteplugins.dask import Dask, WorkerGroup

    env = flyte.TaskEnvironment(name="dasks", plugin_config=Dask(workers=WorkerGroup(number_of_workers=2)))

    @env.task
    async def squares(n: int) -> list[int]:
        client = Client()
        assert len(client.scheduler_info()["workers"]) == 2
        processes = set(client.run(os.getpid).values())
        assert len(processes | {os.getpid()}) == 3
        return list(client.gather(client.map(lambda x: x * x, range(n))))

    return squares, {"n": 4}


def spark() -> tuple[Any, dict[str, Any]]:
    from flyteplugins.spark import Spark

    conf = {"spark.executor.instances": "2", "spark.flyte.note": "two words"}
    env = flyte.TaskEnvironment(name="sparks", plugin_config=Spark(spark_conf=conf))

    @env.task
    async def squares(n: int) -> list[int]:
        context = flyte.ctx().data["spark_session"].sparkContext
        assert context.getConf().get("spark.flyte.note") == "two words"
        return sorted(context.parallelize(range(n), 2).map(lambda x: x * x).collect())

    return squares, {"n": 4}


def torch() -> tuple[Any, dict[str, Any]]:
    from flyteplugins.pytorch import Elastic

    env = flyte.TaskEnvironment(name="torches", plugin_config=Elastic(nnodes=2, nproc_per_node=2, max_restarts=0))

    @env.task
    def squares(n: int) -> list[int]:
        import torch
        from torch import distributed

        distributed.init_process_group("gloo")
        assert distributed.get_world_size() == n
        mine = torch.tensor([distributed.get_rank() ** 2])
        all_of_them = [torch.zeros(1, dtype=mine.dtype) for _ in range(n)]
        distributed.all_gather(all_of_them, mine)
        distributed.destroy_process_group()
        return [int(each) for each in all_of_them]

    return squares, {"n": 4}


task, inputs = {"ray": ray, "dask": dask, "spark": spark, "torch": torch}[os.environ.get("LIBRARY") or sys.argv[1]]()
squares = task

if __name__ == "__main__":
    flyte.init_from_config()
    library = sys.argv[1]
    say("begun", library=library)
    tell(library, flyte.with_runcontext(env_vars={"LIBRARY": library}).run(task, **inputs))
