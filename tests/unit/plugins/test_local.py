"""What an operator's task is on a laptop."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.ledger.api import Failure
from flyte_unified.plugins import registry
from flyte_unified.plugins.api import Exit, Process, Refusal, Work
from tests.unit.plugins.contexts import context_of, spec

ASKED = [{"name": "CPU", "value": "1"}, {"name": "MEMORY", "value": "1Gi"}, {"name": "GPU", "value": "1"}]
RANKS = {"replicas": 2, "nprocPerNode": 2, "failurePolicy": {"maxRestarts": 3}}


def described(kind: str, custom: dict[str, Any], *, args: list[str] | None = None, **container: Any) -> Work:
    words = {"image": "img", "args": args or ["a0", "--inputs", "i"], **container}
    return registry.describe(context_of(spec(type=kind, custom=custom, container=words)))


def process(kind: str, custom: dict[str, Any], **options: Any) -> Process:
    work = described(kind, custom, **options)
    assert isinstance(work, Process), work
    return work


def needed(work: Process) -> list[str]:
    return [need.name for need in work.needs]


def test_ray_is_the_tasks_own() -> None:
    """It joins no other Ray of this machine, unless its author says so."""
    own = process("ray", {})
    assert (own.arguments, needed(own)) == (("a0", "--inputs", "i"), ["ray"])
    assert own.environment["RAY_ADDRESS"] == "local"
    said = process("ray", {}, env=[{"key": "RAY_ADDRESS", "value": "ray://elsewhere:10001"}])
    assert said.environment["RAY_ADDRESS"] == "ray://elsewhere:10001"


def test_dask_has_its_workers_around_the_task() -> None:
    """As many as were asked for, else one."""
    work = process("dask", {"workers": {"numberOfWorkers": 3}})
    assert (work.arguments, needed(work)) == (("a0_dask", "3", "--inputs", "i"), ["distributed"])
    assert process("dask", {}).arguments[1] == "1"


def test_spark_is_local() -> None:
    """Its configuration goes along, but for a master that is another machine's."""
    work = process("spark", {"sparkConf": {"spark.app.name": "a b", "spark.master": "k8s://x"}, "hadoopConf": {"h": "1"}})
    submit = shlex.split(work.environment["PYSPARK_SUBMIT_ARGS"])
    assert submit[:2] == ["--master", "local[*]"]
    assert {"spark.app.name=a b", "spark.hadoop.h=1", "spark.ui.enabled=false"} <= set(submit)
    assert (submit[-1], needed(work)) == ("pyspark-shell", ["pyspark", "java"])
    two = process("spark", {"sparkConf": {"spark.master": "local[2]"}})
    assert "--master 'local[2]'" in two.environment["PYSPARK_SUBMIT_ARGS"]


def test_torchs_nodes_are_one() -> None:
    """What each asks for counts for all."""
    custom = {"elasticConfig": {"minReplicas": 2, "maxReplicas": 2, "nprocPerNode": 4}}
    work = process("pytorch", custom, resources={"requests": ASKED, "limits": ASKED})
    assert (work.arguments, needed(work)) == (("a0_pytorch", "--inputs", "i"), ["torch"])
    asked = work.resources
    assert (asked.cpu, asked.memory, asked.memory_limit, asked.gpu) == (2.0, 2 << 30, 2 << 30, 2)


def test_clustered_tasks_have_all_ranks_here() -> None:
    """By the launcher that the task names, begun again as often as it allows; that a rank failed is its author's to mend."""
    work = process("clustered-task", RANKS, args=["clustered", "--inputs", "i"])
    assert work.arguments[:5] == ("a0_clustered", "--runtime=torchrun", "--nodes=2", "--processes=2", "--restarts=3")
    assert (work.arguments[-2:], needed(work)) == (("--inputs", "i"), ["torch"])
    failed = work.fault(Exit(code=1))
    assert failed is not None and (failed.code, failed.failure, failed.retryable) == ("WorkersFailed", Failure.USER, True)
    assert work.fault(Exit(signal=9)) is work.fault(Exit(code=0)) is None
    jax = process("clustered-task", RANKS, args=["clustered", "--runtime=jax", "--inputs", "i"])
    assert (jax.arguments[1], jax.arguments[-2:], needed(jax)) == ("--runtime=jax", ("--inputs", "i"), ["jax"])


@pytest.mark.parametrize(
    ("kind", "custom", "args", "why"),
    [
        ("mpi", {}, ["a0"], "Kubeflow's training operator in a cluster, not on a laptop"),
        ("tensorflow", {}, ["a0"], "Kubeflow's training operator in a cluster, not on a laptop"),
        ("spark", {"mainClass": "org.example.Main"}, ["a0"], "org.example.Main"),
        ("pytorch", {}, ["a0"], "elastic_config"),
        ("ray", {}, ["python", "train.py"], "whose command is not the SDK's runtime"),
    ],
)
def test_what_has_no_local_form_is_refused(kind: str, custom: dict[str, Any], args: list[str], why: str) -> None:
    """With a word about who runs it."""
    work = described(kind, custom, args=args)
    assert isinstance(work, Refusal)
    assert work.code == "UnsupportedTaskType" and why in work.message


@pytest.mark.parametrize(
    ("kind", "custom", "field"),
    [
        ("dask", {"workers": {"numberOfWorkers": 65}}, "custom.workers.numberOfWorkers is 65; a laptop runs at most 64"),
        ("clustered-task", {"replicas": 9, "nprocPerNode": 8}, "replicas times nprocPerNode is 72"),
        ("clustered-task", {"nprocPerNode": 8}, "custom.replicas is 0"),
    ],
)
def test_more_processes_than_a_laptop_runs_are_refused(kind: str, custom: dict[str, Any], field: str) -> None:
    """Fewer ranks than asked for would compute something else."""
    with pytest.raises(InvalidArgument, match=field):
        described(kind, custom)
