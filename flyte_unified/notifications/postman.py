"""Who sends what is owed: one timer over the rows that are due, for the server that leads.

A row is removed only after its receiver said yes, so a kill in between sends it again, under the same key. What fails is tried
again with growing waits, until ``Patience`` is over; then the row stays with its error, for people. After a time it goes too,
when a leader begins or another is given up: so there are never many, and no timer is for them.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import structlog

from flyte_unified.core.clock import SECOND, Clock, Micros
from flyte_unified.core.errors import FailedPrecondition, FlyteUnifiedError, NotFound
from flyte_unified.core.ids import ActionKey
from flyte_unified.core.phases import Phase
from flyte_unified.db.api import Database
from flyte_unified.ledger.api import Action, Conditions, Ledger, Roots
from flyte_unified.net.webhooks import Later
from flyte_unified.notifications import store
from flyte_unified.notifications.model import Delivery
from flyte_unified.notifications.outgoing import Outgoing

_log = structlog.get_logger(__name__)

_AT_ONCE = 16
"""Deliveries under way"""
_FIRST_WAIT = 1.0
_LOOK = 30.0
"""Seconds after which the clock is looked at: no timer tells that it was set, or that the machine slept."""
_PAUSE = 1.0
"""Seconds before the database is asked again that gave no answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Seconds: the longest wait between two tries, how long a delivery is tried, and how long one is kept after that."""

    longest: float
    total: float
    kept: float

    def next(self, each: Delivery, now: Micros, *, least: float = 0.0) -> Micros | None:
        """When ``each`` is tried again after it failed, in ``least`` seconds or later; None when it is given up."""
        wait = max(least, min(self.longest, _FIRST_WAIT * 2.0 ** min(each.tries, 32)))
        due = Micros(now + round(wait * SECOND))
        return due if due <= (each.ready_at or now) + round(self.total * SECOND) else None

    def forgotten(self, now: Micros) -> Micros:
        """What was ready before, and was given up, is kept no more."""
        return Micros(now - round((self.total + self.kept) * SECOND))


class Postman:
    """``start`` and ``close`` are for a term of who leads."""

    def __init__(
        self,
        *,
        database: Database,
        ledger: Ledger,
        outgoing: Outgoing,
        patience: Patience,
        clock: Clock,
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._outgoing = outgoing
        self._patience = patience
        self._clock = clock
        self._under_way: dict[tuple[ActionKey, int], asyncio.Task[None]] = {}
        self._ended: set[ActionKey | None] = set()
        """Of which it is to be settled what is owed; None: of all"""
        self._stale = False
        """Whether there may be rows that are kept no more."""
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.delivered = 0
        self.given_up = 0

    async def start(self) -> None:
        """Goes on where the last one ended."""
        if self._tasks:
            return
        self._ended = {None}
        self._stale = True
        self._tasks = [
            asyncio.create_task(self._hear(), name="notifications' ears"),
            asyncio.create_task(self._run(), name="notifications"),
        ]

    async def close(self) -> None:
        """At once. A delivery under way is begun again by the next one."""
        tasks = [*self._tasks, *self._under_way.values()]
        self._tasks = []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._outgoing.close()

    async def _hear(self) -> None:
        """Runs that end, and conditions that begin."""
        with self._ledger.changes.subscribe(Roots(), Conditions()) as changes:
            while changed := await changes.next():
                for action in changed:
                    if action.parent is None and action.terminal and await self._asks(action):
                        self._ended.add(action.key)
                        self._wake.set()
                    elif action.phase is Phase.PAUSED:  # what is owed of it is due already
                        self._wake.set()

    async def _asks(self, root: Action) -> bool:
        try:
            _, spec = await self._ledger.run(root.key.run_key)
        except Exception as error:  # then the rows will tell
            _log.warning("a run that ended could not be read", run=str(root.key.run_key), error=str(error))
            return True
        return spec.WhichOneof("notification_settings") is not None

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                wait = await self._look()
            except Exception as error:
                _log.warning("deliveries could not be read; they are read again", error=str(error))
                wait = _PAUSE
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()

    async def _look(self) -> float | None:
        """Begins what is due; seconds until something is, None if a word will come first."""
        while self._ended:
            key = next(iter(self._ended))
            await self._database.write(partial(store.settle, key, _wanted, now=self._clock.now()))
            self._ended.discard(key)
        if self._stale:
            await self._database.write(partial(store.forget, self._patience.forgotten(self._clock.now())))
            self._stale = False
        before = frozenset(self._under_way)
        for each in await self._database.read(lambda: store.next_due(2 * _AT_ONCE)):
            place = (each.action, each.number)
            if place in before:  # its row may be older than what came of it
                continue
            if len(self._under_way) >= _AT_ONCE:
                return None
            if (wait := ((each.due_at or 0) - self._clock.now()) / SECOND) > 0:
                return min(wait, _LOOK)
            task = asyncio.create_task(self._deliver(each), name=f"notification {each.id}")
            self._under_way[place] = task
            task.add_done_callback(partial(self._over, place))
        return None

    def _over(self, place: tuple[ActionKey, int], _: asyncio.Task[None]) -> None:
        del self._under_way[place]
        self._wake.set()

    async def _deliver(self, each: Delivery) -> None:
        """One try, and a note of what came of it."""
        told = {"delivery": each.id, "action": str(each.action), "channel": str(each.channel)}
        try:
            try:
                action = await self._ledger.action(each.action)
                if _stands(action):
                    await self._outgoing.send(each, action)
            except Exception as error:  # also our own mistakes: tried for ever, they would keep others waiting
                await self._failed(each, error, told)
            else:
                await self._database.write(lambda: store.remove(each))
                self.delivered += 1
                _log.info("a notification was delivered", **told)
        except Exception:
            _log.exception("what came of a notification could not be noted; it is tried again", **told)
            await asyncio.sleep(_PAUSE)

    async def _failed(self, each: Delivery, error: Exception, told: dict[str, str]) -> None:
        final = isinstance(error, FailedPrecondition | NotFound)
        least = error.seconds if isinstance(error, Later) else 0.0
        due = None if final else self._patience.next(each, self._clock.now(), least=least)
        reason = error.message if isinstance(error, FlyteUnifiedError) else type(error).__name__
        accident = None if isinstance(error, FlyteUnifiedError) else error
        await self._database.write(lambda: store.change(each, due_at=due, tries=each.tries + 1, error=reason))
        if due is None:
            self.given_up += 1
            self._stale = True
            _log.error("a notification could not be delivered, and is given up", error=reason, exc_info=accident, **told)
        else:
            _log.warning("a notification could not be delivered; it is tried again", error=reason, exc_info=accident, **told)


def _wanted(each: Delivery, phase: Phase) -> bool:
    return phase in each.rule_message.on_phases


def _stands(action: Action) -> bool:
    """Whether there is still something to tell: who was signalled already waits for nobody."""
    return action.parent is None or action.phase is Phase.PAUSED
