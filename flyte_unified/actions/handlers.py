"""ActionsService, QueueService and StateService on the wire."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from flyteidl2.actions import actions_service_pb2 as actions_pb2
from flyteidl2.common import identifier_pb2
from flyteidl2.workflow import queue_service_pb2, state_service_pb2
from google.rpc import status_pb2

from flyte_unified.actions.service import Actions
from flyte_unified.core.context import CallContext
from flyte_unified.core.errors import InvalidArgument, NotFound
from flyte_unified.core.ids import ROOT_ACTION, ActionKey, action_key, run_key
from flyte_unified.core.phases import Phase, phase_of
from flyte_unified.ledger.api import Ledger, Move, signal


class ActionsHandlers:
    """flyteidl2.actions.ActionsService"""

    def __init__(self, *, actions: Actions, ledger: Ledger) -> None:
        self._actions = actions
        self._ledger = ledger

    async def enqueue(self, message: actions_pb2.EnqueueRequest, ctx: CallContext) -> actions_pb2.EnqueueResponse:
        await self._actions.enqueue(message.action, ctx.identity)
        return actions_pb2.EnqueueResponse()

    async def watch_for_updates(
        self, message: actions_pb2.WatchForUpdatesRequest, ctx: CallContext
    ) -> AsyncGenerator[actions_pb2.WatchForUpdatesResponse]:
        parent = _admitted(self._actions, message.parent_action_id, ctx, field="parent_action_id")
        async with aclosing(self._actions.watch(parent, org=message.parent_action_id.run.org)) as updates:
            async for update in updates:
                response = actions_pb2.WatchForUpdatesResponse()
                if update is None:
                    response.control_message.sentinel = True
                else:
                    response.action_update.CopyFrom(update)
                yield response

    async def update(self, message: actions_pb2.UpdateRequest, ctx: CallContext) -> actions_pb2.UpdateResponse:
        key = _admitted(self._actions, message.action_id, ctx)
        if not message.HasField("status"):
            raise InvalidArgument("status is empty")
        phase = phase_of(message.status.phase, field="status.phase")
        if phase is Phase.UNSPECIFIED:
            phase = (await self._ledger.action(key)).phase
        move = Move(to=phase, attempt=message.attempt or None, cache_status=message.status.cache_status)
        await self._ledger.move(key, move)
        return actions_pb2.UpdateResponse()

    async def abort(self, message: actions_pb2.AbortRequest, ctx: CallContext) -> actions_pb2.AbortResponse:
        key = _admitted(self._actions, message.action_id, ctx)
        principal = message.aborted_by.user.id.subject or ctx.identity.subject
        await self._actions.abort(key, reason=message.reason, principal=principal)
        return actions_pb2.AbortResponse()

    async def signal(self, message: actions_pb2.SignalRequest, ctx: CallContext) -> actions_pb2.SignalResponse:
        key = _admitted(self._actions, message.action_id, ctx)
        if not message.HasField("value"):
            raise InvalidArgument("value is empty")
        principal = message.signalled_by.user.id.subject or ctx.identity.subject
        await signal(self._ledger, key, message.value, principal=principal)
        return actions_pb2.SignalResponse()


class QueueHandlers:
    """flyteidl2.workflow.QueueService"""

    def __init__(self, *, actions: Actions) -> None:
        self._actions = actions

    async def enqueue_action(
        self, message: queue_service_pb2.EnqueueActionRequest, ctx: CallContext
    ) -> queue_service_pb2.EnqueueActionResponse:
        await self._actions.enqueue(message, ctx.identity)
        return queue_service_pb2.EnqueueActionResponse()

    async def abort_queued_run(
        self, message: queue_service_pb2.AbortQueuedRunRequest, ctx: CallContext
    ) -> queue_service_pb2.AbortQueuedRunResponse:
        run = run_key(message.run_id)
        self._actions.admit(ctx.identity, run)
        await self._actions.abort(run.action(ROOT_ACTION), reason=message.reason, principal=ctx.identity.subject)
        return queue_service_pb2.AbortQueuedRunResponse()

    async def abort_queued_action(
        self, message: queue_service_pb2.AbortQueuedActionRequest, ctx: CallContext
    ) -> queue_service_pb2.AbortQueuedActionResponse:
        key = _admitted(self._actions, message.action_id, ctx)
        await self._actions.abort(key, reason=message.reason, principal=ctx.identity.subject)
        return queue_service_pb2.AbortQueuedActionResponse()


class StateHandlers:
    """flyteidl2.workflow.StateService: a client's own note on an action, and the watch that the SDK uses by default."""

    def __init__(self, *, actions: Actions, ledger: Ledger) -> None:
        self._actions = actions
        self._ledger = ledger

    async def put(self, message: state_service_pb2.PutRequest, ctx: CallContext) -> state_service_pb2.PutResponse:
        key = _admitted(self._actions, message.action_id, ctx)
        if not message.state:
            raise InvalidArgument("state is empty")
        if not await self._ledger.put_state(key, message.state):
            raise NotFound(f"there is no action {key}")
        return state_service_pb2.PutResponse(action_id=message.action_id, status=status_pb2.Status())

    async def get(self, message: state_service_pb2.GetRequest, ctx: CallContext) -> state_service_pb2.GetResponse:
        key = _admitted(self._actions, message.action_id, ctx)
        action = await self._ledger.action(key)
        return state_service_pb2.GetResponse(action_id=message.action_id, status=status_pb2.Status(), state=action.state)

    async def watch(
        self, message: state_service_pb2.WatchRequest, ctx: CallContext
    ) -> AsyncGenerator[state_service_pb2.WatchResponse]:
        parent = _admitted(self._actions, message.parent_action_id, ctx, field="parent_action_id")
        async with aclosing(self._actions.watch(parent, org=message.parent_action_id.run.org)) as updates:
            async for update in updates:
                response = state_service_pb2.WatchResponse()
                if update is None:
                    response.control_message.sentinel = True
                else:
                    response.action_update.CopyFrom(update)
                yield response


def _admitted(
    actions: Actions, identifier: identifier_pb2.ActionIdentifier, ctx: CallContext, *, field: str = "action_id"
) -> ActionKey:
    key = action_key(identifier, field=field)
    actions.admit(ctx.identity, key.run_key)
    return key
