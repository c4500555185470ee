"""The operators' kinds, and how long names of their objects may be."""

from __future__ import annotations

from collections.abc import Mapping

from flyte_unified.core.names import object_name
from flyte_unified.kube.kinds import Kind
from flyte_unified.plugins.api import TaskContext

SPARK_APPLICATION = Kind("sparkoperator.k8s.io", "v1beta2", "SparkApplication", "sparkapplications")
RAY_JOB = Kind("ray.io", "v1", "RayJob", "rayjobs")
DASK_JOB = Kind("kubernetes.dask.org", "v1", "DaskJob", "daskjobs")
PYTORCH_JOB = Kind("kubeflow.org", "v1", "PyTorchJob", "pytorchjobs")
MPI_JOB = Kind("kubeflow.org", "v1", "MPIJob", "mpijobs")
TF_JOB = Kind("kubeflow.org", "v1", "TFJob", "tfjobs")
JOB_SET = Kind("jobset.x-k8s.io", "v1alpha2", "JobSet", "jobsets")

NAME_LIMITS: Mapping[Kind, int] = {
    SPARK_APPLICATION: 47,  # Spark takes no longer prefix of its executors' names
    RAY_JOB: 47,  # KubeRay's own check
    DASK_JOB: 53,  # a Service named <name>-scheduler
    PYTORCH_JOB: 50,  # Services named <name>-worker-<number>
    MPI_JOB: 50,
    TF_JOB: 47,  # <name>-evaluator-<number>
    JOB_SET: 41,  # its webhook's: <name>-workers-0-<number>-<mark>
}
"""Characters that the operator leaves of the 63 of a DNS label, with room for 100,000 pods of a role."""

MANAGED = "flyte.org/managed"
PART, LEADER = "part", "leader"
PART_OF = "flyte.org/part-of"
"""Labels of the pods that an operator makes: not followed as attempts are, whose resource they belong to, and whether it can't
begin without them."""

CREATORS: Mapping[Kind, tuple[str, str]] = {JOB_SET: ("Job", "-workers-0")}
"""What makes the pods of a kind where its operator does not, and so hears of a quota: its kind, and what its name has more."""

RESOURCE_NAME_LIMIT = 40
"""What the launcher keeps to for all of them: operators make names of pods, Services and more from it."""


def resource_name(context: TaskContext) -> str:
    """What the launcher calls the attempt's resource, for manifests that have to refer to themselves."""
    return object_name(context.action.key, context.action.attempt, limit=RESOURCE_NAME_LIMIT)
