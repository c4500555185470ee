"""Clustered tasks, whose launchers are stand-ins: ``ranks.py <the stand-ins> <a directory for what ranks leave>``."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import flyte
from appears import appears
from flyte.clustered import ClusteredTaskEnvironment, ClusterFailurePolicy, JaxRun, TorchRun
from speak import tell

TORCH = TorchRun()
two_by_two = ClusteredTaskEnvironment(name="two_by_two", replicas=2, nproc_per_node=2, runtime=TORCH)
two = ClusteredTaskEnvironment(name="two", replicas=2, nproc_per_node=1, runtime=TORCH)
jax = ClusteredTaskEnvironment(name="jax", replicas=2, nproc_per_node=1, runtime=JaxRun())
patient = ClusteredTaskEnvironment(
    name="patient", replicas=1, nproc_per_node=2, runtime=TORCH, failure_policy=ClusterFailurePolicy(max_restarts=1)
)


def meet(place: str) -> list[str]:
    """Waits for all ranks; who was there, by the files that they made."""
    context = flyte.ctx()
    assert context is not None
    facts = (context.rank, context.world_size, context.local_rank, context.node_rank, context.nnodes, context.master_addr)
    Path(place).mkdir(parents=True, exist_ok=True)
    Path(place, " ".join(map(str, facts))).touch()
    while len(found := list(Path(place).iterdir())) < (context.world_size or 0):
        time.sleep(0.02)
    return sorted(path.name for path in found)


@two_by_two.task
def torch_ranks(place: str) -> list[str]:
    return meet(place)


@jax.task
def jax_ranks(place: str) -> list[str]:
    return meet(place)


@two.task
def fails(place: str) -> int:
    """Another rank than the one that may tell errors."""
    if os.environ["RANK"] == "1":
        raise ValueError("rank 1 has enough")
    time.sleep(60)
    return 0


@two.task
def held(place: str) -> int:
    meet(place)
    time.sleep(60)
    return 0


@jax.task
def jax_fails(place: str) -> int:
    if os.environ["RANK"] == "0":
        raise ValueError("rank 0 tells its own error")
    time.sleep(60)
    return 0


@patient.task
def again(place: str) -> int:
    context = flyte.ctx()
    assert context is not None and context.restart_attempt is not None
    if context.restart_attempt == 0:
        raise ValueError("not the first time")
    return context.restart_attempt


TASKS = {task.short_name: task for task in (torch_ranks, jax_ranks, fails, jax_fails, again, held)}

if __name__ == "__main__":
    flyte.init_from_config()
    standins, places = sys.argv[1:]
    started = flyte.with_runcontext(env_vars={"PYTHONPATH": standins})
    runs = {name: started.run(task, place=f"{places}/{name}") for name, task in TASKS.items()}
    appears(places, "held/1 *")
    runs["held"].abort("enough")
    for name, run in runs.items():
        tell(name, run)
    tell("missing", flyte.run(torch_ranks, place=f"{places}/missing"))
