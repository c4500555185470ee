"""What RunService and TrackedRunService answer alike: details, lists and watches, by the same messages."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from flyteidl2.common import identifier_pb2
from flyteidl2.workflow import run_service_pb2

from flyte_unified.core.context import CallContext
from flyte_unified.core.errors import NotFound
from flyte_unified.core.ids import ActionKey, RunKey, action_key, run_key
from flyte_unified.ledger.api import Ledger
from flyte_unified.runs.details import Reader
from flyte_unified.runs.lists import Lister
from flyte_unified.runs.watches import Watcher


class ReadHandlers:
    """``tracked``: lists and watches are of tracked runs, and other runs are not known.

    Without it they are of the runs that are carried out here. A tracked run, whose name no other run has, is then still found
    by that name: the SDK has no other way to it.
    """

    def __init__(self, *, ledger: Ledger, reader: Reader, tracked: bool = False) -> None:
        self._ledger = ledger
        self._reader = reader
        self._tracked = tracked
        self._lister = Lister(ledger=ledger, tracked=tracked)
        self._watcher = Watcher(ledger=ledger, tracked=tracked)

    async def get_run_details(
        self, message: run_service_pb2.GetRunDetailsRequest, ctx: CallContext
    ) -> run_service_pb2.GetRunDetailsResponse:
        details = await self._reader.run(await self._run(message.run_id), org=message.run_id.org)
        return run_service_pb2.GetRunDetailsResponse(details=details)

    async def watch_run_details(
        self, message: run_service_pb2.WatchRunDetailsRequest, ctx: CallContext
    ) -> AsyncGenerator[run_service_pb2.WatchRunDetailsResponse]:
        async with aclosing(self._reader.watch_run(await self._run(message.run_id), org=message.run_id.org)) as updates:
            async for details in updates:
                yield run_service_pb2.WatchRunDetailsResponse(details=details)

    async def get_action_details(
        self, message: run_service_pb2.GetActionDetailsRequest, ctx: CallContext
    ) -> run_service_pb2.GetActionDetailsResponse:
        details = await self._reader.action(await self._action(message.action_id), org=message.action_id.run.org)
        return run_service_pb2.GetActionDetailsResponse(details=details)

    async def watch_action_details(
        self, message: run_service_pb2.WatchActionDetailsRequest, ctx: CallContext
    ) -> AsyncGenerator[run_service_pb2.WatchActionDetailsResponse]:
        key = await self._action(message.action_id)
        async with aclosing(self._reader.watch_action(key, org=message.action_id.run.org)) as updates:
            async for details in updates:
                yield run_service_pb2.WatchActionDetailsResponse(details=details)

    async def list_runs(self, message: run_service_pb2.ListRunsRequest, ctx: CallContext) -> run_service_pb2.ListRunsResponse:
        return await self._lister.runs(message)

    async def list_actions(
        self, message: run_service_pb2.ListActionsRequest, ctx: CallContext
    ) -> run_service_pb2.ListActionsResponse:
        await self._run(message.run_id)
        return await self._lister.actions(message)

    async def watch_runs(
        self, message: run_service_pb2.WatchRunsRequest, ctx: CallContext
    ) -> AsyncGenerator[run_service_pb2.WatchRunsResponse]:
        async with aclosing(self._watcher.runs(message)) as updates:
            async for update in updates:
                yield update

    async def watch_actions(
        self, message: run_service_pb2.WatchActionsRequest, ctx: CallContext
    ) -> AsyncGenerator[run_service_pb2.WatchActionsResponse]:
        await self._run(message.run_id)
        async with aclosing(self._watcher.actions(message)) as updates:
            async for update in updates:
                yield update

    async def _run(self, message: identifier_pb2.RunIdentifier) -> RunKey:
        return await self._known(run_key(message))

    async def _action(self, message: identifier_pb2.ActionIdentifier) -> ActionKey:
        key = action_key(message)
        await self._known(key.run_key)
        return key

    async def _known(self, key: RunKey) -> RunKey:
        """Raises NotFound for a run that this service is not about."""
        if self._tracked and not (await self._ledger.run(key))[0].tracked:
            raise NotFound(f"run {key} is not tracked: it is carried out here, and RunService tells of it")
        return key
