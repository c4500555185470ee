"""Literals as JSON values, with hints where the value and its type do not say all.

A hint is keyed by the path of the value and is one of:
``variant`` the index of the union's variant, if a reader of the JSON alone would pick another;
``null`` a none literal where the type is another;
``binary`` the tag of base64 bytes; ``msgpack`` JSON to be packed although the type does not say so;
``packed`` the original msgpack (base64), valid as long as the JSON is unchanged, if packing again would give other bytes;
``node`` the node of an error; ``dataset`` a structured dataset's own type (base64);
``offloaded`` the literal itself (base64), which is elsewhere and stays there.
"""

from __future__ import annotations

import base64

from flyteidl2.core.literals_pb2 import Binary, Literal, Primitive, Scalar, Schema, StructuredDataset, Union
from flyteidl2.core.types_pb2 import LiteralType, SchemaType, SimpleType, StructuredDatasetType

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.dataproxy.translator import packed, parse
from flyte_unified.dataproxy.translator.parse import Hints
from flyte_unified.dataproxy.translator.schema import dimensionality_name, is_none, title
from flyte_unified.dataproxy.translator.texts import (
    NULL,
    Json,
    duration_text,
    encoded,
    number,
    plain_struct,
    step,
    timestamp_text,
)


def json_of(literal: Literal, type_: LiteralType, path: str, hints: Hints) -> Json:
    """``literal`` as JSON. It need not be of ``type_``: then its own kind decides. ``hints`` is added to."""
    match literal.WhichOneof("value"):
        case "scalar":
            return _scalar(literal.scalar, type_, path, hints)
        case "collection":
            items = enumerate(literal.collection.literals)
            return [json_of(item, type_.collection_type, step(path, index), hints) for index, item in items]
        case "map":
            values = literal.map.literals.items()
            return {key: json_of(item, type_.map_value_type, step(path, key), hints) for key, item in values}
        case "offloaded_metadata":
            hints[path] = {"offloaded": encoded(literal)}
            offloaded = literal.offloaded_metadata
            return {"uri": offloaded.uri, "size_bytes": number(offloaded.size_bytes)}
    raise InvalidArgument(f"{path}: the literal has no value, expected {title(type_)}")


def _scalar(scalar: Scalar, type_: LiteralType, path: str, hints: Hints) -> Json:
    match scalar.WhichOneof("value"):
        case "primitive":
            return _primitive(scalar.primitive, type_, path)
        case "none_type":
            if not is_none(type_):
                hints[path] = {"null": True}
            return dict(NULL)
        case "union":
            return _union(scalar.union, type_, path, hints)
        case "binary":
            return _binary(scalar.binary, type_, path, hints)
        case "generic":
            return plain_struct(scalar.generic)
        case "blob":
            own = scalar.blob.metadata.type
            return {"uri": scalar.blob.uri, "format": own.format, "dimensionality": dimensionality_name(own)}
        case "structured_dataset":
            return _dataset(scalar.structured_dataset, type_.structured_dataset_type, path, hints)
        case "schema":
            return _schema(scalar.schema)
        case "error":
            if scalar.error.failed_node_id:
                hints[path] = {"node": scalar.error.failed_node_id}
            return scalar.error.message
    raise InvalidArgument(f"{path}: the literal has no value, expected {title(type_)}")


def _primitive(primitive: Primitive, type_: LiteralType, path: str) -> Json:
    match primitive.WhichOneof("value"):
        case "integer":
            return number(primitive.integer)
        case "float_value":
            return number(primitive.float_value)
        case "string_value":
            return primitive.string_value
        case "boolean":
            return primitive.boolean
        case "datetime":
            return timestamp_text(primitive.datetime, path)
        case "duration":
            return duration_text(primitive.duration)
    raise InvalidArgument(f"{path}: the literal has no value, expected {title(type_)}")


def _union(union: Union, type_: LiteralType, path: str, hints: Hints) -> Json:
    index = _variant_index(union.type, type_)
    if index is None:
        return json_of(union.value, union.type, path, hints)
    inner: Hints = {}
    value = json_of(union.value, type_.union_type.variants[index], parse.inside(path, index), inner)
    hints.update(inner)
    if parse.natural_variant(value, type_, path, inner) != index:
        hints[path] = {"variant": index}
    return value


def _variant_index(actual: LiteralType, declared: LiteralType) -> int | None:
    """Which of the declared variants the SDK took: the same type, else the same tag and kind (a class may have grown)."""
    variants = list(declared.union_type.variants)
    if actual in variants:
        return variants.index(actual)
    kind = actual.WhichOneof("type")
    for index, variant in enumerate(variants):
        same = variant.WhichOneof("type") == kind and variant.structure.tag == actual.structure.tag
        if same and (kind != "simple" or variant.simple == actual.simple):
            return index
    return None


def _binary(binary: Binary, type_: LiteralType, path: str, hints: Hints) -> Json:
    if binary.tag == packed.TAG:
        try:
            value = packed.json_of_packed(binary.value, path)
        except ValueError:  # tagged wrongly: shown as bytes, like everything unknown
            pass
        else:
            _hint_packed(binary, value, type_, path, hints)
            return value
    if binary.tag or type_.simple != SimpleType.BINARY:
        hints[path] = {"binary": binary.tag}
    return base64.b64encode(binary.value).decode()


def _hint_packed(binary: Binary, value: Json, type_: LiteralType, path: str, hints: Hints) -> None:
    hint: dict[str, Json] = {}
    if not packed.is_packed(type_) or not isinstance(value, dict):
        hint["msgpack"] = True
    if packed.packed_of(value, plain_struct(type_.metadata)) != binary.value:
        hint["packed"] = base64.b64encode(binary.value).decode()
    if hint:
        hints[path] = hint


def _dataset(dataset: StructuredDataset, declared: StructuredDatasetType, path: str, hints: Hints) -> Json:
    own = dataset.metadata.structured_dataset_type
    if own != parse.dataset_type(declared, own.format):
        hints[path] = {"dataset": encoded(own)}
    return {"uri": dataset.uri, "format": own.format}


def _schema(schema: Schema) -> Json:
    kinds = {number: name for name, number in SchemaType.SchemaColumn.SchemaColumnType.items()}
    columns = [{"name": column.name, "type": kinds.get(column.type, column.type)} for column in schema.type.columns]
    return {"uri": schema.uri, "columns": columns}
