"""The inputs that a trigger was deployed with, wherever they are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from flyteidl2.common import identifier_pb2
from flyteidl2.task import common_pb2
from flyteidl2.trigger import trigger_definition_pb2
from google.protobuf.message import DecodeError

from flyte_unified.core.errors import FailedPrecondition
from flyte_unified.dataproxy.api import INPUTS, file_in
from flyte_unified.triggers.service import Triggers

ReadObject = Callable[[str], Awaitable[bytes]]
"""The bytes at an address; raises NotFound."""


async def inputs_of(spec: trigger_definition_pb2.TriggerSpec, read: ReadObject) -> common_pb2.Inputs:
    """Inline, or from the store. Raises NotFound, FailedPrecondition."""
    if not spec.HasField("offloaded_input_data"):
        return spec.inputs
    uri = file_in(spec.offloaded_input_data.uri, INPUTS)
    try:
        return common_pb2.Inputs.FromString(await read(uri))
    except DecodeError as error:
        raise FailedPrecondition(f"the trigger's inputs at {uri} can't be read: {error}") from error


async def stored_inputs(
    triggers: Triggers, read: ReadObject, identifier: identifier_pb2.TriggerIdentifier
) -> common_pb2.Inputs:
    """Those of one revision, or, where none is named, of the latest. Raises NotFound."""
    if identifier.revision:
        trigger = await triggers.revision(identifier)
    else:
        trigger = (await triggers.get(identifier.name)).trigger
    return await inputs_of(trigger.spec_message(), read)
