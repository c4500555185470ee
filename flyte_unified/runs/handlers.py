"""RunService on the wire."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from flyteidl2.core import literals_pb2
from flyteidl2.workflow import run_service_pb2

from flyte_unified.core.context import CallContext
from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.ids import ROOT_ACTION, ActionKey, action_key, run_key
from flyte_unified.core.phases import Phase
from flyte_unified.ledger.api import Ledger, Move, signal
from flyte_unified.runs.create import Creator
from flyte_unified.runs.details import Reader
from flyte_unified.runs.groups import Groups
from flyte_unified.runs.reads import ReadHandlers

_ABORTED = "User requested abort"


class RunsHandlers(ReadHandlers):
    """flyteidl2.workflow.RunService"""

    def __init__(self, *, ledger: Ledger, creator: Creator, reader: Reader) -> None:
        super().__init__(ledger=ledger, reader=reader)
        self._creator = creator
        self._groups = Groups(ledger=ledger)

    async def create_run(
        self, message: run_service_pb2.CreateRunRequest, ctx: CallContext
    ) -> run_service_pb2.CreateRunResponse:
        return await self._creator.create(message, ctx)

    async def abort_run(self, message: run_service_pb2.AbortRunRequest, ctx: CallContext) -> run_service_pb2.AbortRunResponse:
        await self._abort(run_key(message.run_id).action(ROOT_ACTION), message.reason, ctx)
        return run_service_pb2.AbortRunResponse()

    async def abort_action(
        self, message: run_service_pb2.AbortActionRequest, ctx: CallContext
    ) -> run_service_pb2.AbortActionResponse:
        await self._abort(action_key(message.action_id), message.reason, ctx)
        return run_service_pb2.AbortActionResponse()

    async def signal_event(
        self, message: run_service_pb2.SignalEventRequest, ctx: CallContext
    ) -> run_service_pb2.SignalEventResponse:
        key = action_key(message.action_id)
        await signal(self._ledger, key, _literal(message.payload), principal=ctx.identity.subject)
        return run_service_pb2.SignalEventResponse()

    async def get_action_data(
        self, message: run_service_pb2.GetActionDataRequest, ctx: CallContext
    ) -> run_service_pb2.GetActionDataResponse:
        return await self._reader.data(action_key(message.action_id))

    async def get_action_data_uris(
        self, message: run_service_pb2.GetActionDataURIsRequest, ctx: CallContext
    ) -> run_service_pb2.GetActionDataURIsResponse:
        inputs, outputs = await self._reader.data_uris(action_key(message.action_id))
        return run_service_pb2.GetActionDataURIsResponse(inputs_uri=inputs, outputs_uri=outputs)

    async def get_action_log_context(
        self, message: run_service_pb2.GetActionLogContextRequest, ctx: CallContext
    ) -> run_service_pb2.GetActionLogContextResponse:
        return await self._reader.log_context(action_key(message.action_id), message.attempt)

    async def watch_cluster_events(
        self, message: run_service_pb2.WatchClusterEventsRequest, ctx: CallContext
    ) -> AsyncGenerator[run_service_pb2.WatchClusterEventsResponse]:
        key = action_key(message.id, field="id")
        async with aclosing(self._reader.watch_cluster_events(key, message.attempt)) as batches:
            async for events in batches:
                yield run_service_pb2.WatchClusterEventsResponse(cluster_events=events)

    async def watch_groups(
        self, message: run_service_pb2.WatchGroupsRequest, ctx: CallContext
    ) -> AsyncGenerator[run_service_pb2.WatchGroupsResponse]:
        async with aclosing(self._groups.watch(message)) as updates:
            async for update in updates:
                yield update

    async def _abort(self, key: ActionKey, reason: str, ctx: CallContext) -> None:
        await self._ledger.move(key, Move(to=Phase.ABORTED, reason=reason or _ABORTED, principal=ctx.identity.subject))


def _literal(payload: run_service_pb2.EventPayload) -> literals_pb2.Literal:
    match payload.WhichOneof("value"):
        case "bool_value":
            primitive = literals_pb2.Primitive(boolean=payload.bool_value)
        case "int_value":
            primitive = literals_pb2.Primitive(integer=payload.int_value)
        case "float_value":
            primitive = literals_pb2.Primitive(float_value=payload.float_value)
        case "string_value":
            primitive = literals_pb2.Primitive(string_value=payload.string_value)
        case _:
            raise InvalidArgument("payload.value: one of bool_value, int_value, float_value and string_value must be set")
    return literals_pb2.Literal(scalar=literals_pb2.Scalar(primitive=primitive))
