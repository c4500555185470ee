"""The port to where the executor's actions come from: the ledger's own rows, or a cluster's work orders.

Database first: an action is in the ledger before it is in any queue, and whatever a queue loses it finds there again.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Protocol

from flyte_unified.ledger.api import Action, Everything, Ledger, Subscription


class WorkQueue(Protocol):
    """Actions to carry out. May tell the same state more than once, and skip states that another has followed."""

    async def start(self) -> list[Action]:
        """Begins: the live actions whose work may begin, or has begun."""

    async def next(self) -> list[Action]:
        """Waits for more actions, or for what became of some; empty when nothing more will come."""

    async def close(self) -> None:
        """Ends; ``next`` answers no more."""


class Rows:
    """The ledger's rows are the queue."""

    def __init__(self, *, ledger: Ledger) -> None:
        self._ledger = ledger
        self._open = ExitStack()
        self._changes = Subscription()

    async def start(self) -> list[Action]:
        self._changes = self._open.enter_context(self._ledger.changes.subscribe(Everything()))
        return await self._ledger.live()

    async def next(self) -> list[Action]:
        return await self._changes.next()

    async def close(self) -> None:
        self._changes.close()
        self._open.close()
