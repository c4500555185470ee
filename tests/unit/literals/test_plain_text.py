"""Literals as programs see them that know nothing of Flyte."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgpack
import pytest
from flyteidl2.core import literals_pb2, types_pb2
from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.literals import parse, plain, text

TYPE = types_pb2.LiteralType


def literal(**value: Any) -> literals_pb2.Literal:
    return json_format.ParseDict(value, literals_pb2.Literal())


def primitive(**value: Any) -> literals_pb2.Literal:
    return literals_pb2.Literal(scalar=literals_pb2.Scalar(primitive=literals_pb2.Primitive(**value)))


def moment(*when: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(datetime(*when, tzinfo=UTC))  # type: ignore[arg-type, misc]
    return stamp


def lasting(**parts: float) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(**parts))
    return duration


PACKED = literals_pb2.Literal(
    scalar=literals_pb2.Scalar(binary=literals_pb2.Binary(value=msgpack.packb({"a": [1, None]}), tag="msgpack"))
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (primitive(integer=-(1 << 62)), "-4611686018427387904"),
        (primitive(float_value=0.1), "0.1"),
        (primitive(float_value=1e21), "1000000000000000000000"),
        (primitive(float_value=2.0), "2"),
        (primitive(float_value=float("nan")), "NaN"),
        (primitive(float_value=float("-inf")), "-Inf"),
        (primitive(boolean=True), "true"),
        (primitive(string_value='a "quoted"\n'), 'a "quoted"\n'),
        (primitive(datetime=moment(2026, 1, 2, 3, 4, 5, 120000)), "2026-01-02T03:04:05.12Z"),
        (primitive(duration=lasting(hours=1, seconds=2.5)), "1h0m2.5s"),
        (primitive(duration=lasting(seconds=-90)), "-1m30s"),
        (primitive(duration=Duration()), "0s"),
        (literal(scalar={"noneType": {}}), "null"),
        (literal(scalar={"blob": {"uri": "s3://b/k"}}), "s3://b/k"),
        (literal(scalar={"generic": {"a": 1}}), '{"a":1.0}'),
        (literal(scalar={"union": {"value": {"scalar": {"primitive": {"integer": "3"}}}}}), "3"),
        (literal(collection={"literals": [{"scalar": {"primitive": {"stringValue": "ü"}}}]}), '["ü"]'),
        (literal(map={"literals": {"k": {"scalar": {"primitive": {"boolean": False}}}}}), '{"k":false}'),
        (literal(scalar={"error": {"message": "failed"}}), "failed"),
        (PACKED, '{"a":[1,null]}'),
        (literal(scalar={"binary": {"value": "AAE="}}), "AAE="),
        (literal(scalar={"binary": {"value": "wQ==", "tag": "msgpack"}}), "wQ=="),
        (literals_pb2.Literal(), "null"),
    ],
)
def test_as_text(value: literals_pb2.Literal, expected: str):
    """Flyte's forms; JSON for what has an inside."""
    assert text(value) == expected


@pytest.mark.parametrize(
    ("content", "kind", "expected"),
    [
        (" 7\n", types_pb2.INTEGER, primitive(integer=7)),
        ("1e3", types_pb2.FLOAT, primitive(float_value=1000)),
        (" kept \n", types_pb2.STRING, primitive(string_value=" kept \n")),
        ("True\n", types_pb2.BOOLEAN, primitive(boolean=True)),
        ("f", types_pb2.BOOLEAN, primitive(boolean=False)),
        ("2026-01-02T03:04:05.120Z", types_pb2.DATETIME, primitive(datetime=moment(2026, 1, 2, 3, 4, 5, 120000))),
        ("2026-01-02", types_pb2.DATETIME, primitive(datetime=moment(2026, 1, 2))),
        ("1h0m2.5s", types_pb2.DURATION, primitive(duration=lasting(hours=1, seconds=2.5))),
        ("-90s", types_pb2.DURATION, primitive(duration=lasting(seconds=-90))),
        ("250ms", types_pb2.DURATION, primitive(duration=lasting(milliseconds=250))),
        ("0", types_pb2.DURATION, primitive(duration=Duration())),
        ("1 day, 2:03:04.5", types_pb2.DURATION, primitive(duration=lasting(days=1, hours=2, minutes=3, seconds=4.5))),
        ('{"a": [1]}', types_pb2.STRUCT, literal(scalar={"generic": {"a": [1]}})),
        ("whatever", types_pb2.NONE, literal(scalar={"noneType": {}})),
    ],
)
def test_from_text(content: str, kind: int, expected: literals_pb2.Literal):
    """What programs write: with a newline, in Go's or in Python's notation."""
    assert parse(content, TYPE(simple=kind), field="output y") == expected


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ("seven", TYPE(simple=types_pb2.INTEGER)),
        ("99999999999999999999", TYPE(simple=types_pb2.INTEGER)),
        ("maybe", TYPE(simple=types_pb2.BOOLEAN)),
        ("yesterday", TYPE(simple=types_pb2.DATETIME)),
        ("9" * 400 + "h", TYPE(simple=types_pb2.DURATION)),
        ("soon", TYPE(simple=types_pb2.DURATION)),
        ("[1]", TYPE(simple=types_pb2.STRUCT)),
        ("x", TYPE(simple=types_pb2.BINARY)),
        ("blue", TYPE(enum_type=types_pb2.EnumType(values=["red", "green"]))),
        ("x", TYPE(blob=types_pb2.BlobType())),
    ],
)
def test_text_that_is_none_of_its_type(content: str, kind: types_pb2.LiteralType):
    """The output is named."""
    with pytest.raises(InvalidArgument, match=r"^output y: "):
        parse(content, kind, field="output y")


def test_an_enum_is_one_of_its_values():
    """Blanks around it say nothing."""
    kind = TYPE(enum_type=types_pb2.EnumType(values=["red", "green"]))
    assert plain(parse("green\n", kind, field="y")) == "green"


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_whole_numbers_come_back(number: int):
    """All of them."""
    assert parse(text(primitive(integer=number)), TYPE(simple=types_pb2.INTEGER), field="y") == primitive(integer=number)


@given(st.floats(allow_nan=False))
def test_other_numbers_come_back(number: float):
    """To the last bit, without an exponent on the way."""
    told = text(primitive(float_value=number))
    assert "e" not in told
    assert parse(told, TYPE(simple=types_pb2.FLOAT), field="y") == primitive(float_value=number)


@given(st.timedeltas(timedelta(days=-9999), timedelta(days=9999)))
def test_durations_come_back(span: timedelta):
    """To the microsecond."""
    duration = Duration()
    duration.FromTimedelta(span)
    found = parse(text(primitive(duration=duration)), TYPE(simple=types_pb2.DURATION), field="y")
    assert found.scalar.primitive.duration.ToTimedelta() == span


@given(st.text())
def test_text_comes_back(value: str):
    """As it is."""
    assert parse(text(primitive(string_value=value)), TYPE(simple=types_pb2.STRING), field="y") == primitive(string_value=value)
