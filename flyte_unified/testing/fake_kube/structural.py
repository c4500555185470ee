"""Structural schemas of custom resources: unknown fields are pruned, defaults filled in, values validated.

Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions. Rules in CEL
(``x-kubernetes-validations``) are stored and served, and not evaluated.
"""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import orjson

from flyte_unified.testing.fake_kube.errors import Cause, invalid_value, required, unsupported
from flyte_unified.testing.fake_kube.resources import Schema

_ROOT = ("apiVersion", "kind", "metadata")
_PRESERVE, _EMBEDDED, _INT_OR_STRING = (
    f"x-kubernetes-{name}" for name in ("preserve-unknown-fields", "embedded-resource", "int-or-string")
)


def prune(value: Any, schema: Schema, unknown: list[str], path: str = "", *, root: bool = True) -> Any:
    """``value`` without the fields that its schema does not name; their paths are added to ``unknown``."""
    if isinstance(value, list):
        items = schema.get("items")
        if items is None:
            return value
        return [prune(item, items, unknown, f"{path}[{index}]", root=False) for index, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    properties = schema.get("properties") or {}
    rest = schema.get("additionalProperties")
    kept = _ROOT if root or schema.get(_EMBEDDED) else ()
    pruned = {}
    for key, item in value.items():
        where = f"{path}.{key}" if path else key
        if key in kept:
            pruned[key] = item
        elif key in properties:
            pruned[key] = prune(item, properties[key], unknown, where, root=False)
        elif isinstance(rest, Mapping):
            pruned[key] = prune(item, rest, unknown, where, root=False)
        elif rest or schema.get(_PRESERVE):
            pruned[key] = item
        else:
            unknown.append(where)
    return pruned


def fill(value: Any, schema: Schema) -> None:
    """Write defaults into ``value`` where a field is missing, or null and not nullable."""
    if isinstance(value, list):
        for item in value:
            fill(item, schema.get("items") or {})
    if not isinstance(value, dict):
        return
    for key, inner in (schema.get("properties") or {}).items():
        if value.get(key) is None and "default" in inner and not (key in value and inner.get("nullable")):
            value[key] = copy.deepcopy(inner["default"])
        if key in value:
            fill(value[key], inner)
    rest = schema.get("additionalProperties")
    if isinstance(rest, Mapping):
        for key in value.keys() - (schema.get("properties") or {}).keys():
            fill(value[key], rest)


def drop_nulls(value: Any, schema: Schema) -> None:
    """A null where none may stand is a field that is missing."""
    if isinstance(value, list):
        for item in value:
            drop_nulls(item, schema.get("items") or {})
    elif isinstance(value, dict):
        for key, inner in (schema.get("properties") or {}).items():
            if key in value and value[key] is None and not inner.get("nullable"):
                del value[key]
            else:
                drop_nulls(value.get(key), inner)


def validate(value: Any, schema: Schema, path: str = "") -> list[Cause]:
    """What is wrong with ``value``."""
    return list(_causes(value, schema, path))


def _causes(value: Any, schema: Schema, path: str) -> Iterator[Cause]:
    if value is None and schema.get("nullable"):
        return
    expected = schema.get("type")
    if schema.get(_INT_OR_STRING):
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            yield _wrong_type(value, "integer,string", path)
            return
    elif expected and not _is_type(value, expected):
        yield _wrong_type(value, expected, path)
        return
    if "enum" in schema and value not in schema["enum"]:
        yield unsupported(path, value, [str(one) for one in schema["enum"]])
    if isinstance(value, dict):
        yield from _object(value, schema, path)
    elif isinstance(value, list):
        yield from _array(value, schema, path)
    elif isinstance(value, str):
        yield from _string(value, schema, path)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield from _number(value, schema, path)
    yield from _combined(value, schema, path)


def _wrong_type(value: Any, expected: str, path: str) -> Cause:
    message = f'Invalid value: "{_type(value)}": {path} in body must be of type {expected}: "{_type(value)}"'
    return Cause("FieldValueTypeInvalid", message, path or "<nil>")


def _type(value: Any) -> str:
    names = {dict: "object", list: "array", bool: "boolean", str: "string", int: "integer", float: "number"}
    return names.get(type(value), "null")


def _is_type(value: Any, expected: str) -> bool:
    found = _type(value)
    if expected == "number":
        return found in ("number", "integer")
    if expected == "integer" and isinstance(value, float):
        return value.is_integer()
    return found == expected


def _object(value: Mapping[str, Any], schema: Schema, path: str) -> Iterator[Cause]:
    properties = schema.get("properties") or {}
    rest = schema.get("additionalProperties")
    for key in schema.get("required") or ():
        if key not in value:
            yield required(f"{path}.{key}" if path else key)
    for key, item in value.items():
        inner = properties.get(key, rest if isinstance(rest, Mapping) else None)
        if inner is not None and not (not path and key in _ROOT):
            yield from _causes(item, inner, f"{path}.{key}" if path else key)
    yield from _bounds(len(value), schema, path, "Properties", "properties")


def _bounds(count: int, schema: Schema, path: str, word: str, plural: str) -> Iterator[Cause]:
    most, least = schema.get(f"max{word}"), schema.get(f"min{word}")
    if most is not None and count > most:
        yield Cause("FieldValueTooMany", f"Too many: {count}: must have at most {most} items", path)
    if least is not None and count < least:
        yield invalid_value(path, count, f"{path} in body should have at least {least} {plural}")


def _array(value: list[Any], schema: Schema, path: str) -> Iterator[Cause]:
    yield from _bounds(len(value), schema, path, "Items", "items")
    for index, item in enumerate(value):
        yield from _causes(item, schema.get("items") or {}, f"{path}[{index}]")
    kind = schema.get("x-kubernetes-list-type")
    if kind not in ("set", "map"):
        return
    keys = schema.get("x-kubernetes-list-map-keys") or ()
    seen = set()
    for index, item in enumerate(value):
        identity = {key: item.get(key) for key in keys} if kind == "map" and isinstance(item, dict) else item
        encoded = orjson.dumps(identity, option=orjson.OPT_SORT_KEYS)
        if encoded in seen:
            yield Cause("FieldValueDuplicate", f"Duplicate value: {encoded.decode()}", f"{path}[{index}]")
        seen.add(encoded)


@functools.cache
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text.replace(r"\z", r"\Z"))


def _string(value: str, schema: Schema, path: str) -> Iterator[Cause]:
    most, least, pattern = schema.get("maxLength"), schema.get("minLength"), schema.get("pattern")
    if most is not None and len(value) > most:
        yield Cause("FieldValueTooLong", f"Too long: may not be more than {most} bytes", path)
    if least is not None and len(value) < least:
        yield invalid_value(path, value, f"{path} in body should be at least {least} chars long")
    elif pattern and not _pattern(pattern).search(value):
        yield invalid_value(path, value, f"{path} in body should match '{pattern}'")
    if schema.get("format") == "date-time" and not _is_time(value):
        message = f'Invalid value: "{value}": {path} in body must be of type date-time: "{value}"'
        yield Cause("FieldValueTypeInvalid", message, path)


def _is_time(value: str) -> bool:
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def _number(value: float, schema: Schema, path: str) -> Iterator[Cause]:
    most, least, step = schema.get("maximum"), schema.get("minimum"), schema.get("multipleOf")
    if most is not None and (value >= most if schema.get("exclusiveMaximum") else value > most):
        yield invalid_value(path, value, f"{path} in body should be less than{_or_equal(schema, 'exclusiveMaximum')} {most}")
    if least is not None and (value <= least if schema.get("exclusiveMinimum") else value < least):
        yield invalid_value(
            path, value, f"{path} in body should be greater than{_or_equal(schema, 'exclusiveMinimum')} {least}"
        )
    if step and value % step:
        yield invalid_value(path, value, f"{path} in body should be a multiple of {step}")
    size = {"int32": 31, "int64": 63}.get(str(schema.get("format")))
    if size and not -(1 << size) <= value < 1 << size:
        yield invalid_value(path, value, f"{path} in body must be of type {schema['format']}: {value}")


def _or_equal(schema: Schema, exclusive: str) -> str:
    return "" if schema.get(exclusive) else " or equal to"


def _combined(value: Any, schema: Schema, path: str) -> Iterator[Cause]:
    for part in schema.get("allOf") or ():
        yield from _causes(value, part, path)
    if schema.get(_INT_OR_STRING):
        return
    for word, count in (("anyOf", "at least one schema (anyOf)"), ("oneOf", "one and only one schema (oneOf)")):
        parts = schema.get(word)
        held = [part for part in parts or () if not validate(value, part, path)]
        if parts and (not held or (word == "oneOf" and len(held) > 1)):
            yield invalid_value(path, "", f'"{path}" must validate {count}')
    if "not" in schema and not validate(value, schema["not"], path):
        yield invalid_value(path, "", f'"{path}" must not validate the schema (not)')
