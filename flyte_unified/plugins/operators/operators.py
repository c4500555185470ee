"""The families by the task types that they are for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.kube.kinds import Kind
from flyte_unified.plugins.api import Refusal, Resource, State, TaskContext
from flyte_unified.plugins.operators import clustered, kubeflow
from flyte_unified.plugins.operators.config import OperatorConfig
from flyte_unified.plugins.operators.dask import Dask
from flyte_unified.plugins.operators.kinds import (
    DASK_JOB,
    JOB_SET,
    MPI_JOB,
    PYTORCH_JOB,
    RAY_JOB,
    SPARK_APPLICATION,
    TF_JOB,
)
from flyte_unified.plugins.operators.parts import Objects
from flyte_unified.plugins.operators.ray import Ray
from flyte_unified.plugins.operators.roles import Roles
from flyte_unified.plugins.operators.spark import Spark
from flyte_unified.plugins.pods.build import Pods


class Operators:
    """``readers`` says of each kind what its objects tell, those of an earlier leader included: they need no task for it."""

    def __init__(self, pods: Pods, config: OperatorConfig) -> None:
        roles = Roles(pods)
        spark, ray, dask, training = Spark(roles, config), Ray(roles, config), Dask(roles, config), kubeflow.Kubeflow(roles)
        jobs = clustered.Clustered(roles)
        self._types: Mapping[str, Callable[[TaskContext], Resource]] = {
            "clustered": jobs.describe,
            "clustered-task": jobs.describe,
            "dask": dask.describe,
            kubeflow.MPI: training.mpi,
            kubeflow.PYTORCH: training.pytorch,
            kubeflow.TENSORFLOW: training.tensorflow,
            "ray": ray.describe,
            "spark": spark.describe,
        }
        self.readers: Mapping[Kind, Callable[[Objects], State]] = {
            DASK_JOB: dask.state,
            JOB_SET: clustered.state,
            MPI_JOB: kubeflow.state,
            PYTORCH_JOB: kubeflow.state,
            RAY_JOB: ray.state,
            SPARK_APPLICATION: spark.state,
            TF_JOB: kubeflow.state,
        }

    def __contains__(self, task_type: str) -> bool:
        return task_type in self._types

    def describe(self, context: TaskContext) -> Resource | Refusal:
        """The attempt's resource; Refusal ``BadTaskSpecification`` for a task that can't become one."""
        try:
            return self._types[context.spec.task_template.type](context)
        except InvalidArgument as error:
            return Refusal("BadTaskSpecification", error.message)
        except (AttributeError, KeyError, TypeError, ValueError) as error:  # a pod is any JSON that a user wrote
            return Refusal("BadTaskSpecification", f"a pod of the task, or its PodTemplate: it holds what no pod may: {error}")
