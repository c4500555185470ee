"""Msgpack, in which the SDK writes dataclasses, pydantic models, typed and untyped dicts, as JSON and back.

Msgpack tells integers from floats and has keys that are no strings; JSON does not. The type's own JSON schema says which
number is meant, so that a value from a form packs to the very bytes that the SDK would write, and hits its cache.
"""

from __future__ import annotations

import base64
from typing import Any

import msgpack
from flyteidl2.core.types_pb2 import LiteralType

from flyte_unified.dataproxy.translator.texts import Json, number, step, struct_field, whole

TAG = "msgpack"


def is_packed(type_: LiteralType) -> bool:
    """Whether the SDK said, when it registered the type, that values are msgpack."""
    said = struct_field(struct_field(type_.annotation.annotations, "cache-key-metadata").struct_value, "serialization-format")
    return bool(said.string_value == TAG)


def json_of_packed(data: bytes, path: str) -> Json:
    """Raises ValueError if ``data`` is not msgpack."""
    try:
        return _json(msgpack.unpackb(data, strict_map_key=False), path)
    except (TypeError, OverflowError) as error:  # a key that is a list, a year beyond 9999
        raise ValueError(str(error)) from error


def _json(value: Any, path: str) -> Json:
    if isinstance(value, dict):
        return {_key(key): _json(item, step(path, _key(key))) for key, item in value.items()}
    if isinstance(value, list):
        return [_json(item, step(path, index)) for index, item in enumerate(value)]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, msgpack.Timestamp):
        return value.to_datetime().isoformat()
    if isinstance(value, msgpack.ExtType):
        return base64.b64encode(value.data).decode()
    return number(value) if isinstance(value, float | int) and not isinstance(value, bool) else value


def _key(key: Any) -> str:
    return key if isinstance(key, str) else base64.b64encode(key).decode() if isinstance(key, bytes) else str(key)


def packed_of(value: Json, schema: dict[str, Json]) -> bytes:
    """``value`` as msgpack, its numbers as ``schema`` (a JSON schema, {} if there is none) wants them."""
    return bytes(msgpack.packb(_shaped(value, schema, schema)))


def fits(value: dict[str, Json], schema: dict[str, Json]) -> bool:
    """Whether the keys of ``value`` are those of ``schema``: what tells one dataclass of a union from another."""
    properties = schema.get("properties")
    if not isinstance(properties, dict) or schema.get("additionalProperties"):
        return True
    return set(required_of(schema)) <= set(value) <= set(properties)


def required_of(schema: dict[str, Json]) -> list[str]:
    required = schema.get("required")
    return [name for name in required if isinstance(name, str)] if isinstance(required, list) else []


def _shaped(value: Json, schema: Json, root: dict[str, Json]) -> Json:
    schema = _resolved(schema, root)
    variants = schema.get("anyOf") or schema.get("oneOf")
    if isinstance(variants, list):
        return _shaped_as_one_of(value, variants, root)
    return _shaped_plainly(value, schema, root)


def _shaped_plainly(value: Json, schema: dict[str, Json], root: dict[str, Json]) -> Json:
    if isinstance(value, dict):
        return _shaped_object(value, schema, root)
    if isinstance(value, list):
        return [_shaped(item, schema.get("items"), root) for item in value]
    return _shaped_number(value, schema.get("type"))


def _resolved(schema: Json, root: dict[str, Json]) -> dict[str, Json]:
    """``schema`` with its local reference followed; {} stands for any schema that says nothing."""
    if not isinstance(schema, dict):
        return {}
    match str(schema.get("$ref", "")).split("/"):
        case ["#", ("$defs" | "definitions") as where, name]:
            group = root.get(where)
            target = group.get(name) if isinstance(group, dict) else None
            return target if isinstance(target, dict) else {}
    return schema


def _shaped_object(value: dict[str, Json], schema: dict[str, Json], root: dict[str, Json]) -> dict[str, Json]:
    properties = schema.get("properties")
    known = properties if isinstance(properties, dict) else {}
    rest = schema.get("additionalProperties")
    # A Struct has no order; that of the required fields is all that is left of the class's own.
    names = [name for name in dict.fromkeys(required_of(schema)) if name in value]
    return {name: _shaped(value[name], known.get(name, rest), root) for name in (*names, *sorted(set(value) - set(names)))}


def _shaped_number(value: Json, kind: Json) -> Json:
    if kind == "number" and type(value) is int:
        return float(value)
    if kind == "number" and value in ("NaN", "Infinity", "-Infinity"):
        return float(value)
    if kind == "integer" and isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        return int(value)
    if kind == "integer" and isinstance(value, str):
        return value if (integer := whole(value)) is None else integer
    return value


_KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def _shaped_as_one_of(value: Json, variants: list[Json], root: dict[str, Json]) -> Json:
    """By the variant that is plainly meant, else any of the kind, else the first that makes a number of a text."""
    schemas = [_resolved(variant, root) for variant in variants]
    alike = [schema for schema in schemas if type(value) in _KINDS.get(str(schema.get("type")), ())]
    if isinstance(value, dict):
        alike.sort(key=lambda schema: not fits(value, schema))
    if alike:
        return _shaped_plainly(value, alike[0], root)
    numbers = (_shaped_number(value, schema.get("type")) for schema in schemas)
    return next((shaped for shaped in numbers if shaped != value), value)
