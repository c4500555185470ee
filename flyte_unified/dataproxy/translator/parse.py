"""JSON values as literals of a type, each refusal naming the path and what was expected there.

Reading is lenient (digits for an integer, a bare URI for a file), save when a union's variant is picked: there a first pass
takes only what is plainly of the variant, so that "5" in ``int | str`` stays a string.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence

from flyteidl2.core.literals_pb2 import (
    Binary,
    Blob,
    BlobMetadata,
    Literal,
    LiteralCollection,
    LiteralMap,
    Primitive,
    Scalar,
    Schema,
    StructuredDataset,
    StructuredDatasetMetadata,
    Union,
    Void,
)
from flyteidl2.core.types_pb2 import BlobType, Error, LiteralType, SchemaType, SimpleType, StructuredDatasetType

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.dataproxy.translator import packed
from flyte_unified.dataproxy.translator.schema import dimensionality, is_none, title
from flyte_unified.dataproxy.translator.texts import (
    Json,
    decoded,
    duration_of,
    is_null,
    plain_struct,
    shown,
    step,
    struct_of,
    timestamp_of,
    whole,
)

Hints = dict[str, dict[str, Json]]
"""Path of a value to what JSON does not say about it; ``values`` lists the keys."""

_PICKLE = "FlytePickle"
_VARIANT = re.compile(r"\|\d+")


def literal_of(value: Json, type_: LiteralType, path: str, hints: Hints, *, strict: bool = False) -> Literal:
    """``value`` as a literal of ``type_``. Raises InvalidArgument."""
    hint = hints.get(path)
    if hint and (hinted := _hinted(value, type_, path, hint)):
        return hinted
    match type_.WhichOneof("type"):
        case "simple":
            return Literal(scalar=_simple(value, type_, path, strict))
        case "enum_type":
            return Literal(scalar=Scalar(primitive=_enum(value, type_, path)))
        case "collection_type" if isinstance(value, list):
            element = type_.collection_type
            items = [literal_of(item, element, step(path, index), hints, strict=strict) for index, item in enumerate(value)]
            return Literal(collection=LiteralCollection(literals=items))
        case "map_value_type" if isinstance(value, dict):
            element = type_.map_value_type
            values = {key: literal_of(item, element, step(path, key), hints, strict=strict) for key, item in value.items()}
            return Literal(map=LiteralMap(literals=values))
        case "blob":
            return Literal(scalar=Scalar(blob=_blob(value, type_, path, strict)))
        case "structured_dataset_type":
            return Literal(scalar=Scalar(structured_dataset=_dataset(value, type_, path, strict)))
        case "schema":
            return Literal(scalar=Scalar(schema=_schema(value, type_, path, strict)))
        case "union_type":
            return _union(value, type_, path, hints, strict)
    raise _refusal(value, type_, path)


def none_of(type_: LiteralType) -> Literal | None:
    """The literal that stands for nothing given, if ``type_`` is optional."""
    none = Literal(scalar=Scalar(none_type=Void()))
    if is_none(type_):
        return none
    unions = (Union(type=variant, value=none) for variant in type_.union_type.variants if is_none(variant))
    return next((Literal(scalar=Scalar(union=union)) for union in unions), None)


def inside(path: str, variant: int) -> str:
    """The path of a union's value as that of a variant."""
    return f"{path}|{variant}"


def _refusal(value: Json, type_: LiteralType, path: str, why: str = "") -> InvalidArgument:
    field = _VARIANT.sub("", path)
    return InvalidArgument(f"{field}: expected {title(type_)}, got {shown(value)}{why and f' ({why})'}")


# --- unions -------------------------------------------------------------------------------------------------------


def natural_variant(value: Json, type_: LiteralType, path: str, hints: Hints) -> int | None:
    """The variant that the value is read as when no hint names one."""
    picked = _pick(value, type_, path, hints, strict=False)
    return picked[0] if picked else None


def _union(value: Json, type_: LiteralType, path: str, hints: Hints, strict: bool) -> Literal:
    hinted = hints.get(path, {}).get("variant")
    picked = None
    if isinstance(hinted, int) and 0 <= hinted < len(type_.union_type.variants):
        picked = _try(value, type_, hinted, path, hints, strict=False)
    picked = picked or _pick(value, type_, path, hints, strict=strict)
    variants = type_.union_type.variants
    if picked is None:
        real = [index for index, variant in enumerate(variants) if not is_none(variant)]
        if len(real) == 1 and not is_null(value):  # an optional: what is wrong inside says more
            literal_of(value, variants[real[0]], inside(path, real[0]), hints)
        raise _refusal(value, type_, path)
    index, literal = picked
    # The SDK declares what it pickles as a union, but neither writes nor reads one.
    if all(variant.structure.tag == _PICKLE for variant in variants):
        return literal
    return Literal(scalar=Scalar(union=Union(type=variants[index], value=literal)))


def _pick(value: Json, type_: LiteralType, path: str, hints: Hints, *, strict: bool) -> tuple[int, Literal] | None:
    indexes = range(len(type_.union_type.variants))
    nulls = [index for index in indexes if is_none(type_.union_type.variants[index])] if is_null(value) else []
    for strictly in (True,) if strict else (True, False):
        for index in (*nulls, *indexes):
            if picked := _try(value, type_, index, path, hints, strict=strictly):
                return picked
    return None


def _try(value: Json, type_: LiteralType, index: int, path: str, hints: Hints, *, strict: bool) -> tuple[int, Literal] | None:
    try:
        return index, literal_of(value, type_.union_type.variants[index], inside(path, index), hints, strict=strict)
    except InvalidArgument:
        return None


# --- scalars ------------------------------------------------------------------------------------------------------


def _simple(value: Json, type_: LiteralType, path: str, strict: bool) -> Scalar:
    match type_.simple:
        case SimpleType.NONE if is_null(value):
            return Scalar(none_type=Void())
        case SimpleType.INTEGER:
            return Scalar(primitive=Primitive(integer=_integer(value, type_, path, strict)))
        case SimpleType.FLOAT:
            return Scalar(primitive=Primitive(float_value=_float(value, type_, path, strict)))
        case SimpleType.STRING if isinstance(value, str):
            return Scalar(primitive=Primitive(string_value=value))
        case SimpleType.BOOLEAN if isinstance(value, bool):
            return Scalar(primitive=Primitive(boolean=value))
        case SimpleType.DATETIME | SimpleType.DURATION:
            return Scalar(primitive=_time(value, type_, path, strict))
        case SimpleType.BINARY if isinstance(value, str):
            return Scalar(binary=Binary(value=_bytes(value, type_, path)))
        case SimpleType.STRUCT if isinstance(value, dict):
            return _struct(value, type_, path, strict)
        case SimpleType.ERROR if isinstance(value, str):
            return Scalar(error=Error(message=value))
    raise _refusal(value, type_, path)


def _enum(value: Json, type_: LiteralType, path: str) -> Primitive:
    if not isinstance(value, str) or value not in type_.enum_type.values:
        raise _refusal(value, type_, path)
    return Primitive(string_value=value)


def _integer(value: Json, type_: LiteralType, path: str, strict: bool) -> int:
    integer = whole(value) if isinstance(value, str) and not strict else value
    if isinstance(integer, float) and integer.is_integer():
        integer = int(integer)
    if type(integer) is not int:
        raise _refusal(value, type_, path)
    if not -(2**63) <= integer < 2**63:
        raise _refusal(value, type_, path, "beyond 64 bits")
    return integer


def _float(value: Json, type_: LiteralType, path: str, strict: bool) -> float:
    if isinstance(value, str) and not strict:
        try:
            return float(value)
        except ValueError:
            raise _refusal(value, type_, path) from None
    if type(value) not in (int, float):
        raise _refusal(value, type_, path)
    return float(value)


def _time(value: Json, type_: LiteralType, path: str, strict: bool) -> Primitive:
    seconds = type(value) in (int, float) or (isinstance(value, str) and value.isdecimal())
    try:
        if type_.simple == SimpleType.DATETIME and isinstance(value, str):
            return Primitive(datetime=timestamp_of(value, strict=strict))
        if type_.simple == SimpleType.DURATION and (not strict if seconds else isinstance(value, str)):
            return Primitive(duration=duration_of(value))
    except (ValueError, OverflowError) as error:
        raise _refusal(value, type_, path, str(error)) from error
    raise _refusal(value, type_, path)


def _bytes(value: str, type_: LiteralType, path: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _refusal(value, type_, path, f"base64: {error}") from error


def _struct(value: dict[str, Json], type_: LiteralType, path: str, strict: bool) -> Scalar:
    schema = plain_struct(type_.metadata)
    if strict and not packed.fits(value, schema):
        raise _refusal(value, type_, path, "other keys")
    if packed.is_packed(type_):
        return Scalar(binary=Binary(value=packed.packed_of(value, schema), tag=packed.TAG))
    return Scalar(generic=struct_of(value))


# --- things that are elsewhere ------------------------------------------------------------------------------------


def _located(value: Json, type_: LiteralType, path: str, strict: bool, keys: Sequence[str]) -> dict[str, Json]:
    """An object with a ``uri``, or, where the type is certain, the bare URI."""
    if isinstance(value, str) and not strict:
        return {"uri": value}
    if not isinstance(value, dict) or (strict and not value.keys() <= {"uri", *keys}):
        raise _refusal(value, type_, path)
    if not isinstance(value.get("uri"), str):
        raise _refusal(value.get("uri"), LiteralType(simple=SimpleType.STRING), step(path, "uri"))
    return value


def _format(located: dict[str, Json], default: str, path: str) -> str:
    format_ = located.get("format", default)
    if not isinstance(format_, str):
        raise _refusal(format_, LiteralType(simple=SimpleType.STRING), step(path, "format"))
    return format_


def _blob(value: Json, type_: LiteralType, path: str, strict: bool) -> Blob:
    located = _located(value, type_, path, strict, ("format", "dimensionality"))
    given = located.get("dimensionality", int(type_.blob.dimensionality))
    own = BlobType(
        format=_format(located, type_.blob.format, path),
        dimensionality=dimensionality(given, step(path, "dimensionality")),
    )
    other = own.dimensionality != type_.blob.dimensionality or type_.blob.format not in ("", own.format)
    if strict and other:
        raise _refusal(value, type_, path, "another format or dimensionality")
    return Blob(uri=located["uri"], metadata=BlobMetadata(type=own))


def dataset_type(declared: StructuredDatasetType, format_: str) -> StructuredDatasetType:
    """The type of a dataset of which nothing but the format is known beside what was declared."""
    own = StructuredDatasetType(format=format_)
    own.MergeFrom(declared)
    own.format = format_
    return own


def _dataset(value: Json, type_: LiteralType, path: str, strict: bool) -> StructuredDataset:
    located = _located(value, type_, path, strict, ("format",))
    declared = type_.structured_dataset_type
    own = dataset_type(declared, _format(located, declared.format, path))
    return StructuredDataset(uri=located["uri"], metadata=StructuredDatasetMetadata(structured_dataset_type=own))


def _schema(value: Json, type_: LiteralType, path: str, strict: bool) -> Schema:
    located = _located(value, type_, path, strict, ("columns",))
    if "columns" not in located:
        return Schema(uri=located["uri"], type=type_.schema)
    columns = located["columns"]
    own = SchemaType()
    for index, column in enumerate(columns if isinstance(columns, list) else [columns]):
        try:
            own.columns.add(name=column["name"], type=column["type"])
        except (TypeError, KeyError, ValueError):
            raise InvalidArgument(f"{path}/columns/{index}: expected a column's name and type") from None
    return Schema(uri=located["uri"], type=own)


# --- hints --------------------------------------------------------------------------------------------------------


def _hinted(value: Json, type_: LiteralType, path: str, hint: dict[str, Json]) -> Literal | None:
    """What the hint makes of ``value``, or None if it says nothing about a value like this, as after an edit."""
    match hint:
        case {"null": True} if is_null(value):
            return Literal(scalar=Scalar(none_type=Void()))
        case {"packed": str(data)} if _same(value, original := _bytes(data, type_, path), path):
            return Literal(scalar=Scalar(binary=Binary(value=original, tag=packed.TAG)))
        case {"msgpack": True}:
            repacked = packed.packed_of(value, plain_struct(type_.metadata))
            return Literal(scalar=Scalar(binary=Binary(value=repacked, tag=packed.TAG)))
        case {"binary": str(tag)} if isinstance(value, str):
            return Literal(scalar=Scalar(binary=Binary(value=_bytes(value, type_, path), tag=tag)))
        case {"node": str(node)} if isinstance(value, str):
            return Literal(scalar=Scalar(error=Error(message=value, failed_node_id=node)))
        case {"dataset": str(data)} if isinstance(value, dict):
            return _hinted_dataset(value, type_, path, decoded(StructuredDatasetType, data, path))
        case {"offloaded": str(data)} if isinstance(value, dict) and "uri" in value:
            return decoded(Literal, data, path)
    return None


def _same(value: Json, data: bytes, path: str) -> bool:
    try:
        return bool(packed.json_of_packed(data, path) == value)
    except ValueError:
        return False


def _hinted_dataset(value: Json, type_: LiteralType, path: str, own: StructuredDatasetType) -> Literal:
    located = _located(value, type_, path, False, ("format",))
    own.format = _format(located, own.format, path)
    metadata = StructuredDatasetMetadata(structured_dataset_type=own)
    dataset = StructuredDataset(uri=located["uri"], metadata=metadata)
    return Literal(scalar=Scalar(structured_dataset=dataset))
