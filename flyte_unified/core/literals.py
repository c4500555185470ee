"""Literals as plain text and back: what a program that knows nothing of Flyte reads in an argument or in a file.

The forms are Flyte's for such containers: ``true``, RFC 3339 times, durations as Go writes them (``1h2m3.5s``), JSON for what
has an inside. Sources: flyteidl2/core/literals.proto; Go's ``time`` and ``strconv`` packages for the notations.
"""

from __future__ import annotations

import base64
import json
import math
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgpack
from flyteidl2.core import literals_pb2, types_pb2
from google.protobuf import json_format, struct_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from flyte_unified.core.errors import InvalidArgument

NULL = "null"

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(h|ms|us|µs|ns|m|s)")
_DURATION = re.compile(rf"-?({_PART.pattern})+|0")
_CLOCK = re.compile(r"(?:(-?\d+) days?, )?(\d+):(\d\d):(\d\d(?:\.\d+)?)")
_BOOLEANS = dict.fromkeys(("1", "t", "true"), True) | dict.fromkeys(("0", "f", "false"), False)


def plain(literal: literals_pb2.Literal) -> Any:
    """A literal's value in JSON's types; a file or table is its address."""
    match literal.WhichOneof("value"):
        case "scalar":
            return _scalar(literal.scalar)
        case "collection":
            return [plain(item) for item in literal.collection.literals]
        case "map":
            return {key: plain(item) for key, item in literal.map.literals.items()}
    return None


def text(literal: literals_pb2.Literal) -> str:
    """A literal as it stands in an argument or in a file of its own."""
    value = plain(literal)
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return _decimal(value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def parse(content: str, kind: types_pb2.LiteralType, *, field: str) -> literals_pb2.Literal:
    """The literal of type ``kind`` that ``content`` says. Raises InvalidArgument naming ``field``."""
    if kind.WhichOneof("type") == "enum_type":
        if content.strip() not in kind.enum_type.values:
            raise InvalidArgument(f"{field}: {content.strip()[:100]!r} is none of {', '.join(kind.enum_type.values)}")
        return _primitive(string_value=content.strip())
    if kind.WhichOneof("type") != "simple":
        raise InvalidArgument(f"{field}: a value of type {kind.WhichOneof('type')} can't be read from a file")
    try:
        return _simple(content, kind.simple)
    except (ValueError, ArithmeticError, json_format.ParseError) as error:
        name = types_pb2.SimpleType.Name(kind.simple).lower()
        raise InvalidArgument(f"{field}: {content.strip()[:100]!r} is no {name}: {error}") from error


def _scalar(scalar: literals_pb2.Scalar) -> Any:
    match scalar.WhichOneof("value"):
        case "primitive":
            return _primitive_value(scalar.primitive)
        case "blob" | "schema" | "structured_dataset" as kind:
            return getattr(scalar, kind).uri
        case "generic":
            return json_format.MessageToDict(scalar.generic)
        case "binary":
            return _binary(scalar.binary)
        case "union":
            return plain(scalar.union.value)
        case "error":
            return scalar.error.message
    return None


def _primitive_value(primitive: literals_pb2.Primitive) -> Any:
    match primitive.WhichOneof("value"):
        case "datetime":
            return _moment(primitive.datetime)
        case "duration":
            return _duration(primitive.duration)
        case str() as kind:
            return getattr(primitive, kind)
    return None


def _binary(binary: literals_pb2.Binary) -> Any:
    if binary.tag == "msgpack":
        try:
            unpacked = msgpack.unpackb(binary.value, strict_map_key=False)
            return json.loads(json.dumps(unpacked, default=_encoded))
        except (ValueError, TypeError, msgpack.UnpackException):
            return _encoded(binary.value)
    return _encoded(binary.value)


def _encoded(value: Any) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def _decimal(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return format(Decimal(repr(value)).normalize(), "f")


def _moment(stamp: Timestamp) -> str:
    told: str = stamp.ToJsonString()
    return f"{told[:-1].rstrip('0')}Z" if "." in told else told


def _duration(duration: Duration) -> str:
    nanos = duration.seconds * 10**9 + duration.nanos
    if not nanos:
        return "0s"
    seconds, rest = divmod(abs(nanos), 10**9)
    hours, seconds = divmod(seconds, 3600)
    minutes, seconds = divmod(seconds, 60)
    last = f"{seconds}.{rest:09d}".rstrip("0").rstrip(".") + "s"
    parts = [f"{hours}h", f"{minutes}m", last] if hours else [f"{minutes}m", last] if minutes else [last]
    return ("-" if nanos < 0 else "") + "".join(parts)


def _primitive(**value: Any) -> literals_pb2.Literal:
    return literals_pb2.Literal(scalar=literals_pb2.Scalar(primitive=literals_pb2.Primitive(**value)))


def _simple(content: str, kind: int) -> literals_pb2.Literal:
    """Text is kept as it is, blanks and all; around any other value they say nothing."""
    value = content.strip()
    match kind:
        case types_pb2.STRING:
            return _primitive(string_value=content)
        case types_pb2.INTEGER:
            return _primitive(integer=int(value))
        case types_pb2.FLOAT:
            return _primitive(float_value=float(value))
        case types_pb2.BOOLEAN:
            if (known := _BOOLEANS.get(value.lower())) is None:
                raise ValueError("true or false is expected")
            return _primitive(boolean=known)
        case types_pb2.DATETIME:
            return _primitive(datetime=_timestamp(value))
        case types_pb2.DURATION:
            return _primitive(duration=_seconds(value))
        case types_pb2.STRUCT:
            return literals_pb2.Literal(scalar=literals_pb2.Scalar(generic=json_format.Parse(value, struct_pb2.Struct())))
        case types_pb2.NONE:
            return literals_pb2.Literal(scalar=literals_pb2.Scalar(none_type=literals_pb2.Void()))
    raise ValueError("no file can hold it")


def _timestamp(value: str) -> Timestamp:
    read = datetime.fromisoformat(value)
    stamp = Timestamp()
    stamp.FromDatetime(read if read.tzinfo else read.replace(tzinfo=UTC))
    return stamp


def _seconds(value: str) -> Duration:
    """As Go writes it, or as Python does (``1 day, 2:03:04``)."""
    if (clock := _CLOCK.fullmatch(value)) is not None:
        days, hours, minutes, seconds = (float(part or 0) for part in clock.groups())
        total = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    elif _DURATION.fullmatch(value):
        amount = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(value))
        total = timedelta(seconds=-amount if value.startswith("-") else amount)
    else:
        raise ValueError("write 1h30m, 90s or 1:30:00")
    duration = Duration()
    duration.FromTimedelta(total)
    return duration
