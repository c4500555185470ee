"""JSON's few types against protobuf's many: numbers, times, durations, ``Struct``, and paths for messages.

JSON numbers are doubles in a ``Struct`` and in a browser. What a double cannot hold is a string, as in protobuf's own JSON.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from flyte_unified.core.errors import InvalidArgument

M = TypeVar("M", bound=Message)

Json = Any
"""None, bool, int, float, str, list[Json] or dict[str, Json]."""

NULL: dict[str, Json] = {"type": "null"}
"""How a form writes a none literal: not JSON's null, which form libraries drop."""

_SAFE = 2**53 - 1
_DEPTH = 28  # an object costs three messages of the hundred that protobuf parsers nest
_NANOS = 10**9
_MAX_DURATION = 315_576_000_000 * _NANOS
_UNITS = {"h": 3600 * _NANOS, "m": 60 * _NANOS, "s": _NANOS, "ms": 10**6, "us": 1000, "µs": 1000, "μs": 1000, "ns": 1}
_TERM = re.compile(r"(\d+\.?\d*|\.\d+)(ms|us|µs|μs|ns|h|m|s)")
_TERMS = re.compile(rf"([+-]?)((?:{_TERM.pattern})+)")
_ISO = re.compile(r"([+-]?)P(?=.)(?:(\d+)W)?(?:(\d+)D)?(?:T(?=.)(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?", re.ASCII)
_WHOLE = re.compile(r"-?\d{1,20}", re.ASCII)
_SECONDS = re.compile(r"\d+", re.ASCII)


def step(path: str, key: str | int) -> str:
    """``path`` one level further down, escaped as in a JSON pointer; refuses what no client could parse."""
    if path.count("/") >= _DEPTH:
        raise InvalidArgument(f"{path}: nested deeper than {_DEPTH} levels")
    return f"{path}/{str(key).replace('~', '~0').replace('/', '~1').replace('|', '~2')}"


def is_null(value: Json) -> bool:
    return value is None or value == NULL


def shown(value: Json) -> str:
    """A value as messages name it, short."""
    if value is None:
        return "null"
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def number(value: float) -> Json:
    """A number as JSON and a ``Struct`` have it: integral is int, and what JSON or a double cannot hold is a string."""
    if isinstance(value, int):
        return value if abs(value) <= _SAFE else str(value)
    if math.isfinite(value):
        integral = value.is_integer() and abs(value) <= _SAFE and (value != 0 or math.copysign(1, value) > 0)
        return int(value) if integral else value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def whole(text: str) -> int | None:
    """The integer of up to 64 bits that ``text`` is, if it is one."""
    value = int(text) if _WHOLE.fullmatch(text) else None
    return value if value is not None and -(2**63) <= value < 2**64 else None


def plain(value: Value) -> Json:
    """A ``Value`` as JSON."""
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        return number(value.number_value)
    if kind == "struct_value":
        return plain_struct(value.struct_value)
    if kind == "list_value":
        return [plain(item) for item in value.list_value.values]
    return None if kind in (None, "null_value") else getattr(value, kind)


def plain_struct(struct: Struct) -> dict[str, Json]:
    return {key: plain(value) for key, value in struct.fields.items()}


def struct_field(struct: Struct, key: str) -> Value:
    """One field, or an empty value: to index a message map would write into it."""
    return struct.fields.get(key, Value())


def struct_of(values: Mapping[str, Json]) -> Struct:
    struct = Struct()
    struct.update(values)
    return struct


def encoded(message: Message) -> str:
    """A message as base64, the same for equal messages."""
    return base64.b64encode(message.SerializeToString(deterministic=True)).decode()


def decoded(kind: type[M], text: Json, path: str) -> M:
    try:
        return kind.FromString(base64.b64decode(text, validate=True))
    except (ValueError, TypeError, DecodeError) as error:
        raise InvalidArgument(f"{path}: expected a {kind.__name__} in base64: {error}") from error


def timestamp_text(stamp: Timestamp, path: str) -> str:
    try:
        return stamp.ToJsonString()
    except ValueError as error:
        raise InvalidArgument(f"{path}: the datetime is out of range: {error}") from error


def timestamp_of(text: str, *, strict: bool) -> Timestamp:
    """RFC 3339 to the nanosecond, or else any ISO 8601 form that Python knows, in UTC unless it says. Raises ValueError."""
    stamp = Timestamp()
    try:
        stamp.FromJsonString(text)
    except ValueError:
        if strict:
            raise
        moment = datetime.fromisoformat(text)
        stamp.FromDatetime(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    return stamp


def duration_text(duration: Duration) -> str:
    """As Go writes durations, exact to the nanosecond: ``1h30m0s``, ``1.5ms``."""
    total = duration.seconds * _NANOS + duration.nanos
    sign, rest = ("-" if total < 0 else ""), abs(total)
    if rest < _NANOS:
        unit = next((unit for unit in ("ms", "µs", "ns") if rest >= _UNITS[unit]), "s")
        return f"{sign}{_decimal(rest, _UNITS[unit])}{unit}"
    minutes, nanos = divmod(rest, 60 * _NANOS)
    hours, minutes = divmod(minutes, 60)
    lead = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{sign}{lead}{_decimal(nanos, _NANOS)}s"


def _decimal(amount: int, unit: int) -> str:
    whole, rest = divmod(amount, unit)
    return f"{whole}.{str(unit + rest)[1:].rstrip('0')}" if rest else str(whole)


def duration_of(value: str | float) -> Duration:
    """Go's notation (``1h30m``), ISO 8601 (``P1DT2H``), or seconds as a number or digits. Raises ValueError."""
    total = round(Fraction(value) * _NANOS) if not isinstance(value, str) else _duration_nanos(value)
    if abs(total) > _MAX_DURATION:
        raise ValueError("more than 10000 years")
    sign = -1 if total < 0 else 1
    seconds, nanos = divmod(abs(total), _NANOS)
    return Duration(seconds=sign * seconds, nanos=sign * nanos)


def _duration_nanos(text: str) -> int:
    if len(text) > 100:
        raise ValueError("too long")
    if _SECONDS.fullmatch(text):
        return int(text) * _NANOS
    if terms := _TERMS.fullmatch(text):
        sign = terms[1]
        nanos = [Fraction(amount.rstrip(".")) * _UNITS[unit] for amount, unit in _TERM.findall(terms[2])]
    elif iso := _ISO.fullmatch(text):
        sign, *amounts = iso.groups(default="0")
        weights = (7 * 86400, 86400, 3600, 60, 1)
        nanos = [Fraction(amount) * weight * _NANOS for amount, weight in zip(amounts, weights, strict=True)]
    else:
        raise ValueError("neither 1h30m nor ISO 8601 nor seconds")
    total = round(sum(nanos))
    return -total if sign == "-" else total
