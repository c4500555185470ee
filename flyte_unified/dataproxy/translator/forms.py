"""Whole forms: the schema of all inputs, with their values as defaults, and the literals of a filled form.

A property's ``x-flyte`` may hold
``type``, the exact type (a LiteralType, base64) if its schema does not tell it;
``hints`` about its value, see ``values``;
``origin``, the hash, metadata and artifact that came with the literal, and the digest of the value that they belong to:
an edited value is another one and must not be cached as the first.
The form's own ``x-flyte`` holds ``order``, the names as declared: a ``Struct`` has no order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from flyteidl2.core.interface_pb2 import Variable, VariableMap
from flyteidl2.core.literals_pb2 import Literal
from flyteidl2.core.types_pb2 import LiteralType
from flyteidl2.task.common_pb2 import NamedLiteral
from flyteidl2.task.task_definition_pb2 import TaskSpec
from google.protobuf.struct_pb2 import Struct

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.dataproxy.translator.packed import required_of
from flyte_unified.dataproxy.translator.parse import Hints, literal_of, none_of
from flyte_unified.dataproxy.translator.schema import EXTENSION, property_defaults, schema_of, type_of
from flyte_unified.dataproxy.translator.texts import Json, decoded, encoded, plain_struct, step, struct_of
from flyte_unified.dataproxy.translator.values import json_of


@dataclass(frozen=True, slots=True, kw_only=True)
class _Field:
    name: str
    variable: Variable
    literal: Literal | None
    required: bool


def form_of_literals(literals: Sequence[NamedLiteral], variables: VariableMap) -> Struct:
    """The form of the given values. One that the interface does not know, of another version say, is left out."""
    known = {entry.key: entry.value for entry in variables.variables}
    values = {literal.name: literal.value for literal in literals if literal.name in known}
    return _form(
        "Inputs",
        [
            _Field(name=name, variable=known[name], literal=value, required=not _is_optional(known[name], value))
            for name, value in values.items()
        ],
    )


def form_of_task(spec: TaskSpec) -> Struct:
    """The form to launch a task with, its default inputs filled in. What has a default is not required."""
    template = spec.task_template
    variables = {entry.key: entry.value for entry in template.interface.inputs.variables}
    parameters = {parameter.name: parameter.parameter for parameter in spec.default_inputs}
    for name, parameter in parameters.items():
        variables.setdefault(name, parameter.var)
    fields = []
    for name, variable in variables.items():
        behavior = parameters[name].WhichOneof("behavior") if name in parameters else None
        default = parameters[name].default if behavior == "default" else None
        required = parameters[name].required if behavior == "required" else default is None
        fields.append(_Field(name=name, variable=variable, literal=default, required=required and not _is_optional(variable)))
    return _form(spec.short_name or template.id.name or "Inputs", fields)


def literals_of_form(form: Struct) -> list[NamedLiteral]:
    """The values of a form. A field without one is left out, or none if its type allows none."""
    root = plain_struct(form)
    properties = root.get("properties")
    if not isinstance(properties, dict):
        raise InvalidArgument("json: expected a JSON schema with properties")
    literals = ((name, _literal_of_field(name, properties[name])) for name in _order(root, properties))
    return [NamedLiteral(name=name, value=literal) for name, literal in literals if literal is not None]


def literals_of_values(values: Struct, variables: VariableMap) -> list[NamedLiteral]:
    """``values`` as literals of their types, in the interface's order. Values that it does not know are left out."""
    given = plain_struct(values)
    literals = []
    for entry in variables.variables:
        if entry.key in given:
            literal: Literal | None = literal_of(given[entry.key], entry.value.type, entry.key, {})
        else:
            literal = none_of(entry.value.type)
        if literal is None:
            raise InvalidArgument(f"values: no value for {entry.key!r}")
        literals.append(NamedLiteral(name=entry.key, value=literal))
    return literals


def _is_optional(variable: Variable, literal: Literal | None = None) -> bool:
    none_given = literal is not None and literal.scalar.HasField("none_type")
    return none_given or none_of(variable.type) is not None


# --- literals to a form -------------------------------------------------------------------------------------------


def _form(title: str, fields: Sequence[_Field]) -> Struct:
    return struct_of(
        {
            "type": "object",
            "title": title,
            "properties": {field.name: _property(field) for field in fields},
            "required": [field.name for field in fields if field.required],
            EXTENSION: {"order": [field.name for field in fields]},
        }
    )


def _property(field: _Field) -> dict[str, Json]:
    pointer = step("#/properties", field.name)
    type_ = field.variable.type
    schema = schema_of(type_, field.name, pointer) if type_.WhichOneof("type") else {"type": "null"}
    extension: dict[str, Json] = {}
    if type_of(schema, field.name) != type_:
        extension["type"] = encoded(type_)
    if field.literal is not None:
        schema = _filled(schema, field, field.literal, extension)
    if field.variable.description and field.variable.description != field.name:
        schema["description"] = field.variable.description
    return {**schema, "title": field.name, **({EXTENSION: extension} if extension else {})}


def _digest(value: Json) -> str:
    return hashlib.sha256(struct_of({"value": value}).SerializeToString(deterministic=True)).hexdigest()


def _filled(schema: dict[str, Json], field: _Field, literal: Literal, extension: dict[str, Json]) -> dict[str, Json]:
    """``schema`` with the field's value as the default; a blob's stands at its properties, as its editors expect."""
    hints: Hints = {}
    value = json_of(literal, field.variable.type, field.name, hints)
    if hints:
        extension["hints"] = hints
    origin = Literal(hash=literal.hash, metadata=literal.metadata)
    if literal.HasField("artifact_id"):
        origin.artifact_id.CopyFrom(literal.artifact_id)
    if origin.ByteSize():
        extension["origin"] = {"literal": encoded(origin), "digest": _digest(value)}
    if isinstance(value, dict) and "offloaded" in hints.get(field.name, {}):
        return {"type": "object", "format": "offloaded", "readOnly": True, "default": value}
    if schema.get("format") == "blob" and isinstance(value, dict) and value.keys() == schema["properties"].keys():
        properties = {key: {**schema["properties"][key], "default": item} for key, item in value.items()}
        return {**schema, "properties": properties}
    return {**schema, "default": value}


# --- a form to literals -------------------------------------------------------------------------------------------


def _order(root: dict[str, Json], properties: dict[str, Json]) -> list[str]:
    """The fields as they were declared; those that nobody ordered come last, by name."""
    extension = root.get(EXTENSION)
    declared = extension.get("order") if isinstance(extension, dict) else root.get("required")
    names = required_of({"required": declared})
    return [*(name for name in dict.fromkeys(names) if name in properties), *sorted(set(properties) - set(names))]


def _literal_of_field(name: str, schema: Json) -> Literal | None:
    if not isinstance(schema, dict):
        raise InvalidArgument(f"{name}: expected a JSON schema object")
    extension = schema.get(EXTENSION)
    extension = extension if isinstance(extension, dict) else {}
    exact = extension.get("type")
    type_ = type_of(schema, name) if exact is None else decoded(LiteralType, exact, f"{name}/{EXTENSION}/type")
    value = schema["default"] if "default" in schema else _collected(schema)
    if value is _MISSING:
        return none_of(type_)
    literal = literal_of(value, type_, name, _hints(extension.get("hints"), name))
    origin = extension.get("origin")
    if isinstance(origin, dict) and origin.get("digest") == _digest(value):
        literal.MergeFrom(decoded(Literal, origin.get("literal"), f"{name}/{EXTENSION}/origin"))
    return literal


_MISSING: Json = object()


def _collected(schema: dict[str, Json]) -> Json:
    """The value that the defaults of the properties make up, if they make up a whole one."""
    properties = schema.get("properties")
    if schema.get("type") != "object" or not isinstance(properties, dict):
        return _MISSING
    if schema.get("format") == "blob":
        defaults = property_defaults(schema)
        return defaults if "uri" in defaults else _MISSING
    nested = {
        name: value["default"] if "default" in value else _collected(value)
        for name, value in properties.items()
        if isinstance(value, dict)
    }
    found = {name: value for name, value in nested.items() if value is not _MISSING}
    return found if found and set(required_of(schema)) <= set(found) else _MISSING


def _hints(hints: Json, name: str) -> Hints:
    if hints is None:
        return {}
    if not isinstance(hints, dict) or not all(isinstance(hint, dict) for hint in hints.values()):
        raise InvalidArgument(f"{name}/{EXTENSION}/hints: expected an object of objects")
    return hints
