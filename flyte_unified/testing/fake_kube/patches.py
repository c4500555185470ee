"""JSON merge patch (RFC 7386) and JSON patch (RFC 6902). Each gives a new object and leaves its input alone."""

from __future__ import annotations

import copy
from typing import Any

from flyte_unified.testing.fake_kube.errors import ApiError, bad_request
from flyte_unified.testing.fake_kube.resources import Object

_MISSING = object()


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def json_patch(target: Object, operations: Any) -> Object:
    """RFC 6902. Raises ApiError 400 for what is no patch and 422 for one that does not apply, as an API server does."""
    if not isinstance(operations, list):
        raise bad_request("error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    document: Any = copy.deepcopy(target)
    for operation in operations:
        try:
            document = _apply(document, operation)
        except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
            where = operation.get("path", "") if isinstance(operation, dict) else ""
            message = f"the server rejected our request due to an error in our request: {error} at {where}"
            raise ApiError(422, "Invalid", message) from error
    if not isinstance(document, dict):
        raise bad_request("the patched object is not an object")
    return document


def _apply(document: Any, operation: Any) -> Any:
    path = _pointer(operation["path"])
    match operation["op"]:
        case "add":
            return _set(document, path, copy.deepcopy(operation["value"]), insert=True)
        case "remove":
            return _remove(document, path)
        case "replace":
            _look(document, path)
            return _set(document, path, copy.deepcopy(operation["value"]), insert=False)
        case "move":
            source = _pointer(operation["from"])
            value = _look(document, source)
            return _set(_remove(document, source), path, value, insert=True)
        case "copy":
            return _set(document, path, copy.deepcopy(_look(document, _pointer(operation["from"]))), insert=True)
        case "test":
            if _look(document, path, default=None) != operation.get("value"):
                raise ValueError("testing value failed")
            return document
    raise ValueError(f"unexpected kind: {operation['op']}")


def _pointer(text: str) -> list[str]:
    if text and not text.startswith("/"):
        raise ValueError("a JSON pointer begins with /")
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _look(document: Any, path: list[str], default: Any = _MISSING) -> Any:
    try:
        for part in path:
            document = document[_index(part, len(document) - 1)] if isinstance(document, list) else document[part]
    except (KeyError, IndexError, TypeError):
        if default is _MISSING:
            raise KeyError("missing value") from None
        return default
    return document


def _index(part: str, last: int) -> int:
    if part == "-":
        return last
    if not part.isdigit() or int(part) > last:
        raise IndexError("index out of bounds")
    return int(part)


def _set(document: Any, path: list[str], value: Any, *, insert: bool) -> Any:
    if not path:
        return value
    parent = _look(document, path[:-1])
    if isinstance(parent, list):
        if insert:
            parent.insert(_index(path[-1], len(parent)), value)
        else:
            parent[_index(path[-1], len(parent) - 1)] = value
    elif isinstance(parent, dict):
        parent[path[-1]] = value
    else:
        raise TypeError("the parent is neither an object nor an array")
    return document


def _remove(document: Any, path: list[str]) -> Any:
    parent = _look(document, path[:-1])
    if isinstance(parent, list):
        del parent[_index(path[-1], len(parent) - 1)]
    else:
        del parent[path[-1]]
    return document
