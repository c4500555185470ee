"""What a list request asks to see, as checked and typed values (flyteidl2/common/list.proto).

On the wire every value is text. Here each field knows how its text is read, so a wrong value is the caller's error, told
with the field's name, and never the database's.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from flyteidl2.common import list_pb2

from flyte_unified.core.errors import InvalidArgument

Value = str | int

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_INTEGER = 2**31 - 1
_MAX_LONG = 2**63 - 1
_MAX_VALUES = 500
_MAX_FILTERS = 50
_MAX_TEXT = 1000
"""Characters of a value; databases search for a bounded text only."""


class Function(enum.IntEnum):
    """Numbers as in flyteidl2.common.Filter.Function."""

    EQUAL = 0
    NOT_EQUAL = 1
    GREATER_THAN = 2
    GREATER_THAN_OR_EQUAL = 3
    LESS_THAN = 4
    LESS_THAN_OR_EQUAL = 5
    CONTAINS = 6
    VALUE_IN = 7
    VALUE_NOT_IN = 9
    ENDS_WITH = 12
    NOT_ENDS_WITH = 13
    CONTAINS_CASE_INSENSITIVE = 14
    EXISTS = 15
    NOT_EXISTS = 16


_NO_VALUE = frozenset({Function.EXISTS, Function.NOT_EXISTS})
_MANY_VALUES = frozenset({Function.VALUE_IN, Function.VALUE_NOT_IN})
_ON_TEXT = frozenset({Function.CONTAINS, Function.CONTAINS_CASE_INSENSITIVE, Function.ENDS_WITH, Function.NOT_ENDS_WITH})


@dataclass(frozen=True, slots=True)
class Kind:
    """What a field holds: ``read`` makes a value of text, or raises ValueError; ``wanted`` tells what it reads."""

    wanted: str
    read: Callable[[str], Value]

    @property
    def textual(self) -> bool:
        return self is TEXT


def _integer(text: str, *, limit: int = _MAX_INTEGER) -> int:
    value = int(text)
    if abs(value) > limit:
        raise ValueError(text)
    return value


def _time(text: str) -> int:
    at = datetime.fromisoformat(text)
    return (at.replace(tzinfo=at.tzinfo or UTC) - _EPOCH) // timedelta(microseconds=1)


TEXT = Kind("text", str)
INTEGER = Kind("a whole number", _integer)
"""Of 32 bits."""
LONG = Kind("a whole number", partial(_integer, limit=_MAX_LONG))
"""Of 64 bits."""
TIME = Kind("a time as in RFC 3339", _time)
"""Microseconds since the epoch; a time without a zone is UTC."""


def enumeration(kind: type[enum.IntEnum]) -> Kind:
    """A value of ``kind``, by its number or its name (with or without the IDL's prefix)."""

    def read(text: str) -> int:
        if text.lstrip("-").isdecimal():
            return kind(int(text)).value
        found = [member for member in kind if text.upper() == member.name or text.upper().endswith(f"_{member.name}")]
        if not found:
            raise ValueError(text)
        return max(found, key=lambda member: len(member.name)).value

    return Kind(f"one of {', '.join(f'{member.value} ({member.name})' for member in kind)}", read)


@dataclass(frozen=True, slots=True)
class Condition:
    """``function`` of a field's content and ``values``; conditions of a list hold all together."""

    field: str
    function: Function
    values: tuple[Value, ...]


def conditions(
    filters: Iterable[list_pb2.Filter], kind: Callable[[str], Kind | None], *, field: str = "request.filters"
) -> tuple[Condition, ...]:
    """The checked filters. ``kind`` knows the fields; ``field`` is what errors call the list. Raises InvalidArgument."""
    found = tuple(_condition(each, kind, field=f"{field}[{index}]") for index, each in enumerate(filters))
    if len(found) > _MAX_FILTERS:
        raise InvalidArgument(f"{field} has {len(found)} filters; at most {_MAX_FILTERS} are allowed")
    return found


def _condition(message: list_pb2.Filter, kind: Callable[[str], Kind | None], *, field: str) -> Condition:
    name = message.field.strip()
    known = kind(name)
    if known is None:
        raise InvalidArgument(f"{field}.field: {name[:128]!r} can't be filtered by")
    try:
        function = Function(message.function)
    except ValueError:
        raise InvalidArgument(f"{field}.function: there is no function {message.function}") from None
    if function in _ON_TEXT and not known.textual:
        raise InvalidArgument(f"{field}.function: {function.name} is for text; {name} is {known.wanted}")
    values = _values(list(message.values), function, known, field=f"{field}.values")
    return Condition(name, function, tuple(_read(text, known, field=f"{field}.values ({name})") for text in values))


def _values(texts: list[str], function: Function, kind: Kind, *, field: str) -> Sequence[str]:
    if function in _NO_VALUE:
        return ()
    if not texts:
        raise InvalidArgument(f"{field}: {function.name} needs a value")
    if len(texts) > _MAX_VALUES:
        raise InvalidArgument(f"{field} has {len(texts)} values; at most {_MAX_VALUES} are allowed")
    if function in _MANY_VALUES or len(texts) == 1:
        return texts
    if not kind.textual and all(len(text) == 1 for text in texts):
        # The SDK (2.12) assigns the text of one number to this repeated field, which makes a value of every digit.
        return ["".join(texts)]
    raise InvalidArgument(f"{field}: {function.name} takes one value, not {len(texts)}; VALUE_IN takes many")


def _read(text: str, kind: Kind, *, field: str) -> Value:
    if len(text) > _MAX_TEXT:
        raise InvalidArgument(f"{field} has {len(text)} characters; at most {_MAX_TEXT} are allowed")
    try:
        if "\0" in text:
            raise ValueError(text)
        return kind.read(text)
    except ValueError:
        raise InvalidArgument(f"{field}: {text[:128]!r} is not {kind.wanted}") from None
