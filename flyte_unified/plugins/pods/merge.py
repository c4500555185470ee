"""One pod spec laid over another, as Flyte's pod templates ask for it.

Mappings are merged, containers by name in depth; other lists whose entries have a name are merged entry by entry, each whole
(a volume has one source, a variable one value); tolerations and ``envFrom`` add up; any other value replaces. What is empty
says nothing: the SDK writes ``command: []`` into every pod.
Source: Kubernetes' strategic merge patch, whose keys these are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Object = Mapping[str, Any]

_DEEP = frozenset({"containers", "initContainers"})
_KEYS = {
    "containers": "name",
    "env": "name",
    "hostAliases": "ip",
    "imagePullSecrets": "name",
    "initContainers": "name",
    "ports": "containerPort",
    "resourceClaims": "name",
    "volumeDevices": "devicePath",
    "volumeMounts": "mountPath",
    "volumes": "name",
}
_ADDED = frozenset({"envFrom", "tolerations"})
_EMPTY: tuple[Any, ...] = (None, "", [], {})

_DEFAULT, _PRIMARY = "default", "primary"
_SUFFIX = {"containers": "", "initContainers": "-init"}


def merged(base: Object, over: Object) -> dict[str, Any]:
    """``over`` laid over ``base``; neither is changed."""
    result = dict(base)
    for key, value in over.items():
        if key in result:
            if value not in _EMPTY:
                result[key] = _value(key, result[key], value)
        elif value is not None:
            result[key] = value
    return result


def on_template(template: Object, spec: Object, *, primary: str) -> dict[str, Any]:
    """A task's pod spec on that of a PodTemplate.

    The template's container ``default`` is the base of each of the task's containers, ``primary`` of the primary one, others of
    those of the same name; ``default-init`` is the base of init containers. Template containers that match none are left out:
    a PodTemplate has to have one, and people write ``noop``.
    """
    result = merged({k: v for k, v in template.items() if k not in _DEEP}, {k: v for k, v in spec.items() if k not in _DEEP})
    for key, suffix in _SUFFIX.items():
        bases = {str(entry.get("name")): entry for entry in _objects(template.get(key))}
        containers = [_based(bases, container, suffix, primary) for container in _objects(spec.get(key))]
        if containers:
            result[key] = containers
    return result


def added(entries: Iterable[Object], more: Iterable[Object]) -> list[Object]:
    """Both, each entry once."""
    result: list[Object] = []
    for entry in (*entries, *more):
        if entry not in result:
            result.append(entry)
    return result


def _based(bases: Mapping[str, Object], container: Object, suffix: str, primary: str) -> dict[str, Any]:
    name = str(container.get("name"))
    magic = [_DEFAULT + suffix] + ([_PRIMARY] if name == primary and not suffix else [])
    names = dict.fromkeys([*magic, name])
    result: dict[str, Any] = {}
    for base in (bases[found] for found in names if found in bases):
        result = merged(result, base)
    return merged(result, container)


def _value(key: str, base: Any, over: Any) -> Any:
    if isinstance(base, Mapping) and isinstance(over, Mapping):
        return merged(base, over)
    if not (isinstance(base, list) and isinstance(over, list)):
        return over
    if key in _ADDED:
        return added(base, over)
    return _keyed(base, over, _KEYS[key], deep=key in _DEEP) if key in _KEYS else over


def _keyed(base: Sequence[Any], over: Sequence[Any], key: str, *, deep: bool) -> list[Any]:
    result = {entry.get(key): entry for entry in _objects(base)}
    for entry in _objects(over):
        name = entry.get(key)
        result[name] = merged(result[name], entry) if deep and name in result else entry
    return list(result.values())


def _objects(value: object) -> list[Object]:
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []
