"""Inputs and outputs as people read them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from flyteidl2.core.types_pb2 import LiteralType
from flyteidl2.task import common_pb2
from google.protobuf.message import DecodeError

from flyte_unified.core.errors import FlyteUnifiedError, InvalidArgument, ResourceExhausted
from flyte_unified.core.ids import ActionKey
from flyte_unified.core.phases import SUCCESS
from flyte_unified.dataproxy.api import INPUTS, OUTPUTS, file_in, json_of
from flyte_unified.ledger.api import Action
from flyte_unified.storage.api import DataStore

_MAX_BYTES = 256 << 10
"""The largest file that is read for a page."""
_MAX_TEXT = 2000
"""Characters of one value on a page."""
_MAX_VALUES = 50


@dataclass(frozen=True, slots=True)
class Values:
    """Named values as text, or ``problem``: why they can't be shown."""

    name: str
    key: ActionKey
    values: tuple[tuple[str, str], ...] = ()
    problem: str = ""
    file: bool = True
    """Whether there is a file to download."""


def uri_of(action: Action, name: str) -> str:
    """The address of ``inputs`` or ``outputs``; empty where there are none (yet)."""
    if name == "inputs":
        return file_in(action.input_uri, INPUTS) if action.input_uri else ""
    return file_in(action.output_uri, OUTPUTS) if action.output_uri and action.phase in SUCCESS else ""


async def read(action: Action, name: str, *, store: DataStore) -> Values | None:
    """``inputs`` or ``outputs`` of an action; None where there are none (yet)."""
    if name == "outputs" and action.value is not None:
        literals = common_pb2.Outputs()
        literals.literals.add(name="value").value.MergeFromString(action.value)
        return Values(name, action.key, tuple(_texts(literals.literals)), file=False)
    uri = uri_of(action, name)
    if not uri:
        return None
    try:
        # Inputs and Outputs hold the same literals under the same number.
        message = common_pb2.Outputs.FromString(await store.get(uri, limit=_MAX_BYTES))
    except ResourceExhausted:
        return Values(name, action.key, problem="Too large to be shown here.")
    except FlyteUnifiedError as error:
        return Values(name, action.key, problem=error.message, file=False)
    except DecodeError:
        return Values(name, action.key, problem="The file is damaged.")
    return Values(name, action.key, tuple(_texts(message.literals)))


def _texts(literals: Iterable[common_pb2.NamedLiteral]) -> Iterable[tuple[str, str]]:
    for number, literal in enumerate(literals):
        if number == _MAX_VALUES:
            yield "…", "and more, which the file has"
            return
        yield literal.name, _text(literal)


def _text(literal: common_pb2.NamedLiteral) -> str:
    try:
        value = json_of(literal.value, LiteralType(), literal.name, {})
    except InvalidArgument as error:
        return error.message
    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}… ({len(text)} characters)"
