"""Whether a node is one that a pod may run on: selectors, affinity, taints (kubernetes.io, "Assigning Pods to Nodes")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Object = dict[str, Any]


def selected(pod: Object, node: Object) -> bool:
    """Whether nodeSelector and the required node affinity take ``node``."""
    labels = node["metadata"].get("labels") or {}
    spec = pod["spec"]
    if any(labels.get(name) != value for name, value in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    return required is None or any(_term(term, labels, node["metadata"]["name"]) for term in required["nodeSelectorTerms"])


def untolerated(pod: Object, node: Object) -> Object | None:
    """The first taint that keeps ``pod`` from being scheduled on ``node``."""
    tolerations = pod["spec"].get("tolerations") or ()
    for taint in node["spec"].get("taints") or ():
        if taint["effect"] != "PreferNoSchedule" and not any(_tolerates(toleration, taint) for toleration in tolerations):
            return dict(taint)
    return None


def _term(term: Object, labels: Mapping[str, str], name: str) -> bool:
    """An empty term takes nothing."""
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    matches = [_matches(expression, labels) for expression in expressions]
    matches += [_matches(field, {"metadata.name": name}) for field in fields]
    return bool(matches) and all(matches)


def _matches(expression: Object, labels: Mapping[str, str]) -> bool:
    value = labels.get(expression["key"])
    values: list[str] = expression.get("values") or []
    match expression["operator"]:
        case "In":
            return value is not None and value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return value is not None and _number(value) > _number(values[0])
        case "Lt":
            return value is not None and _number(value) < _number(values[0])
        case _:
            return False


def _number(text: str) -> float:
    """A label as the number it may be; one that is none compares as false."""
    try:
        return int(text)
    except ValueError:
        return float("nan")


def _tolerates(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint["effect"]:
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return not toleration.get("key") or toleration["key"] == taint["key"]
    return bool(toleration.get("key") == taint["key"] and toleration.get("value", "") == taint.get("value", ""))
