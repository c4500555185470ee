"""Who is told what became of apps: the latest of each, to every watcher at its own pace."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from flyte_unified.apps.model import App, AppKey


class Change(NamedTuple):
    """``app`` is None after a deletion."""

    key: AppKey
    app: App | None


class Subscription:
    """What changed and was not looked at yet. For one reader."""

    def __init__(self) -> None:
        self._pending: dict[AppKey, App | None] = {}
        self._changed = asyncio.Event()
        self._closed = False

    def put(self, change: Change) -> None:
        known = self._pending.get(change.key)
        if change.app is None or known is None or known.version < change.app.version:
            self._pending[change.key] = change.app
            self._changed.set()

    def close(self) -> None:
        self._closed = True
        self._changed.set()

    async def next(self) -> list[Change]:
        """Waits for a change. An empty list means that the server is stopping."""
        await self._changed.wait()
        changed, self._pending = [Change(key, app) for key, app in self._pending.items()], {}
        if not self._closed:
            self._changed.clear()
        return changed


class Changes:
    """Every change of every app, after its commit."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()
        self._closed = False

    @contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """Subscribe first, then read: what falls between is seen twice, never missed."""
        subscription = Subscription()
        if self._closed:
            subscription.close()
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    def publish(self, change: Change) -> None:
        for subscription in self._subscriptions:
            subscription.put(change)

    def close(self) -> None:
        """Ends every subscription: the server is stopping."""
        self._closed = True
        for subscription in self._subscriptions:
            subscription.close()
