"""The cluster's WorkQueue: each live action has its TaskAction, and is handed out when it has.

Database first, resource after. What the ledger says is written to the resource, the latest state only; what others write on a
resource comes back through one informer as moves of the ledger, where they are legal, and is overwritten where they are not.
Nothing here is remembered: after a restart, or on another server, rows and resources are compared and made equal. So an API
server that is away holds nobody up but those who wait for their resource.

A successful action costs its creation, a status for each phase that lasts, one patch that lets it go, and, when its time to
live is over, its deletion.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

import structlog
from flyteidl2.core import execution_pb2
from flyteidl2.workflow import run_definition_pb2

from flyte_unified.actions import resource
from flyte_unified.actions.desk import Desk
from flyte_unified.actions.orders import Grave, Orders
from flyte_unified.actions.resource import Do, Order, Patch, Tell
from flyte_unified.core.clock import SECOND, Clock, Micros, timestamp
from flyte_unified.core.errors import NotFound, NotLeader, Unavailable
from flyte_unified.core.ids import ActionKey
from flyte_unified.core.names import order_name
from flyte_unified.core.phases import Phase
from flyte_unified.kube.client import Kube
from flyte_unified.kube.errors import Forbidden, Invalid, Missing
from flyte_unified.kube.kinds import Object
from flyte_unified.ledger.api import Action, ActionType, Beside, Everything, Ledger, Move, Productions, Retry, Subscription
from flyte_unified.storage.api import DataStore

_log = structlog.get_logger(__name__)

_WIDTH = 64
"""Resources that are written at one time."""
_BURIALS = 8
"""Resources that are deleted at one time: nobody waits for it."""
_PATIENCE = 3
"""Foreign statuses of one row that are overwritten without a pause."""


@dataclass(slots=True)
class _Entry:
    """An action and its resource, as far as either is known."""

    row: Action | None = None
    order: Order | None = None
    handed_out: bool = False
    judged: str = ""
    """The version of the resource whose status was taken to the ledger"""
    overwritten: int = 0
    refused: bool = False
    """The API server would not have it, which the action's events say"""
    buried: bool = False
    children: set[ActionKey] = field(default_factory=set)
    """Those that wait for this one's resource"""


class Mirror:
    """A leader's WorkQueue for one term; ``epoch`` is the term's, None where nobody else can lead.

    ``namespace`` says where an action's resource is; ``watched`` is that namespace if it is one for all, else empty.
    ``ttl``: for how many seconds the resource of an ended action is kept. ``resync`` is the informer's, in seconds.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        productions: Productions,
        kube: Kube,
        store: DataStore,
        clock: Clock,
        namespace: Callable[[ActionKey], str],
        watched: str,
        epoch: int | None,
        ttl: float = 3600.0,
        resync: float = 600.0,
    ) -> None:
        self._ledger = ledger
        self._productions = productions
        self._clock = clock
        self._namespace = namespace
        self._epoch = epoch
        self._ttl = ttl
        self._orders = Orders(kube=kube, ledger=ledger, store=store, namespace=namespace, watched=watched)
        self._informer = self._orders.informer(self._heard, resync=resync)
        self._entries: dict[ActionKey, _Entry] = {}
        self._foreign: set[str] = set()
        self._desk = Desk(self._advance, name="orders", width=_WIDTH)
        self._graves = Desk(self._bury, name="graves", width=_BURIALS)
        self._out = Subscription()
        self._open = ExitStack()
        self._pump: asyncio.Task[None] | None = None
        self._failure: NotLeader | None = None

    async def start(self) -> list[Action]:
        """Live actions that have their resource, or whose work has begun. Waits for the API server. Raises KubeError."""
        changes = self._open.enter_context(self._ledger.changes.subscribe(Everything()))
        for row in await self._ledger.live():
            self._changed(row)
        await self._informer.start()
        async for order in self._orders.terminated():
            self._found_terminated(order)
        self._pump = asyncio.create_task(self._follow(changes), name="mirror")
        for key, entry in self._entries.items():
            self._hand_out(entry)
            self._poke(key)
        return self._out.take()

    async def next(self) -> list[Action]:
        """Raises NotLeader when another leads by now."""
        changed = await self._out.next()
        if self._failure is not None:
            raise self._failure
        return changed

    async def close(self) -> None:
        self._out.close()
        self._open.close()
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
        await self._informer.stop()
        await self._desk.close()
        await self._graves.close()

    def owner(self, key: ActionKey) -> Object:
        """The ownerReference for what works for this action. Raises Unavailable while it has no resource."""
        entry = self._entries.get(key)
        if entry is None or entry.order is None:
            raise Unavailable(f"{key} has no TaskAction yet")
        return entry.order.reference(controller=True)

    # What is heard

    async def _follow(self, changes: Subscription) -> None:
        """The ledger's changes."""
        while changed := await changes.next():
            for action in changed:
                self._changed(action)
        self._out.close()

    def _changed(self, action: Action) -> None:
        entry = self._entries.get(action.key)
        if entry is None:
            if action.terminal or action.action_type is ActionType.TRACE:
                return
            entry = self._entries[action.key] = _Entry()
        if entry.row is not None and entry.row.version >= action.version:
            return
        entry.row = action
        entry.overwritten = 0
        self._hand_out(entry)
        self._poke(action.key)

    def _heard(self, change: str, order: Order) -> None:
        """The informer's events."""
        if order.uid in self._foreign or order.name != order_name(order.key) or order.namespace != self._namespace(order.key):
            self._leave_alone(change, order)
        elif change == "DELETED":
            self._lost(order)
        else:
            self._see(order.key, self._entries.setdefault(order.key, _Entry()), order)

    def _see(self, key: ActionKey, entry: _Entry, order: Order) -> None:
        """As it is now, unless that is known: then it is an echo."""
        if entry.order is not None and not order.newer_than(entry.order):
            return
        entry.order = order
        if order.completed and entry.row is not None and entry.row.terminal:
            self._let_go(entry, order)
            if self._informer.get(order.name, order.namespace) is None:  # then its end would not be told either
                self._entries.pop(key, None)
            return
        for child in entry.children:
            self._poke(child)
        entry.children.clear()
        self._hand_out(entry)
        self._poke(key)

    def _lost(self, order: Order) -> None:
        """It is gone, or was marked as terminated: those are not followed."""
        entry = self._entries.get(order.key)
        if entry is None or entry.order is None or entry.order.uid != order.uid:
            return
        if entry.row is not None and entry.row.terminal:
            self._let_go(entry, order)
            del self._entries[order.key]
            return
        entry.order = None
        self._poke(order.key)

    def _leave_alone(self, change: str, order: Order) -> None:
        if change == "DELETED":
            self._foreign.discard(order.uid)
        elif order.uid not in self._foreign:
            self._foreign.add(order.uid)
            _log.info("a TaskAction of somebody else is left alone", namespace=order.namespace, name=order.name)

    def _found_terminated(self, order: Order) -> None:
        """What another term left to be collected. The label alone does not end an action that lives."""
        if order.name != order_name(order.key) or order.namespace != self._namespace(order.key):
            return
        if (entry := self._entries.get(order.key)) is not None:
            self._see(order.key, entry, order)
            return
        completed = resource.completed_at(order)
        self._keep(Grave(order.namespace, order.name, order.uid, order.key), completed, order.told.phase)

    def _poke(self, key: ActionKey) -> None:
        """Nothing is done before everything is known: an order whose parent's is not may seem an orphan."""
        if self._pump is not None:
            self._desk.poke(key)

    # What is told

    def _hand_out(self, entry: _Entry) -> None:
        if entry.row is not None and (entry.handed_out or (_is_ready(entry) and not entry.row.terminal)):
            entry.handed_out = True
            self._out.put(entry.row)

    async def _advance(self, key: ActionKey) -> None:
        try:
            while (entry := self._entries.get(key)) is not None and await self._step(key, entry):
                pass
        except NotLeader as error:
            self._failure = error
            self._out.close()

    async def _step(self, key: ActionKey, entry: _Entry) -> bool:
        """Whether there may be another."""
        if entry.row is None:
            await self._look_up(key, entry)
            return entry.row is not None
        row, order = entry.row, entry.order
        above = self._entries.get(key.sibling(row.parent)) if row.parent is not None else None
        parent = above.order if above is not None else None
        judged = order is not None and entry.judged == order.version
        step = resource.next_step(row, order, parent=parent.uid if parent is not None else "", judged=judged)
        if step is Do.CREATE:
            if above is not None and parent is None and not (above.row is not None and above.row.terminal):
                above.children.add(key)
                return False
            await self._create(entry, row, parent)
        elif order is None or step is Do.REST:
            if order is None:
                self._entries.pop(key, None)
            return False
        elif step is Do.ABORT:
            reason = f"its TaskAction {order.namespace}/{order.name} was deleted"
            await self._move(entry, row, Move(to=Phase.ABORTED, reason=reason))
        elif isinstance(step, Tell):
            steps, beside = await self._productions.of(row, step.steps)
            await self._move(entry, row, *steps, beside=beside)
            entry.judged = order.version
        elif isinstance(step, Patch):
            return await self._write(key, entry, order, step)
        return True

    async def _look_up(self, key: ActionKey, entry: _Entry) -> None:
        try:
            row = await self._ledger.action(key)
        except NotFound:
            self._entries.pop(key, None)
            if entry.order is not None:
                self._leave_alone("ADDED", entry.order)
            return
        self._changed(row)

    async def _create(self, entry: _Entry, row: Action, parent: Order | None) -> None:
        try:
            order = await self._orders.create(row, parent)
        except Invalid as error:
            refusal = execution_pb2.ExecutionError(
                code="TaskActionRefused", message=error.message, kind=execution_pb2.ExecutionError.SYSTEM
            )
            await self._move(entry, row, Move(to=Phase.FAILED, attempt=row.attempt, error=refusal))
        except (Forbidden, Missing) as error:
            if not entry.refused:
                entry.refused = True
                await self._note(entry, row, f"its TaskAction can't be created: {error.message}")
            raise
        else:
            self._foreign.discard(order.uid)
            self._see(row.key, entry, order)

    async def _write(self, key: ActionKey, entry: _Entry, order: Order, patch: Patch) -> bool:
        """Whether another step may follow at once. It may not where somebody, or a definition without our fields, undoes it."""
        try:
            after = await self._orders.write(order, patch)
        except Missing:  # its end is told later, or was told before its beginning
            if entry.order is order:
                entry.order = None
            raise
        if not order.ours:
            entry.overwritten += 1
        if after.deleting and not after.finalizers:
            self._lost(after)
        elif entry.order is not None:
            self._see(key, entry, after)
        if order.ours or entry.overwritten <= _PATIENCE:
            return True
        self._desk.rest(key, entry.overwritten)
        return False

    async def _move(self, entry: _Entry, row: Action, *steps: Move | Retry, beside: Beside | None = None) -> None:
        changed = await self._ledger.move(row.key, *steps, epoch=self._epoch, known=row, beside=beside)
        self._changed(changed[0] if changed else await self._ledger.action(row.key))

    async def _note(self, entry: _Entry, row: Action, message: str) -> None:
        """For people, who see the action wait."""
        details = run_definition_pb2.ActionAttempt()
        details.cluster_events.add(occurred_at=timestamp(self._clock.now()), message=message)
        await self._move(entry, row, Move(to=row.phase, attempt=row.attempt, details=details))

    # The end

    def _let_go(self, entry: _Entry, order: Order) -> None:
        if entry.row is not None and not (entry.buried or order.deleting):
            entry.buried = True
            self._keep(Grave(order.namespace, order.name, order.uid), entry.row.ended_at, entry.row.phase)

    def _keep(self, grave: Grave, ended: Micros | None, phase: Phase) -> None:
        """Until its time is over; what was aborted has none."""
        now = self._clock.now()
        due = 0.0 if phase is Phase.ABORTED else self._ttl - (now - (ended if ended is not None else now)) / SECOND
        self._graves.later(grave, due)

    async def _bury(self, grave: Grave) -> None:
        if grave.stranger is not None:
            try:
                row = await self._ledger.action(grave.stranger)
            except NotFound:
                return
            if not row.terminal:
                return
        await self._orders.remove(grave)


def _is_ready(entry: _Entry) -> bool:
    """Work may begin when there is what will own it; what has begun goes on in any case."""
    if entry.row is None:
        return False
    has_order = entry.order is not None and not entry.order.deleting
    return has_order or (entry.row.phase not in (Phase.QUEUED, Phase.PAUSED) or entry.row.attempt > 1)
