"""What pods ask for, summed as a scheduler sums it (pkg/api/v1/resource/helpers.go)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from flyte_unified.testing.fake_kube.quantities import parse

Amounts = dict[str, Fraction]
Object = dict[str, Any]


def amounts(resources: Mapping[str, Any] | None) -> Amounts:
    """A resource list as numbers."""
    return {name: parse(str(quantity)) for name, quantity in (resources or {}).items()}


def divided(quantity: str, divisor: str) -> str:
    """``quantity`` in units of ``divisor`` (none, or 0, is 1), rounded up, as the downward API gives it."""
    return str(math.ceil(parse(quantity) / (parse(str(divisor or "1")) or 1)))


def added(lists: Iterable[Amounts]) -> Amounts:
    found: Amounts = {}
    for listed in lists:
        for name, amount in listed.items():
            found[name] = found.get(name, Fraction(0)) + amount
    return found


def requests(container: Object) -> Amounts:
    """What a container asks for: its requests, and its limits where it has no request."""
    resources = container.get("resources") or {}
    return amounts({**(resources.get("limits") or {}), **(resources.get("requests") or {})})


def needs(pod: Object) -> Amounts:
    """What a pod asks of its node: its containers with the sidecars, or an init container with the sidecars before it."""
    spec = pod["spec"]
    sidecars: Amounts = {}
    most: Amounts = {}
    for container in spec.get("initContainers") or ():
        asked = added([sidecars, requests(container)])
        if container.get("restartPolicy") == "Always":
            sidecars = asked
        most = {name: max(most.get(name, Fraction(0)), asked.get(name, Fraction(0))) for name in most.keys() | asked}
    running = added([sidecars, *map(requests, spec["containers"])])
    needed = {name: max(most.get(name, Fraction(0)), running.get(name, Fraction(0))) for name in most.keys() | running}
    return added([needed, amounts(spec.get("overhead"))])
