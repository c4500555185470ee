"""Which plugin a task type belongs to in a cluster."""

from __future__ import annotations

from collections.abc import Callable

from flyteidl2.core.execution_pb2 import TaskLog

from flyte_unified.core.images import BUILD_IMAGE
from flyte_unified.plugins import sleep
from flyte_unified.plugins.api import Job, Refusal, TaskContext, Work
from flyte_unified.plugins.container import DEBUG
from flyte_unified.plugins.operators.operators import Operators
from flyte_unified.plugins.pods.build import Pods

_SLEEP = "core-sleep"


def no_connectors(context: TaskContext) -> Job | None:
    """A cluster without any."""
    return None


def no_images(context: TaskContext) -> Refusal:
    """A cluster that builds none."""
    return Refusal("UnsupportedTaskType", "images are not built here: images.build is off")


class ClusterPlugins:
    """``connectors`` describes what a connector runs, and is None for other task types: it is asked before a task with a
    container becomes a pod, as a task may bring one and still be a connector's. ``images`` describes the building of one.
    """

    def __init__(
        self,
        *,
        pods: Pods,
        operators: Operators,
        images: Callable[[TaskContext], Work] = no_images,
        connectors: Callable[[TaskContext], Job | None] = no_connectors,
    ) -> None:
        self._pods = pods
        self._operators = operators
        self._images = images
        self._connectors = connectors

    def describe(self, context: TaskContext) -> Work:
        """What an attempt of this task is. Raises InvalidArgument for a template that no attempt could run."""
        template = context.spec.task_template
        if template.type == _SLEEP:
            return sleep.describe(context)
        if template.type == BUILD_IMAGE:
            return self._images(context)
        if _debugged(context) and not any(link.link_type == TaskLog.IDE for link in template.metadata.log_links):
            return Refusal(
                "DebugUnavailable",
                "debug mode serves an editor without a password in the task's pod, and nothing leads there. Where "
                "an ingress of your own leads to pods, give the task a link to it (links, of type IDE); or run the task under "
                "a debugger of your own: flyte run --local",
            )
        if template.type in self._operators:
            return self._operators.describe(context)
        if (job := self._connectors(context)) is not None:
            return job
        if template.HasField("container") or template.HasField("k8s_pod"):
            return self._pods.describe(context)
        return Refusal("UnsupportedTaskType", f"a task of type {template.type!r} is run by a connector, and none is configured")


def _debugged(context: TaskContext) -> bool:
    return any(entry.key == DEBUG and entry.value == "1" for entry in context.run_spec.envs.values)
