"""From a request's JSON to an object of a built-in kind: types as Go's decoder checks them, fields it does not know left out.

What comes out is what the server would answer: quantities in canonical form, nulls and empty collections gone.
"""

from __future__ import annotations

import base64
import copy
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from flyte_unified.testing.fake_kube import quantities, structural
from flyte_unified.testing.fake_kube.errors import ApiError, bad_request
from flyte_unified.testing.fake_kube.resources import Object, Resource, Schema, resolve

_GO = {"integer": "int32", "number": "float64", "boolean": "bool", "string": "string", "array": "[]", "object": "map[string]"}
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d)(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_MICROS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)")
_META = "apimachinery.pkg.apis.meta.v1.ObjectMeta"
_QUANTITY = "apimachinery.pkg.api.resource.Quantity"


def decode(resource: Resource, content: Object) -> tuple[Object, list[str]]:
    """The object and the paths of fields that its type does not have. Raises ApiError 400."""
    decoder = _Decoder()
    try:
        decoded = decoder.value(content, resource.schema, "")
    except _WrongType as error:
        raise _cannot(resource, str(error)) from None
    return decoded, decoder.unknown


def decode_custom(resource: Resource, content: Object) -> tuple[Object, list[str]]:
    """The same for a custom resource: its schema says what is known and what stands by default. Raises ApiError 400."""
    decoder = _Decoder()
    pruned: list[str] = []
    try:
        meta = decoder.value(content.get("metadata") or {}, {"$ref": _META}, "metadata")
    except _WrongType as error:
        raise _cannot(resource, str(error)) from None
    structural.drop_nulls(content, resource.schema)
    decoded = structural.prune(content, resource.schema, pruned)
    structural.fill(decoded, resource.schema)
    decoded["metadata"] = meta
    return decoded, sorted(pruned + decoder.unknown)


def unknown(resource: Resource, content: Object) -> list[str]:
    """The paths of fields that the type does not have."""
    return (decode_custom if resource.custom else decode)(resource, copy.deepcopy(content))[1]


def _cannot(resource: Resource, why: str) -> ApiError:
    return bad_request(f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: {why}')


def strict_error(resource: Resource, unknown: list[str]) -> ApiError:
    """400 for fields that a strict client does not want to see dropped."""
    fields = "strict decoding error: " + ", ".join(f'unknown field "{path}"' for path in unknown)
    return _cannot(resource, fields)


class _WrongType(Exception):
    """A value of a type that its field cannot hold."""


class _Decoder:
    def __init__(self) -> None:
        self.unknown: list[str] = []

    def value(self, value: Any, schema: Schema, path: str) -> Any:
        if special := _SPECIAL.get(str(schema.get("$ref"))):
            return special(value)
        schema = resolve(schema)
        kind = schema.get("type")
        if schema.get("format") == "int-or-string":
            return value if isinstance(value, (int, str)) else _refuse(value, path, "string")
        if kind is None:
            return value
        if kind == "object":
            return self._object(value, schema, path)
        if kind == "array":
            if not isinstance(value, list):
                _refuse(value, path, "[]" + _GO.get(str(resolve(schema["items"]).get("type")), ""))
            return [self.value(item, schema["items"], f"{path}[{index}]") for index, item in enumerate(value)]
        if schema.get("format") == "byte":
            return _bytes(value)
        return _scalar(value, kind, schema, path)

    def _object(self, value: Any, schema: Schema, path: str) -> Any:
        if not isinstance(value, dict):
            _refuse(value, path, "map[string]string" if "additionalProperties" in schema else "object")
        properties = schema.get("properties")
        rest = schema.get("additionalProperties")
        if properties is None:
            if not isinstance(rest, dict):
                return value
            return {key: self.value(item, rest, f"{path}.{key}") for key, item in value.items() if item is not None}
        decoded: Object = {}
        for key, item in value.items():
            where = f"{path}.{key}" if path else key
            inner = properties.get(key)
            if inner is None:
                self.unknown.append(where)
            elif item is not None and not _empty(item, inner):
                decoded[key] = self.value(item, inner, where)
        return decoded


def _empty(value: Any, schema: Schema) -> bool:
    """Empty lists and maps are not written: ``omitempty`` stands at nearly every one of them."""
    return value == [] or (value == {} and "additionalProperties" in schema)


def _scalar(value: Any, kind: str, schema: Schema, path: str) -> Any:
    expected: dict[str, type | tuple[type, ...]] = {"integer": int, "number": (int, float), "boolean": bool, "string": str}
    if not isinstance(value, expected[kind]) or (isinstance(value, bool) and kind != "boolean"):
        _refuse(value, path, "int64" if schema.get("format") == "int64" else _GO[kind])
    return value


def _quantity(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise _WrongType("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")
    try:
        return quantities.canonical(str(value))
    except ValueError as error:
        raise _WrongType(str(error)) from error


def _time(value: Any) -> str:
    """``metav1.Time``: whole seconds in UTC."""
    layout = '"2006-01-02T15:04:05Z07:00"'
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        raise _WrongType(f'parsing time "{value}" as {layout}: cannot parse "{value}" as "2006"')
    return datetime.fromisoformat(_RFC3339.sub(r"\1\3", value)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _micro_time(value: Any) -> str:
    """``metav1.MicroTime``: six digits behind the second, not fewer."""
    if not isinstance(value, str) or not _MICROS.fullmatch(value):
        layout = '"2006-01-02T15:04:05.000000Z07:00"'
        raise _WrongType(f'parsing time "{value}" as {layout}: cannot parse "{str(value)[19:]}" as ".000000"')
    return datetime.fromisoformat(value).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _bytes(value: Any) -> str:
    try:
        base64.b64decode(str(value), validate=True)
    except ValueError:
        raise _WrongType("illegal base64 data at input byte 0") from None
    return str(value)


_SPECIAL: dict[str, Callable[[Any], Any]] = {
    _QUANTITY: _quantity,
    "apimachinery.pkg.apis.meta.v1.Time": _time,
    "apimachinery.pkg.apis.meta.v1.MicroTime": _micro_time,
}


def _refuse(value: Any, path: str, go_type: str) -> Any:
    names: dict[type, str] = {dict: "object", list: "array", bool: "bool", str: "string"}
    name = names.get(type(value), "number")
    raise _WrongType(f"json: cannot unmarshal {name} into Go struct field .{path} of type {go_type}")
