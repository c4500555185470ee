"""What a container asks of its node, as Kubernetes writes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flyteidl2.core import tasks_pb2
from flyteidl2.task import run_pb2

from flyte_unified.core.quantities import quantity
from flyte_unified.plugins.pods.config import PodConfig

GPU = "gpu"
"""How the SDK calls an accelerator of whatever class."""

_NAMES = {
    tasks_pb2.Resources.CPU: "cpu",
    tasks_pb2.Resources.GPU: GPU,
    tasks_pb2.Resources.MEMORY: "memory",
    tasks_pb2.Resources.EPHEMERAL_STORAGE: "ephemeral-storage",
}
"""STORAGE is nothing that a container can ask for."""


def written(resources: tasks_pb2.Resources) -> dict[str, dict[str, str]]:
    """A container task's resources as Kubernetes has them."""
    return {"requests": _entries(resources.requests), "limits": _entries(resources.limits)}


def complete(
    asked: Mapping[str, Any],
    *,
    config: PodConfig,
    accelerator: str,
    defaults: bool,
    given: run_pb2.TaskResourceDefaults,
    mirrored: bool = False,
) -> dict[str, Any]:
    """Requests and limits, each from the other where one is missing; ``accelerator`` is the resource that ``gpu`` means.

    A request above its limit is lowered to it, what only whole devices can be had of is asked for as often as allowed. With
    ``defaults`` also what a task has to have, and no more than it may: ``given`` by the run, or by the operator. Limits that
    are ``mirrored`` are what is requested. Raises InvalidArgument naming the resource.
    """
    requests, limits = (_amounts(asked.get(kind), accelerator, kind) for kind in ("requests", "limits"))
    if defaults:
        least = {"cpu": config.cpu, "memory": config.memory} | _amounts(_entries(given.requests), accelerator, "requests")
        for name, amount in least.items():
            if name not in requests and name not in limits:
                requests[name] = amount
        for name in dict.fromkeys([*requests, *limits]):
            requests.setdefault(name, limits.get(name, ""))
            limits.setdefault(name, requests[name])
        for name, most in _named(_entries(given.max), accelerator).items():
            if name in limits and _number(limits[name], name) > _number(most, name):
                limits[name] = most
    for name, limit in limits.items():
        if "/" in name or (name in requests and _number(requests[name], name) > _number(limit, name)):
            requests[name] = limit
    if mirrored:
        limits |= requests
    rest = {key: value for key, value in asked.items() if key not in ("requests", "limits")}
    some = {"requests": _some(requests, "requests"), "limits": _some(limits, "limits")}  # a bound of 0 leaves none
    return rest | {kind: amounts for kind, amounts in some.items() if amounts}


def _entries(entries: Iterable[tasks_pb2.Resources.ResourceEntry]) -> dict[str, str]:
    return {_NAMES[entry.name]: entry.value for entry in entries if entry.name in _NAMES}


def _amounts(amounts: object, accelerator: str, kind: str) -> dict[str, str]:
    return _some(_named(amounts, accelerator), kind)


def _named(amounts: object, accelerator: str) -> dict[str, str]:
    listed = amounts.items() if isinstance(amounts, Mapping) else ()
    return {accelerator if name == GPU else str(name): str(amount) for name, amount in listed if amount is not None}


def _some(amounts: Mapping[str, str], kind: str) -> dict[str, str]:
    """Of none of it is nothing said."""
    return {name: amount for name, amount in amounts.items() if _number(amount, f"{kind}.{name}")}


def _number(amount: str, name: str) -> float:
    return quantity(amount, field=f"resources.{name}")
