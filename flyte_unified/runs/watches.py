"""WatchRuns and WatchActions: what there is, then every change of it, for as long as the caller listens."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TypeVar

from flyteidl2.task import run_pb2
from flyteidl2.workflow import run_definition_pb2, run_service_pb2

from flyte_unified.core.ids import RunKey, run_key
from flyte_unified.ledger.api import Action, Ledger, Run, WholeRun
from flyte_unified.runs import scopes, store, views
from flyte_unified.runs.scopes import RunScope
from flyte_unified.runs.tree import Node, Tree, matcher

T = TypeVar("T")

_NEWEST = 1000
"""Runs in the first messages of a WatchRuns; older ones are listed."""
_READ = 1000
"""Actions read at once."""
_MESSAGE = 500
"""Rows in one message."""


class Watcher:
    """Watches that end when the caller leaves or the server stops; of runs, either tracked ones or all others."""

    def __init__(self, *, ledger: Ledger, tracked: bool = False) -> None:
        self._ledger = ledger
        self._tracked = tracked

    async def runs(self, message: run_service_pb2.WatchRunsRequest) -> AsyncGenerator[run_service_pb2.WatchRunsResponse]:
        """The newest runs of the scope, then new ones and changes of any. Raises InvalidArgument naming the field."""
        scope = replace(scopes.of_watch(message), tracked=self._tracked)
        at_hand: dict[RunKey, Run] = {}

        async def newest() -> list[Action]:
            found = await self._ledger.read(lambda: store.newest_runs(scope, _NEWEST))
            at_hand.update((run.key, run) for run, _ in found)
            return [root for _, root in found]

        async with aclosing(self._ledger.watch(newest, scope.changes)) as updates:
            async for changed, first in updates:
                rows = [await self._row(root, at_hand, scope) for root in changed if scope.includes(root)]
                at_hand.clear()
                for page in _pages(rows, always=first):
                    yield run_service_pb2.WatchRunsResponse(runs=page)

    async def actions(
        self, message: run_service_pb2.WatchActionsRequest
    ) -> AsyncGenerator[run_service_pb2.WatchActionsResponse]:
        """Every action of a run that the filter shows, then what changes. Raises NotFound, InvalidArgument."""
        key = run_key(message.run_id)
        tree = Tree(matcher(message.filter))
        run, spec = await self._ledger.run(key)

        def enriched(node: Node) -> run_definition_pb2.EnrichedAction:
            return run_definition_pb2.EnrichedAction(
                action=views.light(node.action, run, spec, org=message.run_id.org),
                meets_filter=node.visible,
                children_phase_counts={int(phase): count for phase, count in node.counts.items() if count},
            )

        async with aclosing(self._ledger.watch(lambda: self._whole(key), WholeRun(key))) as updates:
            async for changed, first in updates:
                for page in _pages(tree.update(changed), always=first):
                    yield run_service_pb2.WatchActionsResponse(enriched_actions=map(enriched, page))

    async def _row(self, root: Action, at_hand: dict[RunKey, Run], scope: RunScope) -> run_definition_pb2.Run:
        run = at_hand.get(root.key.run_key)
        if run is not None:
            return views.run(root, run, run_pb2.RunSpec.FromString(run.run_spec), org=scope.org)
        run, spec = await self._ledger.run(root.key.run_key)
        return views.run(root, run, spec, org=scope.org)

    async def _whole(self, key: RunKey) -> list[Action]:
        """Every action of a run, read in pieces so that other readers get their turn."""
        found: list[Action] = []
        while True:
            after = found[-1].key.name if found else ""
            piece = await self._ledger.read(lambda after=after: store.actions_after(key, after, _READ))  # type: ignore[misc]
            found += piece
            if len(piece) < _READ:
                return found


def _pages(rows: Sequence[T], *, always: bool) -> Iterator[Sequence[T]]:
    """``rows`` in messages; one without rows when there are none and something is to be told ``always``."""
    if always and not rows:
        yield rows
    for start in range(0, len(rows), _MESSAGE):
        yield rows[start : start + _MESSAGE]
