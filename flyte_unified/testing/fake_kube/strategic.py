"""Strategic merge patch: a merge patch that knows from the type how a list is merged.

Source: https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md
"""

from __future__ import annotations

import copy
from typing import Any

from flyte_unified.testing.fake_kube.errors import ApiError, bad_request
from flyte_unified.testing.fake_kube.resources import Object, Schema, resolve

_DIRECTIVE, _RETAIN = "$patch", "$retainKeys"
_DELETE_LIST, _ORDER = "$deleteFromPrimitiveList/", "$setElementOrder/"


def merge(target: Any, patch: Object, schema: Schema) -> Any:
    """``target`` with the patch applied. Raises ApiError 400, 422."""
    if not isinstance(patch, dict):
        raise bad_request("the patch is not an object")
    schema = resolve(schema)
    directive = patch.get(_DIRECTIVE)
    if directive == "replace":
        return {key: copy.deepcopy(value) for key, value in patch.items() if key != _DIRECTIVE}
    if directive == "delete":
        return {}
    result = dict(target) if isinstance(target, dict) else {}
    if isinstance(retained := patch.get(_RETAIN), list):
        result = {key: value for key, value in result.items() if key in retained}
    for key, value in patch.items():
        if key.startswith(_DELETE_LIST):
            name = key.removeprefix(_DELETE_LIST)
            result[name] = [item for item in result.get(name) or () if item not in value]
        elif not key.startswith((_ORDER, _DIRECTIVE, _RETAIN)):
            _field(result, key, value, _inner(schema, key), patch.get(_ORDER + key))
    return result


def _inner(schema: Schema, key: str) -> Schema:
    properties = schema.get("properties") or {}
    rest = schema.get("additionalProperties")
    inner: Schema = properties.get(key) or (rest if isinstance(rest, dict) else {})
    return inner


def _field(result: Object, key: str, value: Any, schema: Schema, order: Any) -> None:
    if value is None:
        result.pop(key, None)
    elif isinstance(value, dict) and "replace" not in str(schema.get("x-kubernetes-patch-strategy", "")):
        result[key] = merge(result.get(key), value, schema)
    elif isinstance(value, list) and "merge" in str(schema.get("x-kubernetes-patch-strategy", "")):
        result[key] = _list(result.get(key) or [], value, schema, order)
    else:
        result[key] = copy.deepcopy(value)


def _list(present: list[Any], patch: list[Any], schema: Schema, order: Any) -> list[Any]:
    name = schema.get("x-kubernetes-patch-merge-key")
    if name is None:  # a set
        return [*present, *(item for item in patch if item not in present)]
    if any(isinstance(item, dict) and item.get(_DIRECTIVE) == "replace" for item in patch):
        return [item for item in patch if item.get(_DIRECTIVE) != "replace"]
    items = resolve(schema["items"])
    result = {item.get(name): item for item in present}
    for item in patch:
        if not isinstance(item, dict) or name not in item:
            raise ApiError(422, "Invalid", f"map: {item} does not contain declared merge key: {name}")
        if item.get(_DIRECTIVE) == "delete":
            result.pop(item[name], None)
        else:
            result[item[name]] = merge(result.get(item[name]), item, items)
    ordered = [one.get(name) for one in order] if isinstance(order, list) else []
    keys = [key for key in ordered if key in result] + [key for key in result if key not in ordered]
    return [result[key] for key in keys]
