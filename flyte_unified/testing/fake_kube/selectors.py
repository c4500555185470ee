"""Label and field selectors: what a client writes in a query, as predicates."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from flyte_unified.testing.fake_kube.errors import bad_request

_SET = re.compile(r"^(?P<key>\S+)\s+(?P<op>in|notin)\s*\(\s*(?P<values>[^()]*)\)$")
_COMPARED = re.compile(r"^(?P<key>[^\s=!<>]+)\s*(?P<op>==|=|!=|<|>)\s*(?P<value>[^\s=!<>]*)$")
_FIELD = re.compile(r"^(?P<key>[^\s=!]+)\s*(?P<op>!=|==|=)\s*(?P<value>.*)$")
_KEY = re.compile(r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")
_VALUE = re.compile(r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$")


class Requirement(NamedTuple):
    """One condition on one label or field. ``operator``: in, notin, exists, !, <, >."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def holds(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case "in":
                return value in self.values
            case "notin":
                return value not in self.values
            case "exists":
                return value is not None
            case "!":
                return value is None
        return value is not None and _ordered(value, self.operator, next(iter(self.values)))


def _ordered(value: str, operator: str, bound: str) -> bool:
    try:
        return int(value) < int(bound) if operator == "<" else int(value) > int(bound)
    except ValueError:
        return False


def _parts(text: str) -> list[str]:
    """Split at commas that are not inside parentheses."""
    parts, depth, start = [], 0, 0
    for index, char in enumerate(text):
        depth += {"(": 1, ")": -1}.get(char, 0)
        if char == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    return [*parts, text[start:]]


def _label_requirement(text: str) -> Requirement:
    if found := _SET.match(text):
        values = frozenset(value.strip() for value in found["values"].split(","))
        requirement = Requirement(found["key"], found["op"], values)
    elif found := _COMPARED.match(text):
        operator = {"=": "in", "==": "in", "!=": "notin"}.get(found["op"], found["op"])
        requirement = Requirement(found["key"], operator, frozenset({found["value"]}))
    elif text.startswith("!"):
        requirement = Requirement(text[1:].strip(), "!")
    else:
        requirement = Requirement(text, "exists")
    if not _KEY.match(requirement.key):
        raise bad_request(
            f'unable to parse requirement: <nil>: Invalid value: "{requirement.key}": name part must be a label key'
        )
    if wrong := next((value for value in requirement.values if not _VALUE.match(value)), None):
        raise bad_request(
            f'unable to parse requirement: values[0][{requirement.key}]: Invalid value: "{wrong}": a valid label value'
        )
    return requirement


def parse_labels(text: str) -> tuple[Requirement, ...]:
    """``a=b,c in (d, e),!f``. Raises ApiError 400."""
    return tuple(_label_requirement(part.strip()) for part in _parts(text)) if text.strip() else ()


def parse_fields(text: str, supported: Callable[[str], bool]) -> tuple[Requirement, ...]:
    """``metadata.name=x,status.phase!=Failed``: equality alone. Raises ApiError 400, also for a field nobody indexes."""
    requirements = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        found = _FIELD.match(part)
        if found is None:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{part}'")
        key, operator, value = found["key"], found["op"], found["value"]
        if not supported(key):
            raise bad_request(f"field label not supported: {key}")
        requirements.append(Requirement(key, "notin" if operator == "!=" else "in", frozenset({value})))
    return tuple(requirements)


def matches(requirements: tuple[Requirement, ...], labels: Mapping[str, str]) -> bool:
    return all(requirement.holds(labels) for requirement in requirements)


def selector_requirements(selector: Mapping[str, object]) -> tuple[Requirement, ...]:
    """A ``LabelSelector`` object (``matchLabels`` and ``matchExpressions``) as requirements."""
    labels = selector.get("matchLabels") or {}
    expressions = selector.get("matchExpressions") or []
    assert isinstance(labels, dict) and isinstance(expressions, list)
    operators = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}
    return tuple(Requirement(key, "in", frozenset({value})) for key, value in labels.items()) + tuple(
        Requirement(one["key"], operators[one["operator"]], frozenset(one.get("values") or ())) for one in expressions
    )
