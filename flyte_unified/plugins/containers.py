"""Tasks in images that know nothing of Flyte, on a laptop: containers between files that are inputs and files that are outputs.

In a cluster containers of ours fetch and store those (``pods.raw``); here a process of ours does it around podman or docker,
with the same words, and a container's end means the same.
"""

from __future__ import annotations

import signal
from dataclasses import fields
from functools import partial

from flyteidl2.core import tasks_pb2

from flyte_unified.core.images import OURS
from flyte_unified.ledger.api import Failure
from flyte_unified.plugins import container
from flyte_unified.plugins.api import Container, Exit, Fault, Process, Refusal, TaskContext, Work
from flyte_unified.plugins.pods import raw
from flyte_unified.plugins.pods.config import DataSide

_KILLED = 128
"""What a container's exit code is beyond the signal that ended it."""


def brings_its_own(template: tasks_pb2.TaskTemplate) -> bool:
    """Whether the task's command is the image's, not the SDK's runtime."""
    if template.HasField("container"):
        return raw.is_raw(template, {"command": template.container.command, "args": template.container.args})
    return template.HasField("k8s_pod") and raw.is_raw(template, container.primary(template) or {})


def describe(context: TaskContext) -> Work:
    template = context.spec.task_template
    if not template.HasField("container"):
        return Refusal("UnsupportedTaskType", "a pod with an image of its own takes a cluster")
    work = container.command(context)
    if isinstance(work, Refusal):
        return work
    if not work.image:
        return Refusal("BadTaskSpecification", "container.image is empty")
    if work.image.startswith(OURS):
        told = f"the image {work.image} is a virtual environment of this machine, and no container; name an image of a registry"
        return Refusal("UnsupportedTaskType", told)
    asked, usual = template.container.data_config, DataSide()
    entrypoint = bool(template.container.command)
    given = {field.name: getattr(work, field.name) for field in fields(Process)}
    return Container(
        **given
        | {
            "arguments": work.arguments[entrypoint:],
            "entrypoint": work.arguments[0] if entrypoint else "",
            "inputs": (asked.input_path or usual.input_path) if template.interface.inputs.variables else "",
            "outputs": asked.output_path or usual.output_path,
            "data": (*raw.told_of_inputs(context, asked), *raw.told_of_outputs(context)),
            "fault": partial(_meaning, limit=work.resources.memory_limit),
        }
    )


def _meaning(ending: Exit, *, limit: int) -> Fault | None:
    """Its exit code is all that tells of failure, whatever outputs there are."""
    if not ending.code:
        return ending.fault
    if ending.code > _KILLED:
        number = ending.code - _KILLED
        if number == signal.SIGKILL and limit:
            told = f"the container was killed, most likely as it used more than its memory limit of {limit >> 20} MiB"
            return Fault(code="OOMKilled", message=told, failure=Failure.USER, certain=True)
        name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
        told = f"the container was ended by signal {name}"
        return Fault(code="Interrupted", message=told, failure=Failure.SYSTEM, certain=True)
    told = f"the container exited with code {ending.code}"
    return Fault(code="ContainerExited", message=told, failure=Failure.USER, certain=True)
