"""The shape of a form: what a browser draws, and what it may leave out or fill in."""

from __future__ import annotations

from typing import Any

import pytest
from flyteidl2.core.interface_pb2 import Parameter, Variable
from flyteidl2.core.literals_pb2 import Literal, Scalar, Union, Void
from flyteidl2.core.types_pb2 import BlobType, EnumType, LiteralType, SchemaType, SimpleType, StructuredDatasetType
from flyteidl2.task.common_pb2 import NamedParameter
from flyteidl2.task.task_definition_pb2 import TaskSpec

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.dataproxy.translator.forms import form_of_literals, form_of_task, literals_of_form, literals_of_values
from flyte_unified.dataproxy.translator.texts import plain_struct
from tests.unit.translator import samples
from tests.unit.translator.samples import (
    INT,
    NONE,
    STRING,
    integer,
    list_of,
    named,
    string,
    struct,
    tagged,
    union_of,
    variables,
)

OPTIONAL = union_of(tagged(INT, "int"), tagged(NONE, "none"))
BLOB = LiteralType(blob=BlobType(format="csv", dimensionality=BlobType.BlobDimensionality.MULTIPART))
NOTHING = Literal(scalar=Scalar(none_type=Void()))


def task(*defaults: NamedParameter, **types: LiteralType) -> TaskSpec:
    spec = TaskSpec(short_name="groom", default_inputs=defaults)
    spec.task_template.interface.inputs.CopyFrom(variables(**types))
    return spec


def task_form(*defaults: NamedParameter, **types: LiteralType) -> dict[str, Any]:
    return plain_struct(form_of_task(task(*defaults, **types)))


def field_schema(type_: LiteralType) -> dict[str, Any]:
    schema = task_form(x=type_)["properties"]["x"]
    assert schema.pop("title") == "x"
    schema.pop("x-flyte", None)
    return dict(schema)


_BLOB_PROPERTIES = {
    "uri": {"type": "string"},
    "format": {"type": "string", "default": "csv"},
    "dimensionality": {"type": "string", "enum": ["SINGLE", "MULTIPART"], "default": "MULTIPART"},
}


@pytest.mark.parametrize(
    ("type_", "schema"),
    [
        (INT, {"type": "integer"}),
        (samples.FLOAT, {"type": "number", "format": "float"}),
        (STRING, {"type": "string"}),
        (samples.BOOL, {"type": "boolean"}),
        (samples.DATETIME, {"type": "string", "format": "datetime"}),
        (samples.DURATION, {"type": "string", "format": "duration"}),
        (samples.BINARY, {"type": "string", "format": "binary"}),
        (samples.ERROR, {"type": "string", "format": "error"}),
        (NONE, {"type": "null"}),
        (LiteralType(), {"type": "null"}),
        (samples.STRUCT, {"type": "object", "additionalProperties": True}),
        (LiteralType(enum_type=EnumType(values=["A", "B"])), {"type": "string", "enum": ["A", "B"]}),
        (list_of(INT), {"type": "array", "items": {"type": "integer"}}),
        (LiteralType(map_value_type=STRING), {"type": "object", "additionalProperties": {"type": "string"}}),
        (BLOB, {"type": "object", "format": "blob", "properties": _BLOB_PROPERTIES}),
        (
            LiteralType(structured_dataset_type=StructuredDatasetType()),
            {
                "type": "object",
                "format": "structured-dataset",
                "properties": {"uri": {"type": "string"}, "format": {"type": "string"}},
            },
        ),
        (
            OPTIONAL,
            {
                "format": "union",
                "oneOf": [
                    {"type": "integer", "title": "integer", "structure": "int"},
                    {"type": "null", "title": "none", "structure": "none"},
                ],
            },
        ),
    ],
)
def test_each_type_has_its_schema(type_: LiteralType, schema: dict[str, Any]) -> None:
    """The keywords are those that form libraries, and Flyte's consoles, know."""
    assert field_schema(type_) == schema


def test_a_class_keeps_its_own_schema_and_its_references_resolve() -> None:
    """References into the class's schema point to where it now stands in the form, also inside a list."""
    schema = {
        "title": "Herd",
        "type": "object",
        "properties": {"first": {"$ref": "#/$defs/Horse"}},
        "$defs": {"Horse": {"type": "object"}},
        "additionalProperties": False,
    }
    herd = field_schema(samples.packed_type(schema))
    assert herd["dataclass"] == "Herd"
    assert herd["properties"]["first"]["$ref"] == "#/properties/x/$defs/Horse"
    assert "additionalProperties" not in herd
    items = field_schema(list_of(samples.packed_type(schema)))["items"]
    assert items["properties"]["first"]["$ref"] == "#/properties/x/items/$defs/Horse"


def test_a_task_is_a_form_with_its_defaults() -> None:
    """Default inputs are filled in and not required; order, title and descriptions are the task's."""
    form = task_form(
        NamedParameter(name="laps", parameter=Parameter(var=Variable(type=INT), default=integer(3))),
        NamedParameter(name="extra", parameter=Parameter(var=Variable(type=STRING, description="only here"), required=False)),
        NamedParameter(name="name", parameter=Parameter(required=True)),
        name=STRING,
        laps=INT,
        maybe=OPTIONAL,
        none=NONE,
    )
    assert form["title"] == "groom"
    assert form["type"] == "object"
    assert form["required"] == ["name"]
    assert form["x-flyte"]["order"] == ["name", "laps", "maybe", "none", "extra"]
    assert form["properties"]["laps"] == {"type": "integer", "title": "laps", "default": 3}
    assert form["properties"]["extra"] == {"type": "string", "title": "extra", "description": "only here"}
    assert "default" not in form["properties"]["name"]


def test_a_description_that_only_repeats_the_name_is_left_out() -> None:
    """As SDKs write one when the user gave none."""
    spec = task(x=INT)
    spec.task_template.interface.inputs.variables[0].value.description = "x"
    assert "description" not in plain_struct(form_of_task(spec))["properties"]["x"]


def test_an_untouched_form_gives_defaults_and_nothing_else() -> None:
    """Fields without a value are left out, optional ones are none, in the order of the interface."""
    default = NamedParameter(name="laps", parameter=Parameter(default=integer(3)))
    literals = literals_of_form(form_of_task(task(default, zeta=OPTIONAL, name=STRING, laps=INT, photo=BLOB)))
    assert [literal.name for literal in literals] == ["zeta", "laps"]
    assert literals[0].value.scalar.union.value == NOTHING
    assert literals[0].value.scalar.union.type == OPTIONAL.union_type.variants[1]
    assert literals[1].value == integer(3)


def test_a_blob_has_its_defaults_at_its_properties() -> None:
    """Its editor is a small form of its own; filling in the uri alone is enough."""
    form = form_of_task(task(x=BLOB))
    form["properties"]["x"]["properties"]["uri"]["default"] = "s3://a/b"
    blob = literals_of_form(form)[0].value.scalar.blob
    assert (blob.uri, blob.metadata.type) == ("s3://a/b", BLOB.blob)


def test_a_class_filled_in_field_by_field_is_read() -> None:
    """Defaults at the properties make the value, once all that are required are there."""
    inner = {"type": "object", "properties": {"b": {"type": "integer", "default": 2}}}
    schema = {"type": "object", "properties": {"a": {"type": "string"}, "in": inner}, "required": ["a"]}
    form = struct({"properties": {"x": schema}})
    assert literals_of_form(form) == []
    form["properties"]["x"]["properties"]["a"]["default"] = "yes"
    assert literals_of_form(form)[0].value.scalar.generic == struct({"a": "yes", "in": {"b": 2}})


def test_a_form_of_literals_is_required_unless_none_is_allowed() -> None:
    """Values of another version's inputs are left out; what the literals lack is not asked for."""
    none = Literal(scalar=Scalar(union=Union(type=OPTIONAL.union_type.variants[1], value=NOTHING)))
    form = plain_struct(
        form_of_literals(named(a=integer(1), gone=integer(2), o=none, v=NOTHING), variables(a=INT, o=OPTIONAL, v=INT, more=INT))
    )
    assert list(form["x-flyte"]["order"]) == ["a", "o", "v"]
    assert form["required"] == ["a"]
    assert form["properties"]["o"]["default"] == {"type": "null"}


def test_numbers_that_a_browser_cannot_hold_are_strings() -> None:
    """Beyond 2**53 an integer is written as protobuf's JSON writes it."""
    form = plain_struct(form_of_literals(named(a=integer(2**53 - 1), b=integer(2**53)), variables(a=INT, b=INT)))
    assert form["properties"]["a"]["default"] == 9007199254740991
    assert form["properties"]["b"]["default"] == "9007199254740992"


def test_forms_by_other_hands_are_read() -> None:
    """JSON schemas that were not made here: several types, anyOf, items left out, unions' values of any variant."""
    schemas = {
        "a": {"type": ["integer", "null"], "default": 4},
        "b": {"anyOf": [{"type": "number"}, {"type": "null"}], "default": None},
        "c": {"type": "array", "default": ["x"]},
        "d": {"enum": ["u", "v"], "default": "v"},
        "e": {"type": "string", "format": "date-time", "default": "2024-05-06T07:08:09Z"},
        "f": {"oneOf": [{"type": "integer"}, {"type": "string"}], "default": "7"},
    }
    literals = {literal.name: literal.value for literal in literals_of_form(struct({"properties": schemas}))}
    assert literals["a"].scalar.union.value == integer(4)
    assert literals["b"].scalar.union.value == NOTHING
    assert literals["c"].collection.literals[0] == string("x")
    assert literals["d"] == string("v")
    assert literals["e"].scalar.primitive.datetime.seconds == 1714979289
    assert literals["f"].scalar.union.value == string("7")


def test_values_follow_the_interface() -> None:
    """Its order, its optionals; values that it does not know are no error."""
    literals = literals_of_values(struct({"b": 2, "a": 1, "other": 3}), variables(a=INT, b=INT, c=OPTIONAL))
    assert [literal.name for literal in literals] == ["a", "b", "c"]
    assert literals[2].value.scalar.union.value == NOTHING


_CLASS = samples.packed_type({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})


@pytest.mark.parametrize(
    ("type_", "value", "message"),
    [
        (INT, "four", "x: expected integer, got 'four'"),
        (INT, 1.5, "x: expected integer, got 1.5"),
        (INT, 2.0**63, "x: expected integer, got 9.223372036854776e+18 (beyond 64 bits)"),
        (INT, "--5", "x: expected integer, got '--5'"),
        (INT, True, "x: expected integer, got True"),
        (INT, None, "x: expected integer, got null"),
        (samples.FLOAT, "much", "x: expected float, got 'much'"),
        (STRING, 4, "x: expected string, got 4"),
        (samples.BOOL, "true", "x: expected boolean, got 'true'"),
        (samples.DATETIME, "yesterday", "x: expected datetime, got 'yesterday'"),
        (samples.DURATION, "a while", "x: expected duration, got 'a while'"),
        (samples.DURATION, 1e12, "x: expected duration"),
        (samples.BINARY, "***", "x: expected binary"),
        (samples.STRUCT, [1], "x: expected object, got a list"),
        (LiteralType(enum_type=EnumType(values=["A", "B"])), "C", "x: expected enum (A, B), got 'C'"),
        (list_of(list_of(INT)), [[1], [2, "x"]], "x/1/1: expected integer, got 'x'"),
        (list_of(INT), {}, "x: expected list of integer, got an object"),
        (LiteralType(map_value_type=INT), {"a/b": "x"}, "x/a~1b: expected integer"),
        (OPTIONAL, "x", "x: expected integer, got 'x'"),
        (union_of(INT, list_of(INT)), "x", "x: expected integer or list of integer, got 'x'"),
        (union_of(_CLASS, NONE), 4, "x: expected object, got 4"),
        (BLOB, {"format": "csv"}, "x/uri: expected string, got null"),
        (BLOB, {"uri": "u", "dimensionality": "MANY"}, "x/dimensionality: expected SINGLE or MULTIPART"),
        (
            LiteralType(schema=SchemaType()),
            {"uri": "u", "columns": [{"name": "a", "type": "WORD"}]},
            "x/columns/0: expected a column",
        ),
        (LiteralType(), 1, "x: expected unknown"),
        (LiteralType(simple=SimpleType.NONE), 1, "x: expected none, got 1"),
    ],
)
def test_a_refusal_names_the_field_and_what_was_expected(type_: LiteralType, value: Any, message: str) -> None:
    """By path into the value, in words of the type."""
    with pytest.raises(InvalidArgument) as refused:
        literals_of_values(struct({"x": value}), variables(x=type_))
    assert refused.value.message.startswith(message)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({}, "json: expected a JSON schema with properties"),
        ({"properties": {"x": 1}}, "x: expected a JSON schema object"),
        ({"properties": {"x": {"type": "array", "items": {"type": "thing"}}}}, "x/items: the JSON schema has no type"),
        ({"properties": {"x": {"type": "integer", "x-flyte": {"type": "?"}}}}, "x/x-flyte/type: expected a LiteralType"),
        ({"properties": {"x": {"type": "integer", "default": 1, "x-flyte": {"hints": 4}}}}, "x/x-flyte/hints: expected"),
    ],
)
def test_a_broken_form_is_refused_where_it_is_broken(form: dict[str, Any], message: str) -> None:
    """The message names the property."""
    with pytest.raises(InvalidArgument) as refused:
        literals_of_form(struct(form))
    assert refused.value.message.startswith(message)


def test_a_missing_value_is_refused_by_name() -> None:
    """What is required and not given is named."""
    with pytest.raises(InvalidArgument, match="no value for 'x'"):
        literals_of_values(struct({}), variables(x=INT))


def test_a_literal_without_a_value_is_refused() -> None:
    """An empty message is no value of any type."""
    with pytest.raises(InvalidArgument, match="x/0: the literal has no value, expected integer"):
        form_of_literals(named(x=Literal(collection={"literals": [Literal()]})), variables(x=list_of(INT)))
