"""Labels and annotations of a pod: the user's, the run's and ours."""

from __future__ import annotations

import re
from collections.abc import Mapping

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.plugins.api import TaskContext

_ORGANIZATION = "flyte"
_VALUE_LENGTH = 63
_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_FOREIGN = re.compile(r"[^-A-Za-z0-9_.]+")


def ours(context: TaskContext) -> dict[str, str]:
    """By these labels people and tools find an attempt's objects: Flyte's names."""
    key = context.action.key
    return {
        "organization": _ORGANIZATION,
        "project": key.project,
        "domain": key.domain,
        "flyte.org/managed": "true",
        "run": key.run,
        "action": key.name,
        "attempt": str(context.action.attempt),
        "task-name": context.action.task.name or context.spec.task_template.id.name,
    }


def labels(*layers: tuple[str, Mapping[str, str]]) -> dict[str, str]:
    """All layers, each ``(field, labels)``, a later one over an earlier. Raises InvalidArgument for a key that is none."""
    return {_key(name, field): label_value(value) for field, layer in layers for name, value in layer.items()}


def notes(*layers: tuple[str, Mapping[str, str]]) -> dict[str, str]:
    """The same for annotations, whose values are free."""
    return {_key(name, field): str(value) for field, layer in layers for name, value in layer.items()}


def label_value(value: str) -> str:
    """``value`` as near as a label allows: at most 63 of letters, digits, ``-_.``, a letter or digit at each end."""
    return _FOREIGN.sub("-", str(value))[:_VALUE_LENGTH].strip("-_.")


def _key(name: str, field: str) -> str:
    if _KEY.fullmatch(name) is None:
        raise InvalidArgument(f"{field}: {name[:300]!r} is no key that Kubernetes takes: [prefix.example.com/]name")
    return name
