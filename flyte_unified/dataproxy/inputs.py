"""Inputs of a task: complete, of the right type, and their place in a cache key. Pure functions.

The hashes are the ones that the SDK computes for the children of a run, so a task with given inputs has one cache key
whether it is run by a user or called by another task: SHA-256 over a byte string in which a value that brings its own hash
stands for itself, maps are sorted, and names are framed; everything in base64.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Iterable

import msgpack
from flyteidl2.core import interface_pb2, literals_pb2, types_pb2
from flyteidl2.task import common_pb2, task_definition_pb2

from flyte_unified.core.errors import InvalidArgument

Simple = types_pb2.SimpleType

KICKOFF_TIME = "_u_kickoff_time_input_arg"
"""In the context of a trigger's inputs: the input that the SDK's runtime fills with the time of the run."""

_NUMBER = frozenset({"integer", "float_value"})
"""The SDK reads either as either: JavaScript has only one kind of number."""

_PRIMITIVES: dict[int, tuple[frozenset[str], str]] = {
    Simple.INTEGER: (_NUMBER, "an integer"),
    Simple.FLOAT: (_NUMBER, "a float"),
    Simple.STRING: (frozenset({"string_value"}), "a string"),
    Simple.BOOLEAN: (frozenset({"boolean"}), "a boolean"),
    Simple.DATETIME: (frozenset({"datetime"}), "a datetime"),
    Simple.DURATION: (frozenset({"duration"}), "a duration"),
}
_TOLD = 256
"""Characters of a caller's own names that an error repeats."""
_FOREIGN = frozenset({"none_type", "blob", "schema", "structured_dataset"})
"""Scalars that no primitive can be read from. The others (a union, packed bytes, a struct) may hold one."""


def fill_defaults(inputs: common_pb2.Inputs, spec: task_definition_pb2.TaskSpec) -> common_pb2.Inputs:
    """``inputs`` in the order of the task's interface, what is missing filled from the task's defaults.

    What the task does not know, and what is given twice, stays, last. The message is not changed; it is the answer if nothing
    is to be done.
    """
    given = {literal.name: index for index, literal in enumerate(inputs.literals)}
    defaults = {entry.name: entry.parameter for entry in spec.default_inputs}
    ordered: list[common_pb2.NamedLiteral] = []
    placed = set()
    for name in _variables(spec):
        if name in given:
            ordered.append(inputs.literals[given[name]])
            placed.add(given[name])
        elif name in defaults and defaults[name].HasField("default"):
            ordered.append(common_pb2.NamedLiteral(name=name, value=defaults[name].default))
    ordered += [literal for index, literal in enumerate(inputs.literals) if index not in placed]
    if [literal.name for literal in ordered] == [literal.name for literal in inputs.literals]:
        return inputs
    filled = common_pb2.Inputs()
    filled.CopyFrom(inputs)
    del filled.literals[:]
    filled.literals.extend(ordered)
    return filled


def check_inputs(inputs: common_pb2.Inputs, spec: task_definition_pb2.TaskSpec, *, complete: bool = True) -> None:
    """Raises InvalidArgument naming the input that is unknown, given twice, of another primitive type, or missing.

    ``complete`` False lets inputs be missing: those of a trigger are completed when it fires.
    """
    if not spec.task_template.HasField("interface"):
        return
    variables = _variables(spec)
    seen: set[str] = set()
    for literal in inputs.literals:
        if literal.name not in variables:
            takes = ", ".join(variables)[:_TOLD] or "none"
            raise InvalidArgument(f"inputs: {_task(spec)} has no input {literal.name[:_TOLD]!r}; it takes {takes}")
        if literal.name in seen:
            raise InvalidArgument(f"inputs: {literal.name!r} is given twice")
        seen.add(literal.name)
        if expected := _mismatch(literal.value, variables[literal.name].type):
            raise InvalidArgument(f"inputs: {literal.name!r} must be {expected}, as {_task(spec)} declares it")
    if complete:
        defaults = {entry.name for entry in spec.default_inputs}
        later = {entry.value for entry in inputs.context if entry.key == KICKOFF_TIME}
        missing = [name for name in variables if name not in seen and name not in defaults and name not in later]
        if missing:
            raise InvalidArgument(f"inputs: {', '.join(map(repr, missing))} missing; {_task(spec)} has no default for it")


def inputs_hash(inputs: common_pb2.Inputs, ignored: Collection[str] = ()) -> str:
    """The hash of what counts for caching: every input not in ``ignored``, in the given order, without the context."""
    told = bytearray()
    for literal in inputs.literals:
        if literal.name not in ignored:
            told += literal.name.encode() + b":" + _content(literal.value) + b";"
    return _digest(bytes(told))


_NOTHING = base64.b64encode(hashlib.sha256(b"").digest()).decode()


def cache_key(spec: task_definition_pb2.TaskSpec, hashed: str) -> str:
    """The key of the task's outputs for inputs with the hash ``hashed``; an empty string if the task is not cached.

    The SDK's hash of no inputs is an empty string, which the IDL does not allow in a message; ``inputs_hash`` has another.
    """
    template = spec.task_template
    if not template.metadata.discoverable:
        return ""
    hashed = "" if hashed == _NOTHING else hashed
    version = template.metadata.discovery_version
    return _digest(f"{hashed}{template.id.name}{_interface_hash(template.interface)}{version}".encode())


def _interface_hash(interface: interface_pb2.TypedInterface) -> str:
    ordered = interface_pb2.TypedInterface()
    ordered.CopyFrom(interface)
    for side in ("inputs", "outputs"):
        if ordered.HasField(side):
            getattr(ordered, side).variables.sort(key=lambda entry: entry.key)
    return _digest(ordered.SerializeToString(deterministic=True))


def _content(value: literals_pb2.Literal) -> bytes:
    """What stands for a value in the hash."""
    if value.hash:
        return str(value.hash).encode()
    match value.WhichOneof("value"):
        case "collection":
            return b"".join(_content(item) for item in value.collection.literals)
        case "map":
            entries = value.map.literals
            return b"".join(name.encode() + _content(entries[name]) for name in sorted(entries))
        case "scalar" if value.scalar.HasField("binary") and value.scalar.binary.tag == "msgpack":
            ordered = literals_pb2.Literal()
            ordered.CopyFrom(value)
            ordered.scalar.binary.value = _sorted_maps(value.scalar.binary.value)
            value = ordered
    return bytes(value.SerializeToString(deterministic=True))


def _sorted_maps(data: bytes) -> bytes:
    """Packed data with its maps sorted: equal dictionaries, equal bytes. What cannot be read stays as it is."""
    try:
        return bytes(msgpack.packb(_sorted(msgpack.unpackb(data, strict_map_key=False))))
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException):
        return data


def _sorted(value: object) -> object:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value, key=msgpack.packb)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def _digest(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def _mismatch(value: literals_pb2.Literal, declared: types_pb2.LiteralType) -> str:
    """What the value should be if it cannot be read as such; only primitives are judged, and an unset value passes."""
    if declared.WhichOneof("type") == "enum_type":
        kinds, expected = frozenset({"string_value"}), "a string"
    elif declared.WhichOneof("type") == "simple" and declared.simple in _PRIMITIVES:
        kinds, expected = _PRIMITIVES[declared.simple]
    else:
        return ""
    match value.WhichOneof("value"):
        case "collection" | "map":
            return expected
        case "scalar":
            scalar = value.scalar.WhichOneof("value")
            primitive = value.scalar.primitive.WhichOneof("value") if scalar == "primitive" else None
            if scalar in _FOREIGN or (primitive is not None and primitive not in kinds):
                return expected
    return ""


def _variables(spec: task_definition_pb2.TaskSpec) -> dict[str, interface_pb2.Variable]:
    entries: Iterable[interface_pb2.VariableEntry] = spec.task_template.interface.inputs.variables
    return {entry.key: entry.value for entry in entries}


def _task(spec: task_definition_pb2.TaskSpec) -> str:
    return f"task {spec.task_template.id.name!r}"
