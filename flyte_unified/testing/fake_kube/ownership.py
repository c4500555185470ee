"""Server-side apply: who manages which field, what an applied configuration changes, and where managers disagree.

Source: https://kubernetes.io/docs/reference/using-api/server-side-apply and sigs.k8s.io/structured-merge-diff. An object's
fields are tracked from the first time it is applied, as a server does it for objects that were there before; until then they
cost nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from flyte_unified.testing.fake_kube.errors import ApiError, Cause
from flyte_unified.testing.fake_kube.metadata import timestamp
from flyte_unified.testing.fake_kube.resources import Object, Resource, Schema, resolve

Path = tuple[str, ...]
"""Steps as in FieldsV1: ``f:<name>``, ``k:<keys of a list's item>``, ``v:<value in a set>``."""
Fields = set[Path]

_UNMANAGED = frozenset(
    f"f:{name}"
    for name in ("name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink",
                 "deletionTimestamp", "deletionGracePeriodSeconds", "generateName")
)  # fmt: skip


def typed(resource: Resource) -> Schema:
    """The type of the whole object: what custom resources leave unsaid of their metadata is known."""
    if not resource.custom:
        return resource.schema
    metadata = {"$ref": "apimachinery.pkg.apis.meta.v1.ObjectMeta"}
    return {**resource.schema, "properties": {**(resource.schema.get("properties") or {}), "metadata": metadata}}


def fields(content: Object, resource: Resource, subresource: str = "") -> Fields:
    """The fields that an object sets, as far as a write to the subresource may own them."""
    found = {path for path in _walk(content, typed(resource), ()) if path[0] not in ("f:apiVersion", "f:kind")}
    found = {path for path in found if path[0] != "f:metadata" or (len(path) > 1 and path[1] not in _UNMANAGED)}
    if subresource == "status":
        return {path for path in found if path[0] == "f:status"}
    return {path for path in found if path[0] != "f:status" or "status" not in resource.subresources}


def _walk(value: Any, schema: Schema, path: Path) -> Iterator[Path]:
    schema = resolve(schema)
    if isinstance(value, dict) and value and schema.get("x-kubernetes-map-type") != "atomic":
        properties = schema.get("properties") or {}
        for key, item in value.items():
            below = (*path, f"f:{key}")
            if path and key not in properties:
                yield below
            yield from _walk(item, _inner(schema, key), below)
    elif isinstance(value, list) and value and (steps := _steps(value, schema)):
        for step, item in zip(steps, value, strict=True):
            yield (*path, step)
            if step.startswith("k:"):
                yield from _walk(item, schema.get("items") or {}, (*path, step))
    else:
        yield path


def _inner(schema: Schema, key: str) -> Schema:
    properties = schema.get("properties") or {}
    rest = schema.get("additionalProperties")
    inner: Schema = properties.get(key) or (rest if isinstance(rest, Mapping) else {})
    return inner


def _steps(items: list[Any], schema: Schema) -> list[str]:
    """How the items of a list are told apart; nothing for a list that is one value."""
    kind = schema.get("x-kubernetes-list-type")
    if kind == "set":
        return [f"v:{orjson.dumps(item).decode()}" for item in items]
    keys = schema.get("x-kubernetes-list-map-keys") or ()
    if kind != "map" or not all(isinstance(item, dict) for item in items):
        return []
    inner = resolve(schema.get("items") or {}).get("properties") or {}
    named = [{key: item.get(key, _default(key, inner)) for key in keys} for item in items]
    return [f"k:{orjson.dumps(_present(one), option=orjson.OPT_SORT_KEYS).decode()}" for one in named]


def _default(key: str, properties: Mapping[str, Any]) -> Any:
    return properties.get(key, {}).get("default", "TCP" if key == "protocol" else None)


def _present(values: Mapping[str, Any]) -> Mapping[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def merge(live: Any, applied: Any, schema: Schema) -> Any:
    """``live`` with what is applied laid over it."""
    schema = resolve(schema)
    if isinstance(live, dict) and isinstance(applied, dict) and schema.get("x-kubernetes-map-type") != "atomic":
        return {**live, **{key: merge(live.get(key), value, _inner(schema, key)) for key, value in applied.items()}}
    if isinstance(live, list) and isinstance(applied, list) and applied and (steps := _steps(applied, schema)):
        items = dict(zip(_steps(live, schema), live, strict=True)) if live else {}
        inner = schema.get("items") or {}
        for step, item in zip(steps, applied, strict=True):
            items[step] = merge(items.get(step), item, inner) if step.startswith("k:") else item
        return list(items.values())
    return copy.deepcopy(applied)


def look(content: Any, schema: Schema, path: Path) -> Any:
    """The value at a path; None where there is none."""
    for step in path:
        schema = resolve(schema)
        if step.startswith("f:"):
            content, schema = (content.get(step[2:]) if isinstance(content, dict) else None), _inner(schema, step[2:])
        else:
            found = dict(zip(_steps(content, schema), content, strict=True)) if isinstance(content, list) and content else {}
            content, schema = found.get(step), schema.get("items") or {}
    return content


def remove(content: Any, schema: Schema, path: Path) -> None:
    """Take the value at a path out of ``content``; what is left empty by it goes too."""
    schema = resolve(schema)
    step, rest = path[0], path[1:]
    if step.startswith("f:") and isinstance(content, dict) and step[2:] in content:
        name = step[2:]
        if rest:
            remove(content[name], _inner(schema, name), rest)
        if not rest or content[name] in ({}, []):
            del content[name]
    elif isinstance(content, list) and content and step in (steps := _steps(content, schema)):
        index = steps.index(step)
        if rest:
            remove(content[index], schema.get("items") or {}, rest)
        else:
            del content[index]


def encode(paths: Fields) -> Object:
    """FieldsV1."""
    tree: Object = {}
    for path in sorted(paths):
        node = tree
        for step in path:
            node = node.setdefault(step, {})
        if any(other != path and other[: len(path)] == path for other in paths):
            node["."] = {}
    return tree


def decode(tree: Mapping[str, Any], path: Path = ()) -> Fields:
    found: Fields = set()
    if path and (not tree or "." in tree):
        found.add(path)
    for step, below in tree.items():
        if step != ".":
            found |= decode(below, (*path, step))
    return found


class Managers:
    """The ``managedFields`` of one object."""

    def __init__(self, content: Object, resource: Resource) -> None:
        self._resource = resource
        self._schema = typed(resource)
        self._entries: dict[tuple[str, str, str], Object] = {}
        for entry in content["metadata"].get("managedFields") or ():
            self._entries[entry["manager"], entry["operation"], entry.get("subresource", "")] = entry
        self._fields = {key: decode(entry["fieldsV1"]) for key, entry in self._entries.items()}

    def __bool__(self) -> bool:
        return bool(self._fields)

    def adopt(self, content: Object) -> None:
        """Somebody wrote what was there before the first application."""
        self._set(("before-first-apply", "Update", ""), fields(content, self._resource))

    def apply(self, live: Object, applied: Object, values: Object, manager: str, subresource: str, *, force: bool) -> Object:
        """The object that the applied configuration makes of ``live``. Raises ApiError 409 where others own what it changes.

        ``values`` is ``applied`` as the server understands it, quantities in canonical form, say.
        """
        key, schema = (manager, "Apply", subresource), self._schema
        mine = fields(applied, self._resource, subresource)
        changed = {path for path in mine if look(live, schema, path) != look(values, schema, path) and self._leaf(path, mine)}
        conflicts = [(other, path) for other in self._fields if other != key for path in sorted(changed & self._fields[other])]
        if conflicts and not force:
            raise self._conflict(conflicts)
        for other, path in conflicts:
            self._fields[other].discard(path)
        merged: Object = merge(live, applied, schema)
        others = set().union(*(owned for other, owned in self._fields.items() if other != key))
        for path in sorted(self._fields.get(key, set()) - mine, key=len):
            if not any(other[: len(path)] == path for other in others | mine):
                remove(merged, schema, path)
        self._set(key, mine)
        return merged

    def update(self, before: Object, after: Object, manager: str, subresource: str) -> None:
        """Who writes a field owns it; what is gone belongs to nobody."""
        old, new = (fields(one, self._resource, subresource) for one in (before, after))
        schema = self._schema
        changed = {
            path
            for path in new
            if path not in old or (self._leaf(path, new) and look(before, schema, path) != look(after, schema, path))
        }
        if not changed and old == new:
            return
        key = (manager or "unknown", "Update", subresource)
        for other in self._fields:
            self._fields[other] -= (old - new) | (changed if other != key else set())
        if changed:
            self._set(key, self._fields.get(key, set()) | changed)

    @staticmethod
    def _leaf(path: Path, paths: Fields) -> bool:
        """An item of a list or a map is no value itself if more is said of it."""
        return not any(len(other) > len(path) and other[: len(path)] == path for other in paths)

    def _set(self, key: tuple[str, str, str], owned: Fields) -> None:
        if self._fields.get(key) == owned:
            return
        self._fields[key] = owned
        entry = {"manager": key[0], "operation": key[1], "apiVersion": self._resource.api_version, "time": timestamp()}
        self._entries[key] = entry
        if key[2]:
            self._entries[key]["subresource"] = key[2]

    def entries(self) -> list[Object]:
        """``managedFields``, without managers that own nothing any more."""
        return [
            {**self._entries[key], "fieldsType": "FieldsV1", "fieldsV1": encode(owned)}
            for key, owned in sorted(self._fields.items(), key=lambda one: one[0][1])
            if owned
        ]

    def _conflict(self, conflicts: list[tuple[tuple[str, str, str], Path]]) -> ApiError:
        causes = []
        for key, path in conflicts:
            version = f" using {self._entries[key]['apiVersion']}" if key[1] == "Update" else ""
            message = f'conflict with "{key[0]}"{version}'
            causes.append(Cause("FieldManagerConflict", message, _dotted(path)))
        many = f"{len(causes)} conflict{'s' if len(causes) > 1 else ''}"
        if len(causes) == 1:
            message = f"Apply failed with {many}: {causes[0].message}: {causes[0].field}"
        else:
            message = f"Apply failed with {many}: conflicts:\n" + "\n".join(f"- {one.message}: {one.field}" for one in causes)
        details = {"causes": [{"reason": one.reason, "message": one.message, "field": one.field} for one in causes]}
        return ApiError(409, "Conflict", message, details=details)


def _dotted(path: Path) -> str:
    text = ""
    for step in path:
        if step.startswith("f:"):
            text += f".{step[2:]}"
        elif step.startswith("v:"):
            text += f"[={step[2:]}]"
        else:
            keys = orjson.loads(step[2:])
            text += "[" + ",".join(f"{key}={orjson.dumps(value).decode()}" for key, value in keys.items()) + "]"
    return text
