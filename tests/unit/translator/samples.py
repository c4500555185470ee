"""Types and literals of every kind, by hand and drawn by hypothesis."""

from __future__ import annotations

import math
from typing import Any

import msgpack
from flyteidl2.core.interface_pb2 import Variable, VariableEntry, VariableMap
from flyteidl2.core.literals_pb2 import (
    Binary,
    Blob,
    BlobMetadata,
    Literal,
    LiteralCollection,
    LiteralMap,
    LiteralOffloadedMetadata,
    Primitive,
    Scalar,
    Schema,
    StructuredDataset,
    StructuredDatasetMetadata,
    Union,
    Void,
)
from flyteidl2.core.types_pb2 import (
    BlobType,
    EnumType,
    Error,
    LiteralType,
    SchemaType,
    SimpleType,
    StructuredDatasetType,
    TypeAnnotation,
    TypeStructure,
    UnionType,
)
from flyteidl2.task.common_pb2 import NamedLiteral
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import strategies as st

NONE = LiteralType(simple=SimpleType.NONE)
INT = LiteralType(simple=SimpleType.INTEGER)
FLOAT = LiteralType(simple=SimpleType.FLOAT)
STRING = LiteralType(simple=SimpleType.STRING)
BOOL = LiteralType(simple=SimpleType.BOOLEAN)
DATETIME = LiteralType(simple=SimpleType.DATETIME)
DURATION = LiteralType(simple=SimpleType.DURATION)
BINARY = LiteralType(simple=SimpleType.BINARY)
ERROR = LiteralType(simple=SimpleType.ERROR)
STRUCT = LiteralType(simple=SimpleType.STRUCT)


def struct(values: dict[str, Any]) -> Struct:
    message = Struct()
    message.update(values)
    return message


def list_of(element: LiteralType) -> LiteralType:
    return LiteralType(collection_type=element)


def union_of(*variants: LiteralType) -> LiteralType:
    return LiteralType(union_type=UnionType(variants=variants))


def tagged(type_: LiteralType, tag: str) -> LiteralType:
    copy = LiteralType(structure=TypeStructure(tag=tag))
    copy.MergeFrom(type_)
    return copy


def packed_type(metadata: dict[str, Any] | None = None, tag: str = "") -> LiteralType:
    """A struct that is said to be msgpack."""
    said = struct({"cache-key-metadata": {"serialization-format": "msgpack"}})
    type_ = LiteralType(simple=SimpleType.STRUCT, annotation=TypeAnnotation(annotations=said))
    if metadata is not None:
        type_.metadata.CopyFrom(struct(metadata))
    if tag:
        type_.structure.tag = tag
    return type_


def integer(value: int) -> Literal:
    return Literal(scalar=Scalar(primitive=Primitive(integer=value)))


def string(value: str) -> Literal:
    return Literal(scalar=Scalar(primitive=Primitive(string_value=value)))


def packed(value: Any) -> Literal:
    return Literal(scalar=Scalar(binary=Binary(value=msgpack.packb(value), tag="msgpack")))


def variables(**types: LiteralType) -> VariableMap:
    return VariableMap(variables=[VariableEntry(key=name, value=Variable(type=type_)) for name, type_ in types.items()])


def named(**literals: Literal) -> list[NamedLiteral]:
    return [NamedLiteral(name=name, value=literal) for name, literal in literals.items()]


# --- drawn --------------------------------------------------------------------------------------------------------

_text = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=8)
_words = st.one_of(_text, st.sampled_from(["5", "2024-01-02T03:04:05Z", "1h", "null", "a/b", "a|1", "~", "NaN", ""]))
_json = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**53) + 1, 2**53 - 1), st.floats(allow_nan=False, allow_infinity=False), _words
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_words, inner, max_size=3)),
    max_leaves=6,
)
json_objects = st.one_of(st.dictionaries(_words, _json, max_size=3), st.just({"type": "null"}))
_whole_floats = st.integers(-3, 3).map(float)
_msgpack = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), _whole_floats, _words, st.binary(max_size=5)
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(_words, st.integers(-9, 9), st.binary(max_size=3)), inner, max_size=3),
    ),
    max_leaves=6,
)
_bytes = st.binary(max_size=8)
_blob_types = st.builds(BlobType, format=st.sampled_from(["", "csv"]), dimensionality=st.sampled_from([0, 1]))
_enums = st.lists(_words, min_size=1, max_size=3, unique=True).map(
    lambda values: LiteralType(enum_type=EnumType(values=values))
)
_columns = st.lists(
    st.builds(StructuredDatasetType.DatasetColumn, name=_words, literal_type=st.sampled_from([INT, STRING])), max_size=2
)
_dataset_types = st.builds(StructuredDatasetType, format=st.sampled_from(["", "parquet"]), columns=_columns)
_schema_types = st.builds(
    SchemaType, columns=st.lists(st.builds(SchemaType.SchemaColumn, name=_words, type=st.integers(0, 5)), max_size=2)
)
_CLASS = {
    "title": "Point",
    "type": "object",
    "properties": {"x": {"type": "integer"}, "y": {"type": "number"}},
    "required": ["x", "y"],
    "additionalProperties": False,
}
_leaves = st.one_of(
    st.sampled_from([NONE, INT, FLOAT, STRING, BOOL, DATETIME, DURATION, BINARY, ERROR, STRUCT]),
    st.sampled_from(
        [packed_type(), packed_type(_CLASS, "a class"), LiteralType(simple=SimpleType.STRUCT, metadata=struct(_CLASS))]
    ),
    _enums,
    st.builds(LiteralType, blob=_blob_types),
    st.builds(LiteralType, structured_dataset_type=_dataset_types),
    st.builds(LiteralType, schema=_schema_types),
)


def _unions(variants: list[LiteralType]) -> LiteralType:
    return union_of(*(tagged(variant, f"v{index}") for index, variant in enumerate(variants)))


types = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        inner.map(list_of),
        inner.map(lambda element: LiteralType(map_value_type=element)),
        st.lists(inner, min_size=1, max_size=4).map(_unions),
    ),
    max_leaves=6,
)

_timestamps = st.builds(Timestamp, seconds=st.integers(-62135596800, 253402300799), nanos=st.integers(0, 10**9 - 1))


def _duration(seconds: int, nanos: int) -> Duration:
    return Duration(seconds=seconds, nanos=-nanos if seconds < 0 else nanos)


_durations = st.builds(_duration, st.integers(-315_575_999_999, 315_575_999_999), st.integers(0, 10**9 - 1))
_PRIMITIVES = {
    SimpleType.INTEGER: st.builds(Primitive, integer=st.integers(-(2**63), 2**63 - 1)),
    SimpleType.FLOAT: st.builds(Primitive, float_value=st.floats(allow_nan=False) | st.just(math.nan)),
    SimpleType.STRING: st.builds(Primitive, string_value=_words),
    SimpleType.BOOLEAN: st.builds(Primitive, boolean=st.booleans()),
    SimpleType.DATETIME: st.builds(Primitive, datetime=_timestamps),
    SimpleType.DURATION: st.builds(Primitive, duration=_durations),
}
_VOID = Literal(scalar=Scalar(none_type=Void()))
_offloaded = st.builds(LiteralOffloadedMetadata, uri=_text, size_bytes=st.integers(0, 2**64 - 1), inferred_type=_leaves)


@st.composite
def literals(draw: st.DrawFn, type_: LiteralType) -> Literal:
    """A literal as the SDK could write it for ``type_``; now and then none, or one that is offloaded."""
    rare = draw(st.integers(0, 19))
    if rare == 0:
        return _VOID
    if rare == 1:
        return Literal(offloaded_metadata=draw(_offloaded))
    match type_.WhichOneof("type"):
        case "collection_type":
            items = draw(st.lists(literals(type_.collection_type), max_size=3))
            return Literal(collection=LiteralCollection(literals=items))
        case "map_value_type":
            values = draw(st.dictionaries(_words, literals(type_.map_value_type), max_size=3))
            return Literal(map=LiteralMap(literals=values))
        case "union_type":
            variant = draw(st.sampled_from(list(type_.union_type.variants)))
            return Literal(scalar=Scalar(union=Union(type=variant, value=draw(literals(variant)))))
        case "enum_type":
            return string(draw(st.sampled_from(list(type_.enum_type.values))))
        case "blob":
            return Literal(scalar=Scalar(blob=Blob(uri=draw(_text), metadata=BlobMetadata(type=draw(_blob_types)))))
        case "structured_dataset_type":
            metadata = StructuredDatasetMetadata(structured_dataset_type=draw(_dataset_types))
            return Literal(scalar=Scalar(structured_dataset=StructuredDataset(uri=draw(_text), metadata=metadata)))
        case "schema":
            return Literal(scalar=Scalar(schema=Schema(uri=draw(_text), type=draw(_schema_types))))
    return Literal(scalar=draw(_scalars(type_)))


def _scalars(type_: LiteralType) -> st.SearchStrategy[Scalar]:
    if type_.simple in _PRIMITIVES:
        return st.builds(Scalar, primitive=_PRIMITIVES[type_.simple])
    if type_.simple == SimpleType.NONE:
        return st.just(_VOID.scalar)
    if type_.simple == SimpleType.ERROR:
        return st.builds(Scalar, error=st.builds(Error, message=_text, failed_node_id=_text))
    if type_.simple == SimpleType.BINARY:
        return st.builds(Scalar, binary=st.builds(Binary, value=_bytes, tag=st.sampled_from(["", "msgpack", "pickle"])))
    if type_.HasField("annotation"):
        anything = st.dictionaries(_words, _msgpack, max_size=3) | _msgpack
        points = st.fixed_dictionaries({"x": st.integers(-9, 9), "y": st.floats(allow_nan=False)})
        return (points if type_.HasField("metadata") else anything).map(lambda value: packed(value).scalar)
    return st.builds(Scalar, generic=json_objects.map(struct))
