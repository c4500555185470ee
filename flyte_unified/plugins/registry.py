"""Which plugin a task type belongs to on a laptop."""

from __future__ import annotations

from collections.abc import Callable

from flyte_unified.core.images import BUILD_IMAGE
from flyte_unified.plugins import container, containers, local, sleep
from flyte_unified.plugins.api import Job, Process, Refusal, TaskContext, Work
from flyte_unified.plugins.connectors import nothing_to_run

_PLUGINS = {"core-sleep": sleep.describe}


def no_connectors(context: TaskContext) -> Job | None:
    """A laptop without any."""
    return None


def no_images(context: TaskContext) -> Refusal:
    """A laptop that builds none."""
    return Refusal("UnsupportedTaskType", "images are not built here: images.build is off")


def describe(
    context: TaskContext,
    *,
    connectors: Callable[[TaskContext], Job | None] = no_connectors,
    images: Callable[[TaskContext], Process | Refusal] = no_images,
) -> Work:
    """What an attempt of this task is. Raises InvalidArgument for a template that no attempt could run.

    ``connectors`` describes what a connector runs, and is None for other tasks: what a connector was given is its. ``images``
    describes the building of one.
    """
    template = context.spec.task_template
    if template.type == BUILD_IMAGE:
        return images(context)
    if (own := _PLUGINS.get(template.type)) is not None:
        return own(context)
    if (job := connectors(context)) is not None:
        return job
    if template.type in local.TYPES:
        return local.describe(context)
    if nothing_to_run(template):
        return Refusal(
            "UnsupportedTaskType",
            f"a task of type {template.type!r} is run by a connector, and connectors.endpoints names none",
        )
    return containers.describe(context) if containers.brings_its_own(template) else container.describe(context)
