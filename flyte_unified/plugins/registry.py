"""Which plugin a task type belongs to on a laptop."""

from __future__ import annotations

from collections.abc import Callable

from flyte_unified.plugins import container, local, sleep
from flyte_unified.plugins.api import Job, Refusal, TaskContext, Work
from flyte_unified.plugins.connectors import nothing_to_run

_PLUGINS = {"core-sleep": sleep.describe}


def no_connectors(context: TaskContext) -> Job | Refusal | None:
    """A laptop without any."""
    return None


def describe(context: TaskContext, *, connectors: Callable[[TaskContext], Job | Refusal | None] = no_connectors) -> Work:
    """What an attempt of this task is. Raises InvalidArgument for a template that no attempt could run.

    ``connectors`` describes what a connector runs, and is None for other tasks: what a connector was given is its.
    """
    template = context.spec.task_template
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
    return container.describe(context)
