"""ListRuns and ListActions."""

from __future__ import annotations

from dataclasses import replace

from flyteidl2.task import run_pb2
from flyteidl2.workflow import run_service_pb2

from flyte_unified.core.ids import run_key
from flyte_unified.core.paging import Order, listing
from flyte_unified.db import lists
from flyte_unified.ledger.api import Ledger
from flyte_unified.runs import scopes, store, views

_NEWEST_FIRST = (Order("created_at", descending=True),)
_OLDEST_FIRST = (Order("created_at"),)


class Lister:
    """Pages of runs, either tracked ones or all others, and of a run's actions."""

    def __init__(self, *, ledger: Ledger, tracked: bool = False) -> None:
        self._ledger = ledger
        self._tracked = tracked

    async def runs(self, message: run_service_pb2.ListRunsRequest) -> run_service_pb2.ListRunsResponse:
        """Newest first, where the request sets no order. Raises InvalidArgument naming the field."""
        scope = replace(scopes.of_list(message), tracked=self._tracked)
        page = listing(
            message.request,
            lists.kinds(store.run_field),
            default=_NEWEST_FIRST,
            key=("project", "domain", "run_name"),
            scope=(scope, message.paused_actions_only),
        )
        found, token = await self._ledger.read(lambda: store.list_runs(scope, page, paused=message.paused_actions_only))
        rows = [views.run(root, run, run_pb2.RunSpec.FromString(run.run_spec), org=scope.org) for run, root in found]
        return run_service_pb2.ListRunsResponse(runs=rows, token=token)

    async def actions(self, message: run_service_pb2.ListActionsRequest) -> run_service_pb2.ListActionsResponse:
        """Oldest first, where the request sets no order. Raises NotFound, InvalidArgument naming the field."""
        key = run_key(message.run_id)
        page = listing(message.request, lists.kinds(store.action_field), default=_OLDEST_FIRST, key=("name",), scope=(key,))
        run, spec = await self._ledger.run(key)
        found, token = await self._ledger.read(lambda: store.list_actions(key, page))
        rows = [views.light(action, run, spec, org=message.run_id.org) for action in found]
        return run_service_pb2.ListActionsResponse(actions=rows, token=token)
