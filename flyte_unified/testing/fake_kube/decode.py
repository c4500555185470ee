"""From a request's JSON to an object of a built-in kind: types as Go's decoder checks them, fields it does not know left out.

What comes out is what the server would answer: quantities in canonical form, nulls and empty collections gone.
"""

from __future__ import annotations

from typing import Any

from flyte_unified.testing.fake_kube import quantities
from flyte_unified.testing.fake_kube.errors import ApiError, bad_request
from flyte_unified.testing.fake_kube.resources import Object, Resource, Schema, resolve

_GO = {"integer": "int32", "number": "float64", "boolean": "bool", "string": "string", "array": "[]", "object": "map[string]"}
_QUANTITY = "apimachinery.pkg.api.resource.Quantity"


def decode(resource: Resource, content: Object) -> tuple[Object, list[str]]:
    """The object and the paths of fields that its type does not have. Raises ApiError 400."""
    decoder = _Decoder()
    try:
        decoded = decoder.value(content, resource.schema, "")
    except _WrongType as error:
        raise _cannot(resource, str(error)) from None
    return decoded, decoder.unknown


def _cannot(resource: Resource, why: str) -> ApiError:
    return bad_request(f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: {why}')


def strict_error(resource: Resource, unknown: list[str]) -> ApiError:
    """400 for fields that a strict client does not want to see dropped."""
    fields = "strict decoding error: " + ", ".join(f'unknown field "{path}"' for path in unknown)
    return bad_request(fields) if resource.custom else _cannot(resource, fields)


class _WrongType(Exception):
    """A value of a type that its field cannot hold."""


class _Decoder:
    def __init__(self) -> None:
        self.unknown: list[str] = []

    def value(self, value: Any, schema: Schema, path: str) -> Any:
        if schema.get("$ref") == _QUANTITY:
            return _quantity(value)
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


def _refuse(value: Any, path: str, go_type: str) -> Any:
    names: dict[type, str] = {dict: "object", list: "array", bool: "bool", str: "string"}
    name = names.get(type(value), "number")
    raise _WrongType(f"json: cannot unmarshal {name} into Go struct field .{path} of type {go_type}")
