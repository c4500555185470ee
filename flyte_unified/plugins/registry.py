"""Which plugin a task type belongs to on a laptop."""

from __future__ import annotations

from flyte_unified.plugins import container, sleep
from flyte_unified.plugins.api import Refusal, TaskContext, Work

_OPERATORS = {
    "clustered": "JobSet in a cluster",
    "clustered-task": "JobSet in a cluster",
    "dask": "the Dask operator in a cluster",
    "mpi": "Kubeflow's training operator in a cluster",
    "pytorch": "Kubeflow's training operator in a cluster",
    "ray": "KubeRay in a cluster",
    "spark": "the Spark operator in a cluster",
    "tensorflow": "Kubeflow's training operator in a cluster",
}

_PLUGINS = {"core-sleep": sleep.describe}


def describe(context: TaskContext) -> Work:
    """What an attempt of this task is. Raises InvalidArgument for a template that no attempt could run."""
    template = context.spec.task_template
    if (operator := _OPERATORS.get(template.type)) is not None:
        return Refusal("UnsupportedTaskType", f"a task of type {template.type!r} is run by {operator}, not on a laptop")
    if not (template.HasField("container") or template.HasField("k8s_pod")) and template.type not in _PLUGINS:
        return Refusal("UnsupportedTaskType", f"a task of type {template.type!r} is run by a connector, and none is configured")
    return _PLUGINS.get(template.type, container.describe)(context)
