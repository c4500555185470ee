"""InternalRunService: other control planes' reports of actions.

What is wrong with one report is told in its own answer, so that a stream of them goes on; only who may not report at all is
refused as a call.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable

from flyteidl2.actions import actions_service_pb2
from flyteidl2.workflow import internal_run_service_pb2 as internal_pb2
from flyteidl2.workflow import run_definition_pb2
from google.rpc import status_pb2

from flyte_unified.actions.service import Actions
from flyte_unified.core.context import CallContext
from flyte_unified.core.errors import FailedPrecondition, FlyteUnifiedError, PermissionDenied
from flyte_unified.core.ids import action_key
from flyte_unified.core.phases import Phase
from flyte_unified.events.api import of_status, record
from flyte_unified.ledger.api import Ledger, Productions


class InternalRunsHandlers:
    """flyteidl2.workflow.InternalRunService"""

    def __init__(self, *, ledger: Ledger, productions: Productions, actions: Actions) -> None:
        self._ledger = ledger
        self._productions = productions
        self._actions = actions

    async def record_action(
        self, message: internal_pb2.RecordActionRequest, ctx: CallContext
    ) -> internal_pb2.RecordActionResponse:
        status = await _in_band(self._record_action(message, ctx))
        return internal_pb2.RecordActionResponse(action_id=message.action_id, status=status)

    async def update_action_status(
        self, message: internal_pb2.UpdateActionStatusRequest, ctx: CallContext
    ) -> internal_pb2.UpdateActionStatusResponse:
        status = await _in_band(self._update(message, ctx))
        return internal_pb2.UpdateActionStatusResponse(action_id=message.action_id, status=status)

    async def record_action_events(
        self, message: internal_pb2.RecordActionEventsRequest, ctx: CallContext
    ) -> internal_pb2.RecordActionEventsResponse:
        status = await _in_band(self._record_events(list(message.events), ctx))
        return internal_pb2.RecordActionEventsResponse(status=status)

    async def record_action_stream(
        self, messages: AsyncIterator[internal_pb2.RecordActionStreamRequest], ctx: CallContext
    ) -> AsyncGenerator[internal_pb2.RecordActionStreamResponse]:
        async for message in messages:
            response = await self.record_action(message.request, ctx)
            yield internal_pb2.RecordActionStreamResponse(response=response)

    async def update_action_status_stream(
        self, messages: AsyncIterator[internal_pb2.UpdateActionStatusStreamRequest], ctx: CallContext
    ) -> AsyncGenerator[internal_pb2.UpdateActionStatusStreamResponse]:
        async for message in messages:
            response = await self.update_action_status(message.request, ctx)
            yield internal_pb2.UpdateActionStatusStreamResponse(response=response, nonce=message.nonce)

    async def record_action_event_stream(
        self, messages: AsyncIterator[internal_pb2.RecordActionEventStreamRequest], ctx: CallContext
    ) -> AsyncGenerator[internal_pb2.RecordActionEventStreamResponse]:
        async for message in messages:
            event = message.request.event
            status = await _in_band(self._record_events([event], ctx))
            response = internal_pb2.RecordActionEventResponse(action_id=event.id, status=status)
            yield internal_pb2.RecordActionEventStreamResponse(response=response, nonce=message.nonce)

    async def _record_action(self, message: internal_pb2.RecordActionRequest, ctx: CallContext) -> None:
        key = action_key(message.action_id)
        self._actions.admit(ctx.identity, key.run_key)
        run, _ = await self._ledger.run(key.run_key)
        if not message.parent:
            await self._ledger.action(key)  # a root comes into being with its run, by CreateRun
            return
        action = actions_service_pb2.Action(
            action_id=message.action_id,
            parent_action_name=message.parent,
            input_uri=message.input_uri,
            run_output_base=run.output_base,
            group=message.group,
        )
        kind = message.WhichOneof("spec")
        if kind is not None:
            getattr(action, kind).CopyFrom(getattr(message, kind))
        if kind == "trace" and not action.trace.phase:
            action.trace.phase = int(Phase.SUCCEEDED)
        await self._actions.enqueue(action, ctx.identity)

    async def _update(self, message: internal_pb2.UpdateActionStatusRequest, ctx: CallContext) -> None:
        key = action_key(message.action_id)
        self._actions.admit(ctx.identity, key.run_key)
        action = await self._ledger.action(key)
        steps, beside = await self._productions.of(action, of_status(action, message))
        if await self._ledger.move(key, *steps, beside=beside):
            return
        action = await self._ledger.action(key)
        if action.phase != message.status.phase:
            raise FailedPrecondition(f"status.phase: action {key} is {action.phase.name} in attempt {action.attempt}")

    async def _record_events(self, events: list[run_definition_pb2.ActionEvent], ctx: CallContext) -> None:
        for index, event in enumerate(events):
            self._actions.admit(ctx.identity, action_key(event.id, field=f"events[{index}].id").run_key)
        await record(self._ledger, self._productions, events)


async def _in_band(work: Awaitable[None]) -> status_pb2.Status:
    """What became of ``work``. Raises PermissionDenied."""
    try:
        await work
    except PermissionDenied:
        raise
    except FlyteUnifiedError as error:
        return status_pb2.Status(code=int(error.code), message=error.message)
    return status_pb2.Status()
