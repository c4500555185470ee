"""flyteidl2.workflow.TranslatorService: pure conversions, and two ways to name literals that lie in the store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import ParamSpec, TypeVar

from flyteidl2.common.identifier_pb2 import ActionIdentifier, TriggerIdentifier
from flyteidl2.task.common_pb2 import Inputs, NamedLiteral
from flyteidl2.workflow.translator_service_pb2 import (
    JsonValuesToLiteralsRequest,
    JsonValuesToLiteralsResponse,
    LaunchFormJsonToLiteralsRequest,
    LaunchFormJsonToLiteralsResponse,
    LiteralsToLaunchFormJsonRequest,
    LiteralsToLaunchFormJsonResponse,
    TaskSpecToLaunchFormJsonRequest,
    TaskSpecToLaunchFormJsonResponse,
)
from google.protobuf.message import DecodeError, Message

from flyte_unified.core.context import CallContext
from flyte_unified.core.errors import FailedPrecondition, InvalidArgument
from flyte_unified.dataproxy.translator import forms

ActionUris = Callable[[ActionIdentifier], Awaitable[Collection[str]]]
"""The URIs of an action's own inputs and outputs; raises NotFound if there is no such action."""
TriggerInputs = Callable[[TriggerIdentifier], Awaitable[Inputs]]
"""A trigger's stored inputs, wherever they are; raises NotFound if there is no such trigger."""
ReadObject = Callable[[str], Awaitable[bytes]]
"""The bytes at a URI; raises NotFound if there is nothing."""

P = ParamSpec("P")
R = TypeVar("R")

_LARGE = 32_768
"""Bytes of literals that convert in some 10 ms: what the loop's other calls may wait."""


async def _aside(messages: Iterable[Message], convert: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """``convert``, in a thread if ``messages`` are large: values may have megabytes, and conversion 5 us for each number."""
    if sum(message.ByteSize() for message in messages) < _LARGE:
        return convert(*args, **kwargs)
    return await asyncio.to_thread(convert, *args, **kwargs)


class TranslatorHandlers:
    def __init__(self, *, action_uris: ActionUris, trigger_inputs: TriggerInputs, read_object: ReadObject) -> None:
        self._action_uris = action_uris
        self._trigger_inputs = trigger_inputs
        self._read_object = read_object

    async def literals_to_launch_form_json(
        self, message: LiteralsToLaunchFormJsonRequest, ctx: CallContext
    ) -> LiteralsToLaunchFormJsonResponse:
        literals = await self._named_literals(message)
        form = await _aside(literals, forms.form_of_literals, literals, message.variables)
        return LiteralsToLaunchFormJsonResponse(json=form)

    async def launch_form_json_to_literals(
        self, message: LaunchFormJsonToLiteralsRequest, ctx: CallContext
    ) -> LaunchFormJsonToLiteralsResponse:
        literals = await _aside([message], forms.literals_of_form, message.json)
        return LaunchFormJsonToLiteralsResponse(literals=literals)

    async def task_spec_to_launch_form_json(
        self, message: TaskSpecToLaunchFormJsonRequest, ctx: CallContext
    ) -> TaskSpecToLaunchFormJsonResponse:
        return TaskSpecToLaunchFormJsonResponse(json=forms.form_of_task(message.task_spec))

    async def json_values_to_literals(
        self, message: JsonValuesToLiteralsRequest, ctx: CallContext
    ) -> JsonValuesToLiteralsResponse:
        if not message.HasField("values"):
            raise InvalidArgument("values is missing")
        literals = await _aside([message], forms.literals_of_values, message.values, message.variables)
        return JsonValuesToLiteralsResponse(literals=literals)

    async def _named_literals(self, message: LiteralsToLaunchFormJsonRequest) -> list[NamedLiteral]:
        if message.HasField("trigger_id"):
            return list((await self._trigger_inputs(message.trigger_id)).literals)
        if not message.literals_uri:
            return list(message.literals)
        if not message.HasField("action_id"):
            raise InvalidArgument("action_id is missing: literals_uri must be of one action")
        # Only what belongs to the action may be read: the URI comes from the caller, the store is everyone's.
        if message.literals_uri not in await self._action_uris(message.action_id):
            raise InvalidArgument(f"literals_uri: not of the inputs or outputs of action {message.action_id.name!r}")
        data = await self._read_object(message.literals_uri)
        try:
            return list(Inputs.FromString(data).literals)  # outputs have their literals in the same field
        except DecodeError as error:
            raise FailedPrecondition(f"literals_uri: {message.literals_uri} holds no literals: {error}") from error
