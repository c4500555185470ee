"""Task types of operators on a laptop: what an operator would spread over pods runs whole on this machine.

Their libraries have local forms of their own; here is said which, and what of the task's custom message they are told. A form
whose library is not in the task's environment is no failure of the task's: it says what is to be installed where.

Sources: flyteidl2/plugins/*.proto; the SDK's ``clustered`` launcher and its plugins; the libraries' documentation.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace

from flyteidl2.plugins import clustered_pb2, dask_pb2, spark_pb2
from flyteidl2.plugins.kubeflow import pytorch_pb2

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.ledger.api import Failure
from flyte_unified.plugins import container
from flyte_unified.plugins.api import Exit, Fault, Need, Process, Refusal, Resources, TaskContext, Work
from flyte_unified.plugins.operators.parts import at_least, custom

_MOST = 64
"""Processes of one task: more of them are a cluster's."""
_LAUNCHER = "clustered"
_INSTALL = "uv pip install --python {python} "


def describe(context: TaskContext) -> Work:
    """Raises InvalidArgument for a custom message that no operator could read."""
    task_type = context.spec.task_template.type
    if (operator := _CLUSTERS_ALONE.get(task_type)) is not None:
        return Refusal("UnsupportedTaskType", f"a task of type {task_type!r} is run by {operator}, not on a laptop")
    work = container.command(context)
    if isinstance(work, Refusal):
        return work
    if not work.arguments or work.arguments[0] not in (*container.RUNTIMES, _LAUNCHER):
        return Refusal(
            "UnsupportedTaskType",
            f"a task of type {task_type!r} whose command is not the SDK's runtime takes a cluster",
        )
    return _FORMS[task_type](context, work)


def _ray(context: TaskContext, work: Process) -> Work:
    """``ray.init`` starts a Ray of the task's own, whatever else runs on this machine."""
    return _with(work, {"RAY_ADDRESS": "local", "RAY_USAGE_STATS_ENABLED": "0"}, _module("ray", "flyteplugins-ray"))


def _dask(context: TaskContext, work: Process) -> Work:
    """A cluster of processes around the task, which every ``Client()`` finds."""
    asked = custom(context, dask_pb2.DaskJob()).workers.number_of_workers
    workers = _bounded(asked or 1, "custom.workers.numberOfWorkers")
    return replace(
        _with(work, {}, _module("distributed", "flyteplugins-dask")),
        arguments=("a0_dask", str(workers), *work.arguments[1:]),
    )


def _spark(context: TaskContext, work: Process) -> Work:
    """A driver and its executors in one Java process: Spark's ``local`` master."""
    job = custom(context, spark_pb2.SparkJob())
    if job.mainClass:
        return Refusal(
            "UnsupportedTaskType", f"a Spark program of the JVM ({job.mainClass}) is run by the Spark operator, not on a laptop"
        )
    said = {**job.sparkConf, **{f"spark.hadoop.{name}": value for name, value in job.hadoopConf.items()}}
    master = said.pop("spark.master", "")
    conf = {"spark.ui.enabled": "false"} | said
    submit = ["--master", master if master.startswith("local") else "local[*]"]
    for name, value in conf.items():
        submit += ["--conf", f"{name}={value}"]
    defaults = {"PYSPARK_SUBMIT_ARGS": shlex.join([*submit, "pyspark-shell"]), "SPARK_LOCAL_IP": "127.0.0.1"}
    return _with(work, defaults, _module("pyspark", "flyteplugins-spark"), _JAVA)


def _pytorch(context: TaskContext, work: Process) -> Work:
    """The elastic launcher's nodes as one, with the processes of all."""
    task = custom(context, pytorch_pb2.DistributedPyTorchTrainingTask())
    if not task.HasField("elastic_config"):
        return Refusal(
            "UnsupportedTaskType",
            "PyTorch with a master and workers (no elastic_config) is run by Kubeflow's training operator",
        )
    nodes = max(task.elastic_config.max_replicas, 1)
    _bounded(nodes * max(task.elastic_config.nproc_per_node, 1), "custom.elasticConfig: maxReplicas times nprocPerNode")
    return replace(
        _with(work, {}, _module("torch", "flyteplugins-pytorch")),
        arguments=("a0_pytorch", *work.arguments[1:]),
        resources=_times(work.resources, nodes),
    )


def _clustered(context: TaskContext, work: Process) -> Work:
    """All ranks on this machine: torchrun's, or one process for each of JAX's nodes."""
    task = custom(context, clustered_pb2.ClusteredTaskSpec())
    nodes = at_least(task.replicas, 1, field="replicas")
    each = at_least(task.nproc_per_node, 1, field="nprocPerNode")
    _bounded(nodes * each, "custom: replicas times nprocPerNode")
    launcher = [word for word in work.arguments[1:] if word.startswith("--runtime=")]
    runtime = launcher[0].partition("=")[2] if launcher else "torchrun"
    if runtime not in _RUNTIMES:
        raise InvalidArgument(f"container.args: there is no runtime {runtime!r} of clustered tasks")
    arguments = [
        *("a0_clustered", f"--runtime={runtime}", f"--nodes={nodes}", f"--processes={each}"),
        f"--restarts={at_least(task.failure_policy.max_restarts, 0, field='failurePolicy.maxRestarts')}",
        f"--inner-restarts={task.runtime.torchrun.max_restarts}",
        *(word for word in work.arguments[1:] if word not in launcher),
    ]
    return replace(
        _with(work, {}, _RUNTIMES[runtime]),
        arguments=tuple(arguments),
        resources=_times(work.resources, nodes),
        fault=_workers_failed,
    )


def _workers_failed(ending: Exit) -> Fault | None:
    """Rank 0 tells its own error, others only exit."""
    if not ending.code:
        return ending.fault
    told = f"a worker failed, and the launcher exited with code {ending.code}; the log says which and why"
    return Fault(code="WorkersFailed", message=told, failure=Failure.USER)


def _with(work: Process, defaults: Mapping[str, str], *needs: Need) -> Process:
    """``defaults`` are variables that the user may say otherwise."""
    return replace(work, environment={**defaults, **work.environment}, needs=needs)


def _module(name: str, package: str) -> Need:
    return Need(name, _INSTALL + package)


def _bounded(number: int, field: str) -> int:
    if number > _MOST:
        raise InvalidArgument(f"{field} is {number}; a laptop runs at most {_MOST} processes of one task")
    return number


def _times(asked: Resources, nodes: int) -> Resources:
    """What a task asks for is one node's."""
    return replace(
        asked,
        cpu=asked.cpu * nodes,
        memory=asked.memory * nodes,
        memory_limit=asked.memory_limit * nodes,
        gpu=asked.gpu * nodes,
    )


_JAVA = Need("java", "install a Java runtime, 17 say, or set JAVA_HOME", program=True)
_RUNTIMES = {"torchrun": _module("torch", "torch"), "jax": _module("jax", "jax")}
_FORMS: dict[str, Callable[[TaskContext, Process], Work]] = {
    "clustered": _clustered,
    "clustered-task": _clustered,
    "dask": _dask,
    "pytorch": _pytorch,
    "ray": _ray,
    "spark": _spark,
}
_CLUSTERS_ALONE = dict.fromkeys(("mpi", "tensorflow"), "Kubeflow's training operator in a cluster")
TYPES = frozenset(_FORMS | _CLUSTERS_ALONE)
