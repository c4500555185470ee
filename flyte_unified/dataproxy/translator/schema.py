"""Types as JSON schemas, and JSON schemas as types.

The schema is for people and forms; it need not hold all of the type. Who needs the exact type back keeps it beside the schema
when ``type_of(schema_of(t)) != t``.
"""

from __future__ import annotations

from typing import Any

from flyteidl2.core.types_pb2 import (
    BlobType,
    EnumType,
    LiteralType,
    SchemaType,
    SimpleType,
    StructuredDatasetType,
    TypeStructure,
    UnionType,
)

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.dataproxy.translator.texts import Json, plain_struct, step, struct_field, struct_of

EXTENSION = "x-flyte"

_SIMPLE: dict[SimpleType, dict[str, Json]] = {
    SimpleType.NONE: {"type": "null"},
    SimpleType.INTEGER: {"type": "integer"},
    SimpleType.FLOAT: {"type": "number", "format": "float"},
    SimpleType.STRING: {"type": "string"},
    SimpleType.BOOLEAN: {"type": "boolean"},
    SimpleType.DATETIME: {"type": "string", "format": "datetime"},
    SimpleType.DURATION: {"type": "string", "format": "duration"},
    SimpleType.BINARY: {"type": "string", "format": "binary"},
    SimpleType.ERROR: {"type": "string", "format": "error"},
}
_STRINGS = {
    "datetime": SimpleType.DATETIME,
    "date-time": SimpleType.DATETIME,
    "duration": SimpleType.DURATION,
    "binary": SimpleType.BINARY,
    "error": SimpleType.ERROR,
}
_SCALARS = {
    "integer": SimpleType.INTEGER,
    "number": SimpleType.FLOAT,
    "boolean": SimpleType.BOOLEAN,
    "null": SimpleType.NONE,
}
_OPEN_OBJECT: dict[str, Json] = {"type": "object", "additionalProperties": True}
_ADDED = ("default", "structure", "title", "dataclass", EXTENSION)
_DIMENSIONALITIES = ["SINGLE", "MULTIPART"]


def title(type_: LiteralType) -> str:
    """What a person calls the type: the title of a variant, and the expectation in a message."""
    match type_.WhichOneof("type"):
        case "simple" if type_.simple == SimpleType.STRUCT:
            return struct_field(type_.metadata, "title").string_value or "object"
        case "simple":
            return SimpleType.Name(type_.simple).lower() if type_.simple in SimpleType.values() else "unknown"
        case "collection_type":
            return f"list of {title(type_.collection_type)}"
        case "map_value_type":
            return f"map to {title(type_.map_value_type)}"
        case "enum_type":
            return f"enum ({', '.join(type_.enum_type.values)})"
        case "structured_dataset_type":
            return "structured dataset"
        case "union_type":
            return " or ".join(title(variant) for variant in type_.union_type.variants)
        case kind:
            return kind or "unknown"


def is_none(type_: LiteralType) -> bool:
    return bool(type_.WhichOneof("type") == "simple" and type_.simple == SimpleType.NONE)


def schema_of(type_: LiteralType, path: str, pointer: str = "#") -> dict[str, Json]:
    """The JSON schema of ``type_``. ``pointer`` is where it will stand in the document: local references need it."""
    match type_.WhichOneof("type"):
        case "simple" if type_.simple == SimpleType.STRUCT:
            return _struct_schema(type_, pointer)
        case "simple" if type_.simple in _SIMPLE:
            return dict(_SIMPLE[type_.simple])
        case "enum_type":
            return {"type": "string", "enum": list(type_.enum_type.values)}
        case "blob":
            return _blob_schema(type_.blob)
        case "structured_dataset_type":
            return _located("structured-dataset", {"format": {"type": "string"}})
        case "schema":
            return _located("schema", {"columns": {"type": "array", "items": dict(_OPEN_OBJECT)}})
        case "collection_type":
            items = schema_of(type_.collection_type, step(path, "items"), f"{pointer}/items")
            return {"type": "array", "items": items}
        case "map_value_type":
            values = schema_of(type_.map_value_type, step(path, "values"), f"{pointer}/additionalProperties")
            return {"type": "object", "additionalProperties": values}
        case "union_type":
            variants = enumerate(type_.union_type.variants)
            return {
                "format": "union",
                "oneOf": [_variant(item, step(path, index), f"{pointer}/oneOf/{index}") for index, item in variants],
            }
    raise InvalidArgument(f"{path}: unknown type {title(type_)}")


def _variant(type_: LiteralType, path: str, pointer: str) -> dict[str, Json]:
    return {**schema_of(type_, path, pointer), "title": title(type_), "structure": type_.structure.tag}


def _struct_schema(type_: LiteralType, pointer: str) -> dict[str, Json]:
    """The class's own JSON schema; one that allows more properties would read as a map, so that is not said."""
    if not type_.metadata.fields:
        return dict(_OPEN_OBJECT)
    schema = {"type": "object", **_moved(plain_struct(type_.metadata), pointer)}
    schema.pop("additionalProperties", None)
    name = schema.pop("title", None)
    return schema if name is None else {**schema, "dataclass": name}


def _moved(schema: Json, pointer: str) -> Any:
    """``schema`` with its references into itself made references into the document that it becomes a part of."""
    if isinstance(schema, list):
        return [_moved(item, pointer) for item in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {key: _moved(value, pointer) for key, value in schema.items()}
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        moved["$ref"] = f"{pointer}{reference[1:]}"
    return moved


def _located(format_: str, properties: dict[str, Json]) -> dict[str, Json]:
    return {"type": "object", "format": format_, "properties": {"uri": {"type": "string"}, **properties}}


def _blob_schema(blob: BlobType) -> dict[str, Json]:
    dimensionality = {"type": "string", "enum": list(_DIMENSIONALITIES), "default": dimensionality_name(blob)}
    return _located("blob", {"format": {"type": "string", "default": blob.format}, "dimensionality": dimensionality})


def type_of(schema: Json, path: str) -> LiteralType:
    """The type that ``schema`` describes, as far as it does."""
    if not isinstance(schema, dict):
        raise InvalidArgument(f"{path}: expected a JSON schema object")
    kind = schema.get("type")
    variants = schema.get("oneOf", schema.get("anyOf"))
    if variants is None and isinstance(kind, list):
        variants = [{**schema, "type": one} for one in kind]
    if isinstance(variants, list):
        types = [type_of(variant, step(path, index)) for index, variant in enumerate(variants)]
        type_ = LiteralType(union_type=UnionType(variants=types))
    elif kind == "array":
        items = schema.get("items", {"type": "string"})
        type_ = LiteralType(collection_type=type_of(items, step(path, "items")))
    elif kind == "object":
        type_ = _object_type(schema, path)
    elif isinstance(kind, str) and kind in _SCALARS:
        type_ = LiteralType(simple=_SCALARS[kind])
    elif isinstance(schema.get("enum"), list):
        type_ = LiteralType(enum_type=EnumType(values=[str(value) for value in schema["enum"]]))
    elif kind == "string":
        type_ = LiteralType(simple=_STRINGS.get(str(schema.get("format")), SimpleType.STRING))
    else:
        raise InvalidArgument(f"{path}: the JSON schema has no type that is known here")
    tag = schema.get("structure")
    if isinstance(tag, str) and tag:
        type_.structure.CopyFrom(TypeStructure(tag=tag))
    return type_


def _object_type(schema: dict[str, Json], path: str) -> LiteralType:
    match schema.get("format"):
        case "blob":
            return LiteralType(blob=_blob_type(schema, path))
        case "structured-dataset":
            return LiteralType(structured_dataset_type=StructuredDatasetType())
        case "schema":
            return LiteralType(schema=SchemaType())
    if isinstance(schema.get("additionalProperties"), dict):
        return LiteralType(map_value_type=type_of(schema["additionalProperties"], step(path, "values")))
    metadata = {key: value for key, value in schema.items() if key not in _ADDED}
    if "dataclass" in schema:
        metadata["title"] = schema["dataclass"]
    type_ = LiteralType(simple=SimpleType.STRUCT)
    if metadata != _OPEN_OBJECT:
        type_.metadata.CopyFrom(struct_of(metadata))
    return type_


def _blob_type(schema: dict[str, Json], path: str) -> BlobType:
    defaults = property_defaults(schema)
    format_ = defaults.get("format")
    return BlobType(
        format=format_ if isinstance(format_, str) else "",
        dimensionality=dimensionality(defaults.get("dimensionality", "SINGLE"), step(path, "dimensionality")),
    )


def dimensionality_name(blob: BlobType) -> str:
    return "MULTIPART" if blob.dimensionality == BlobType.BlobDimensionality.MULTIPART else "SINGLE"


def property_defaults(schema: dict[str, Json]) -> dict[str, Json]:
    """The defaults that stand at the properties of an object's schema."""
    properties = schema.get("properties")
    items = properties.items() if isinstance(properties, dict) else ()
    return {name: value["default"] for name, value in items if isinstance(value, dict) and "default" in value}


def dimensionality(value: Json, path: str) -> BlobType.BlobDimensionality:
    """SINGLE or MULTIPART, by name or number."""
    names = [*_DIMENSIONALITIES, "0", "1"]
    if isinstance(value, bool) or str(value) not in names:
        raise InvalidArgument(f"{path}: expected SINGLE or MULTIPART")
    return BlobType.BlobDimensionality.SINGLE if names.index(str(value)) % 2 == 0 else BlobType.BlobDimensionality.MULTIPART
