"""Inputs: completed, checked, and hashed as the SDK hashes them."""

from __future__ import annotations

import msgpack
import pytest
from flyte._internal.runtime import convert
from flyteidl2.core import interface_pb2, literals_pb2, tasks_pb2, types_pb2
from flyteidl2.task import common_pb2, task_definition_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.dataproxy.inputs import cache_key, check_inputs, fill_defaults, inputs_hash

Simple = types_pb2.SimpleType
Literal = literals_pb2.Literal
Type = types_pb2.LiteralType


def _scalar(**value: object) -> Literal:
    return Literal(scalar=literals_pb2.Scalar(**value))


def _primitive(**value: object) -> Literal:
    return _scalar(primitive=literals_pb2.Primitive(**value))


def _inputs(*names: str, **values: Literal) -> common_pb2.Inputs:
    literals = [common_pb2.NamedLiteral(name=name, value=values[name]) for name in names or values]
    return common_pb2.Inputs(literals=literals)


def _spec(
    *, defaults: dict[str, Literal] | None = None, metadata: object = None, **variables: Type
) -> task_definition_pb2.TaskSpec:
    entries = [
        interface_pb2.VariableEntry(key=key, value=interface_pb2.Variable(type=value)) for key, value in variables.items()
    ]
    interface = interface_pb2.TypedInterface(inputs=interface_pb2.VariableMap(variables=entries))
    template = tasks_pb2.TaskTemplate(interface=interface, metadata=metadata)
    template.id.name = "env.task"
    named = [
        common_pb2.NamedParameter(name=name, parameter=interface_pb2.Parameter(default=value))
        for name, value in (defaults or {}).items()
    ]
    return task_definition_pb2.TaskSpec(task_template=template, default_inputs=named)


_INT, _STR = Type(simple=Simple.INTEGER), Type(simple=Simple.STRING)

_TEXT = st.text(max_size=8)
_PACKED = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | _TEXT | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT | st.integers(0, 9), inner, max_size=3),
    max_leaves=6,
)
_LEAVES = st.one_of(
    st.integers(-(2**62), 2**62).map(lambda value: _primitive(integer=value)),
    st.floats().map(lambda value: _primitive(float_value=value)),
    _TEXT.map(lambda value: _primitive(string_value=value)),
    st.booleans().map(lambda value: _primitive(boolean=value)),
    _TEXT.map(lambda value: Literal(hash=value, scalar=literals_pb2.Scalar(blob=literals_pb2.Blob(uri="s3://x")))),
    _PACKED.map(lambda value: _scalar(binary=literals_pb2.Binary(value=msgpack.packb(value), tag="msgpack"))),
    st.binary(max_size=8).map(lambda value: _scalar(binary=literals_pb2.Binary(value=value, tag="msgpack"))),
    st.just(_scalar(none_type=literals_pb2.Void())),
    st.just(Literal()),
)
_LITERALS = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: Literal(collection=literals_pb2.LiteralCollection(literals=items)))
        | st.dictionaries(_TEXT, inner, max_size=3).map(lambda items: Literal(map=literals_pb2.LiteralMap(literals=items)))
    ),
    max_leaves=6,
)
_GIVEN = st.dictionaries(st.sampled_from("abcdef"), _LITERALS, max_size=4)


@given(values=_GIVEN, ignored=st.sets(st.sampled_from("abcdef"), max_size=2))
def test_one_key_for_a_root_and_a_child(values: dict[str, Literal], ignored: set[str]) -> None:
    """The key that the server gives a root action is the one that the SDK gives a child with the same task and inputs."""
    inputs = _inputs(**values)
    metadata = tasks_pb2.TaskMetadata(discoverable=True, discovery_version="v1", cache_ignore_input_vars=sorted(ignored))
    spec = _spec(metadata=metadata, z=_INT, a=_STR)
    template = spec.task_template
    expected = convert.generate_cache_key_hash(
        template.id.name,
        convert.generate_inputs_hash_from_proto(inputs),
        template.interface,
        template.metadata.discovery_version,
        sorted(ignored),
        inputs,
    )
    assert cache_key(spec, inputs_hash(inputs, ignored)) == expected


@given(values=_GIVEN, ignored=st.sets(st.sampled_from("abcdef"), max_size=2))
def test_a_client_that_hashes_itself_agrees(values: dict[str, Literal], ignored: set[str]) -> None:
    """Where a value brings its own hash the SDK replaces our inputs_hash by its own: it is the same."""
    inputs = _inputs(**values)
    theirs = convert.generate_content_inputs_hash(inputs, sorted(ignored))
    if theirs is not None:
        assert inputs_hash(inputs, ignored) == theirs


def test_a_hash_is_never_empty() -> None:
    """The IDL wants inputs_hash to have a character, even where there is no input to hash."""
    assert inputs_hash(common_pb2.Inputs())
    assert inputs_hash(_inputs(a=_primitive(integer=1)), ["a"]) == inputs_hash(common_pb2.Inputs())


def test_context_and_ignored_inputs_do_not_count() -> None:
    """Equal inputs have one hash whatever their context; an ignored input may differ; any other may not."""
    one = _inputs(a=_primitive(integer=1), b=_primitive(integer=2))
    two = _inputs(a=_primitive(integer=1), b=_primitive(integer=3))
    two.context.add(key="trace", value="x")
    assert inputs_hash(one, ["b"]) == inputs_hash(two, ["b"])
    assert inputs_hash(one) != inputs_hash(two)


def test_key_order_of_a_packed_dict_does_not_count() -> None:
    """Two equal dictionaries built in another order are one input."""
    hashes = {
        inputs_hash(_inputs(d=_scalar(binary=literals_pb2.Binary(value=msgpack.packb(value), tag="msgpack"))))
        for value in ({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1})
    }
    assert len(hashes) == 1


def test_no_key_without_caching() -> None:
    """A task that is not discoverable has no key."""
    assert cache_key(_spec(a=_INT), "hash") == ""


def test_every_part_counts_in_the_key() -> None:
    """Another name, version, interface or hash is another key; another order of the variables is not."""

    def key(*, name: str = "t", version: str = "1", hashed: str = "h", **variables: Type) -> str:
        metadata = tasks_pb2.TaskMetadata(discoverable=True, discovery_version=version)
        spec = _spec(metadata=metadata, **(variables or {"a": _INT, "b": _STR}))
        spec.task_template.id.name = name
        return cache_key(spec, hashed)

    assert len({key(), key(name="u"), key(version="2"), key(hashed="i"), key(a=_STR, b=_STR)}) == 5
    assert key() == key(b=_STR, a=_INT)


def test_defaults_are_filled_in_the_order_of_the_interface() -> None:
    """What is missing and has a default is filled; what is given wins; strangers stay at the end; context stays."""
    spec = _spec(defaults={"b": _primitive(integer=2), "c": _primitive(integer=3)}, a=_INT, b=_INT, c=_INT)
    inputs = _inputs("x", "c", "a", x=Literal(), c=_primitive(integer=30), a=_primitive(integer=1))
    inputs.context.add(key="k", value="v")
    filled = fill_defaults(inputs, spec)
    assert [(literal.name, literal.value.scalar.primitive.integer) for literal in filled.literals] == [
        ("a", 1),
        ("b", 2),
        ("c", 30),
        ("x", 0),
    ]
    assert filled.context == inputs.context
    assert [literal.name for literal in inputs.literals] == ["x", "c", "a"]


def test_complete_inputs_are_not_copied() -> None:
    """Inputs as the SDK sends them are left alone, however large."""
    spec = _spec(a=_INT)
    inputs = _inputs(a=_primitive(integer=1))
    assert fill_defaults(inputs, spec) is inputs


def test_unknown_and_missing_inputs_are_named() -> None:
    """The refusal names the variable and the task, and says what the task takes."""
    spec = _spec(defaults={"b": _primitive(integer=2)}, a=_INT, b=_INT)
    with pytest.raises(InvalidArgument, match=r"'env\.task' has no input 'x'; it takes a, b"):
        check_inputs(_inputs(a=_primitive(integer=1), x=_primitive(integer=1)), spec)
    with pytest.raises(InvalidArgument, match=r"'a' missing"):
        check_inputs(_inputs(b=_primitive(integer=1)), spec)
    with pytest.raises(InvalidArgument, match=r"'a' is given twice"):
        check_inputs(_inputs("a", "a", a=_primitive(integer=1)), spec)
    check_inputs(_inputs(a=_primitive(integer=1)), spec)
    check_inputs(common_pb2.Inputs(), spec, complete=False)


def test_the_time_of_a_trigger_is_not_missing() -> None:
    """An input that the runtime fills with the time of the run is named in the context and need not be given."""
    inputs = common_pb2.Inputs()
    inputs.context.add(key=convert.KICKOFF_TIME_INPUT_ARG_CONTEXT_KEY, value="when")
    check_inputs(inputs, _spec(when=Type(simple=Simple.DATETIME)))


def test_a_task_without_interface_takes_anything() -> None:
    """Nothing is known, so nothing is refused."""
    check_inputs(_inputs(a=_primitive(integer=1)), task_definition_pb2.TaskSpec())


_VALUES = {
    "integer": _primitive(integer=1),
    "float": _primitive(float_value=1.5),
    "string": _primitive(string_value="x"),
    "boolean": _primitive(boolean=True),
    "datetime": _primitive(datetime=Timestamp(seconds=1)),
    "duration": _primitive(duration=Duration(seconds=1)),
    "none": _scalar(none_type=literals_pb2.Void()),
    "file": _scalar(blob=literals_pb2.Blob(uri="/x")),
    "frame": _scalar(structured_dataset=literals_pb2.StructuredDataset(uri="/x")),
    "list": Literal(collection=literals_pb2.LiteralCollection(literals=[_primitive(integer=1)])),
    "map": Literal(map=literals_pb2.LiteralMap(literals={"k": _primitive(integer=1)})),
}
_DECLARED = {
    "integer": (_INT, {"integer", "float"}),
    "float": (Type(simple=Simple.FLOAT), {"integer", "float"}),
    "string": (_STR, {"string"}),
    "boolean": (Type(simple=Simple.BOOLEAN), {"boolean"}),
    "datetime": (Type(simple=Simple.DATETIME), {"datetime"}),
    "duration": (Type(simple=Simple.DURATION), {"duration"}),
    "enum": (Type(enum_type=types_pb2.EnumType(values=["x"])), {"string"}),
}


@pytest.mark.parametrize("declared", _DECLARED)
@pytest.mark.parametrize("given_as", _VALUES)
def test_primitives_are_judged(declared: str, given_as: str) -> None:
    """A primitive must be of its kind (numbers of either), and the refusal names the variable and what it must be."""
    kind, accepted = _DECLARED[declared]
    inputs, spec = _inputs(v=_VALUES[given_as]), _spec(v=kind)
    if given_as in accepted:
        check_inputs(inputs, spec)
    else:
        with pytest.raises(InvalidArgument, match=r"'v' must be an? \w+, as task 'env\.task' declares it"):
            check_inputs(inputs, spec)


@pytest.mark.parametrize(
    "value",
    [
        Literal(),
        Literal(offloaded_metadata=literals_pb2.LiteralOffloadedMetadata(uri="s3://x")),
        _scalar(union=literals_pb2.Union(value=_primitive(integer=1))),
        _scalar(binary=literals_pb2.Binary(value=b"\x01", tag="msgpack")),
        _scalar(),
        _scalar(primitive=literals_pb2.Primitive()),
    ],
    ids=["unset", "offloaded", "union", "packed", "empty scalar", "empty primitive"],
)
@pytest.mark.parametrize("declared", _DECLARED)
def test_what_cannot_be_judged_passes(declared: str, value: Literal) -> None:
    """A value whose kind is not on its surface is the task's own affair."""
    check_inputs(_inputs(v=value), _spec(v=_DECLARED[declared][0]))


@pytest.mark.parametrize("value", _VALUES.values(), ids=_VALUES.keys())
@pytest.mark.parametrize(
    "declared",
    [
        Type(),
        Type(simple=Simple.NONE),
        Type(simple=Simple.STRUCT),
        Type(simple=Simple.BINARY),
        Type(union_type=types_pb2.UnionType(variants=[_INT, Type(simple=Simple.NONE)])),
        Type(collection_type=_INT),
        Type(map_value_type=_INT),
        Type(blob=types_pb2.BlobType()),
    ],
    ids=["unset", "none", "struct", "binary", "union", "list", "map", "blob"],
)
def test_other_types_are_not_judged(declared: Type, value: Literal) -> None:
    """Unions, containers, files and structures pass whatever they get."""
    check_inputs(_inputs(v=value), _spec(v=declared))
