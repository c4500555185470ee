"""Write the fake's ``schemas.json``: a real server's types, without their prose, of the kinds that the fake serves.

kubectl get --raw /openapi/v2 | python -m tests.contract.kube.record_schemas
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from flyte_unified.testing import fake_kube
from flyte_unified.testing.fake_kube.resources import BUILTIN

_KEPT = (
    "type", "format", "required", "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-patch-merge-key",
    "x-kubernetes-patch-strategy", "x-kubernetes-map-type",
)  # fmt: skip
_PREFIXES = ("#/definitions/", "io.k8s.")
_OPTIONS = "DeleteOptions"
"""A type that claims to be of every group."""


def _short(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def compact(document: dict[str, Any]) -> dict[str, Any]:
    """The types that are served, by name, and those they refer to."""
    served = {(one.group, one.version, one.kind) for one in BUILTIN}
    found: dict[str, Any] = {}
    waiting: list[str] = []
    kinds: dict[str, list[list[str]]] = {}
    for name, schema in document["definitions"].items():
        for one in schema.get("x-kubernetes-group-version-kind", ()):
            kind = (one["group"], one["version"], one["kind"])
            if kind in served and not name.endswith(_OPTIONS):
                kinds.setdefault(name, []).append(list(kind))
                waiting.append(name)
    while waiting:
        name = waiting.pop()
        if _short(name) not in found:
            found[_short(name)] = _slim(document["definitions"][name], waiting)
    for name, of in kinds.items():
        found[_short(name)]["kinds"] = of
    return found


def _slim(schema: dict[str, Any], waiting: list[str]) -> dict[str, Any]:
    kept: dict[str, Any] = {key: schema[key] for key in _KEPT if key in schema}
    if reference := schema.get("$ref"):
        waiting.append(reference.removeprefix(_PREFIXES[0]))
        kept["$ref"] = _short(reference)
    if schema.get("default"):
        kept["default"] = schema["default"]
    if "properties" in schema:
        kept["properties"] = {key: _slim(one, waiting) for key, one in schema["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            kept[key] = _slim(schema[key], waiting)
    return kept


def main() -> None:
    found = compact(json.load(sys.stdin))
    lines = [f"{json.dumps(name)}: {json.dumps(found[name], sort_keys=True, separators=(',', ':'))}" for name in sorted(found)]
    Path(fake_kube.__file__).with_name("schemas.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
