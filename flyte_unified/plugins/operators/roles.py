"""The pods of an operator's resource: the task's own, varied for the role that each of them has.

A variation is made on the task, before its pod is built. So it goes the way of all pods: defaults, environment, secrets,
accelerators and the nodes that have them are worked out for what the role asks for, not for what the task did.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from flyteidl2.core import tasks_pb2
from flyteidl2.task import run_pb2, task_definition_pb2
from google.protobuf import wrappers_pb2

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.templates import render
from flyte_unified.plugins import container as shared
from flyte_unified.plugins.api import TaskContext
from flyte_unified.plugins.operators.kinds import LEADER, MANAGED, PART, PART_OF, resource_name
from flyte_unified.plugins.pods import reading, resources
from flyte_unified.plugins.pods.build import Pods, Template, own_pod
from flyte_unified.plugins.pods.merge import merged


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """How pods of one role differ from the task's own."""

    container: str = ""
    """What the primary container is called, where the operator finds it by its name; empty: as the task calls it."""
    command: tuple[str, ...] | None = None
    """In place of the task's; empty: the operator's or the image's own."""
    image: str = ""
    resources: tasks_pb2.Resources | None = None
    """In place of the task's, unless empty."""
    extended: tasks_pb2.ExtendedResources | None = None
    pod: tasks_pb2.K8sPod | None = None
    """Laid over the task's."""
    field: str = ""
    """Where ``pod`` stands in the task's custom message."""
    steady: bool = False
    """Never where it may be interrupted: the others are lost with it."""


class Roles:
    """Builds them."""

    def __init__(self, pods: Pods) -> None:
        self._pods = pods

    def template(self, context: TaskContext, role: Role) -> Template:
        """The pod of ``role``, to be changed at will. Raises InvalidArgument naming the field."""
        spec = task_definition_pb2.TaskSpec()
        spec.CopyFrom(context.spec)
        task = spec.task_template
        task.k8s_pod.CopyFrom(_pod(task, role))
        if role.extended is not None:
            for name in ("gpu_accelerator", "shared_memory"):
                if role.extended.HasField(name):
                    getattr(task.extended_resources, name).CopyFrom(getattr(role.extended, name))
        run = run_pb2.RunSpec()
        run.CopyFrom(context.run_spec)
        if role.steady:
            run.interruptible.CopyFrom(wrappers_pb2.BoolValue(value=False))
        return self._pods.template(replace(context, spec=spec, run_spec=run), data_side=False)


def command(context: TaskContext) -> tuple[str, ...]:
    """The task's command line, variables put in; empty: its image's own. Raises InvalidArgument."""
    spec, primary = own_pod(context.spec.task_template)
    main = _named(spec, primary)
    words = [str(word) for key in ("command", "args") for word in main.get(key) or ()]
    return render(words, shared.variables(context))


def manifest(template: Template, context: TaskContext, *, leads: bool = False) -> dict[str, Any]:
    """A pod template as operators take it. ``leads``: its pods hold up the whole resource while they don't start."""
    annotations = template.annotations | {reading.PRIMARY: template.primary}
    return {
        "metadata": {"labels": template.labels | marks(context, leads=leads), "annotations": annotations},
        "spec": template.spec,
    }


def marks(context: TaskContext, *, leads: bool) -> dict[str, str]:
    """Labels by which the launchers tell an operator's pods from their own, whatever the task says."""
    return {MANAGED: LEADER if leads else PART, PART_OF: resource_name(context)}


def _pod(task: tasks_pb2.TaskTemplate, role: Role) -> tasks_pb2.K8sPod:
    spec, primary = own_pod(task)
    main = _named(spec, primary)
    main["name"] = name = role.container or primary
    if role.command is not None:
        main.pop("command", None)
        main["args"] = list(role.command)
    if role.image:
        main["image"] = role.image
    if role.resources is not None and (role.resources.requests or role.resources.limits):
        main["resources"] = resources.written(role.resources)
    pod = tasks_pb2.K8sPod(primary_container_name=name, metadata=task.k8s_pod.metadata)
    if role.pod is not None:
        spec = merged(spec, _over(role.pod, role))
        pod.metadata.MergeFrom(role.pod.metadata)
    pod.pod_spec.update(spec)
    return pod


def _over(pod: tasks_pb2.K8sPod, role: Role) -> dict[str, Any]:
    """What is laid over: its primary container by the name that the role's has. Other containers stand beside it."""
    spec = shared.plain(pod.pod_spec)
    found = reading.mappings(spec.get("containers"))
    if any(not reading.text(container.get("name")) for container in found):
        raise InvalidArgument(f"custom.{role.field}.pod_spec.containers: a container has no name")
    names = [container["name"] for container in found]
    if role.container not in names and pod.primary_container_name in names:
        _named(spec, pod.primary_container_name)["name"] = role.container
    return spec


def _named(spec: Mapping[str, Any], name: str) -> dict[str, Any]:
    containers: list[Any] = spec["containers"]
    return next(entry for entry in containers if isinstance(entry, dict) and entry.get("name") == name)
