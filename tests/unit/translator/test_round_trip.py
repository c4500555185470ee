"""What goes into a form comes out of it."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from flyteidl2.core.artifact_id_pb2 import ArtifactVersionId
from flyteidl2.core.literals_pb2 import Binary, Literal, LiteralCollection, Scalar, Union, Void
from flyteidl2.core.types_pb2 import LiteralType, SimpleType
from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.dataproxy.translator.forms import form_of_literals, literals_of_form, literals_of_values
from tests.unit.translator import samples
from tests.unit.translator.samples import INT, STRING, integer, list_of, named, packed, packed_type, string, union_of, variables


def same(one: Message, other: Message) -> bool:
    """Equal, where NaN is NaN and minus zero is not zero."""
    return one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)


def over_json(form: Struct) -> Struct:
    """``form`` as a browser sends it back."""
    return json_format.Parse(json_format.MessageToJson(form), Struct())


def returned(literal: Literal, type_: LiteralType) -> Literal:
    form = over_json(form_of_literals(named(x=literal), variables(x=type_)))
    (back,) = literals_of_form(form)
    assert back.name == "x"
    return back.value


def edited(literal: Literal, type_: LiteralType, default: Any) -> Literal:
    """The literal of the form in which somebody typed ``default``."""
    form = form_of_literals(named(x=literal), variables(x=type_))
    form["properties"]["x"]["default"] = default
    return literals_of_form(form)[0].value


@given(data=st.data(), type_=samples.types)
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_a_form_gives_back_the_literal_it_was_made_of(data: st.DataObject, type_: LiteralType) -> None:
    """Whatever its type: variant, precision, encoding and tag survive a form, over JSON."""
    literal = data.draw(samples.literals(type_))
    back = returned(literal, type_)
    assert same(back, literal), f"{literal}\n  came back as\n{back}"


@given(data=st.data(), type_=samples.types)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_a_form_without_our_keyword_still_reads(data: st.DataObject, type_: LiteralType) -> None:
    """``x-flyte`` may be left out: the answer is a literal that makes the same value, or a refusal that says where."""
    form = form_of_literals(named(x=data.draw(samples.literals(type_))), variables(x=type_))
    field = form["properties"]["x"]
    if "x-flyte" in field:
        del field["x-flyte"]
    try:
        literals_of_form(form)
    except InvalidArgument as error:
        assert error.message.startswith("x")


_KEYWORDS = ["type", "format", "properties", "default", "required", "enum", "oneOf", "items", "additionalProperties"]
_KEYWORDS += ["x-flyte", "hints", "order", "origin", "variant", "packed", "structure", "uri", "dimensionality", "x"]
_garbage = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.sampled_from(["object", "string", "blob", "", "AA==", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(_KEYWORDS),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)


@given(properties=st.dictionaries(st.sampled_from(["x", "y"]), _garbage), rest=_garbage)
@settings(max_examples=300, deadline=None)
def test_nonsense_is_refused_politely(properties: Any, rest: Any) -> None:
    """No form, however wrong, is answered otherwise than with literals or InvalidArgument."""
    form = samples.struct({"properties": properties, "x-flyte": rest, "required": rest})
    try:
        literals_of_form(form)
    except InvalidArgument as error:
        assert error.message


@given(type_=samples.types, value=_garbage)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_value_of_any_type_is_read_or_refused(type_: LiteralType, value: Any) -> None:
    """No value is answered otherwise than with a literal or InvalidArgument, and the refusal names the field."""
    try:
        literals_of_values(samples.struct({"x": value}), variables(x=type_))
    except InvalidArgument as error:
        assert error.message.startswith("x")


def test_a_struct_packs_to_the_bytes_of_the_sdk() -> None:
    """A value typed into a form packs as the SDK would pack it: floats as floats, required fields in the class's order."""
    schema = {
        "type": "object",
        "title": "Deal",
        "required": ["size", "price", "tags"],
        "properties": {
            "price": {"type": "number"},
            "size": {"type": "integer"},
            "tags": {"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/Tag"}, {"type": "null"}]}},
        },
        "$defs": {"Tag": {"type": "object", "properties": {"weight": {"type": "number"}}, "required": ["weight"]}},
    }
    values = samples.struct({"x": {"tags": [{"weight": 2}, None], "price": 3, "size": "9007199254740993"}})
    (literal,) = literals_of_values(values, variables(x=packed_type(schema)))
    expected = {"size": 9007199254740993, "price": 3.0, "tags": [{"weight": 2.0}, None]}
    assert literal.value.scalar.binary.value == msgpack.packb(expected)
    assert literal.value.scalar.binary.tag == "msgpack"


@given(data=st.binary(max_size=12))
@example(data=msgpack.packb(msgpack.Timestamp(2**62, 1)))
@example(data=msgpack.packb([msgpack.Timestamp(5, 7), msgpack.ExtType(4, b"x"), -0.0]))
@example(data=b"\x81\x90\x01")
@settings(max_examples=200, deadline=None)
def test_any_bytes_that_are_said_to_be_msgpack_survive(data: bytes) -> None:
    """Extension types, keys that are lists, years beyond 9999, and plain nonsense."""
    literal = Literal(scalar=Scalar(binary=Binary(value=data, tag="msgpack")))
    for type_ in (packed_type(), samples.STRUCT, samples.BINARY):
        assert returned(literal, type_) == literal


def test_a_number_too_large_for_an_integer_is_packed_as_it_is() -> None:
    """The task refuses it; the form need not."""
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    (literal,) = literals_of_values(samples.struct({"x": {"n": 1e300}}), variables(x=packed_type(schema)))
    assert literal.value == packed({"n": 1e300})


def test_floats_stay_floats_without_a_schema() -> None:
    """JSON has one kind of number; msgpack's 3.0 comes back as 3.0 and its 3 as 3."""
    for literal in (packed({"a": 3.0, "b": [-0.0]}), packed({"a": 3})):
        assert returned(literal, packed_type()) == literal


def test_an_unpacked_struct_stays_generic() -> None:
    """Where the type does not say msgpack, a struct is protobuf's."""
    (literal,) = literals_of_values(samples.struct({"x": {"a": [1.5, None]}}), variables(x=samples.STRUCT))
    assert literal.value.scalar.generic == samples.struct({"a": [1.5, None]})


def test_an_edited_value_overrules_what_was_remembered_of_the_first() -> None:
    """Hints about the old value do not bind the new one."""
    number_or_text = union_of(samples.tagged(INT, "int"), samples.tagged(STRING, "str"))
    text = Literal(scalar=Scalar(union=Union(type=number_or_text.union_type.variants[1], value=string("12"))))
    assert edited(text, number_or_text, "13").scalar.union.value == string("13")
    big = Literal(scalar=Scalar(union=Union(type=number_or_text.union_type.variants[0], value=integer(2**60))))
    assert edited(big, number_or_text, "words").scalar.union.value == string("words")
    assert edited(packed({1: 2}), packed_type(), {"1": 3}) == packed({"1": 3})
    assert edited(Literal(scalar=Scalar(none_type=Void())), INT, 4) == integer(4)


def test_identity_belongs_to_the_value() -> None:
    """Hash, metadata and artifact come back with the value they were of, and not with another."""
    literal = integer(7)
    literal.hash = "digest of seven"
    literal.metadata["made"] = "by hand"
    literal.artifact_id.CopyFrom(ArtifactVersionId())
    assert returned(literal, INT) == literal
    assert edited(literal, INT, 8) == integer(8)


def test_a_pickle_is_not_wrapped() -> None:
    """The SDK declares a pickle as a union but reads it bare; so it comes back, and so it is made of base64."""
    pickle = union_of(
        samples.tagged(LiteralType(blob={"format": "PythonPickle"}), "FlytePickle"),
        samples.tagged(samples.BINARY, "FlytePickle"),
    )
    literal = Literal(scalar=Scalar(binary=Binary(value=b"\x80\x04K\x03.")))
    assert returned(literal, pickle) == literal
    (made,) = literals_of_values(samples.struct({"x": "gARLAy4="}), variables(x=pickle))
    assert made.value == literal


@pytest.mark.parametrize("kind", ["list", "msgpack"])
def test_depth_is_bounded_where_parsers_are(kind: str) -> None:
    """What nests deeper than protobuf parsers go is refused; what is answered can be parsed."""

    def deep(levels: int) -> tuple[Literal, LiteralType]:
        if kind == "msgpack":
            value: Any = 1
            for _ in range(levels):
                value = {"a": value}
            return packed(value), packed_type()
        literal, type_ = integer(1), INT
        for _ in range(levels):
            literal, type_ = Literal(collection=LiteralCollection(literals=[literal])), list_of(type_)
        return literal, type_

    literal, type_ = deep(28)
    assert returned(literal, type_) == literal
    literal, type_ = deep(29)
    with pytest.raises(InvalidArgument, match="nested deeper than 28"):
        returned(literal, type_)


def test_an_offloaded_value_stays_where_it_is() -> None:
    """The form shows where it is, read only, and gives it back untouched."""
    literal = Literal(offloaded_metadata={"uri": "s3://far/away", "size_bytes": 12, "inferred_type": INT})
    form = form_of_literals(named(x=literal), variables(x=list_of(INT)))
    field = form["properties"]["x"]
    assert field["readOnly"] is True
    assert dict(field["default"]) == {"uri": "s3://far/away", "size_bytes": 12}
    assert returned(literal, list_of(INT)) == literal


def test_bytes_that_are_no_msgpack_are_shown_as_base64() -> None:
    """A wrong tag is no reason to show nothing; nor are bytes without a tag taken for msgpack."""
    for binary in (Binary(value=b"\xc1\xc1", tag="msgpack"), Binary(value=b"\x80.", tag="")):
        literal = Literal(scalar=Scalar(binary=binary))
        form = form_of_literals(named(x=literal), variables(x=LiteralType(simple=SimpleType.BINARY)))
        assert form["properties"]["x"]["default"] in ("wcE=", "gC4=")
        assert returned(literal, samples.BINARY) == literal
