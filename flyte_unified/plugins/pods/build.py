"""From an attempt to its pod."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.plugins.api import Pod, Refusal, TaskContext, Work
from flyte_unified.plugins.pods.config import PodConfig


class BadTask(InvalidArgument):
    """The task can't become a pod, in any attempt; the message names the field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A pod in parts, as operators' plugins need it for their own resources' pod templates."""

    labels: dict[str, str]
    annotations: dict[str, str]
    spec: dict[str, Any]
    primary: str


class Pods:
    """The plugin for container and pod tasks; operators' plugins ask it for the pod inside of theirs."""

    def __init__(self, config: PodConfig) -> None:
        self._config = config

    def describe(self, context: TaskContext) -> Work:
        """The attempt's pod; Refusal ``BadTaskSpecification`` for a task that can't become one."""
        try:
            built = self.template(context)
        except InvalidArgument as error:
            return Refusal("BadTaskSpecification", error.message)
        return Pod(
            manifest={"metadata": {"labels": built.labels, "annotations": built.annotations}, "spec": built.spec},
            primary=built.primary,
        )

    def template(self, context: TaskContext) -> Template:
        """The same before it is a manifest. Raises InvalidArgument naming the field."""
        raise BadTask("not there yet")
