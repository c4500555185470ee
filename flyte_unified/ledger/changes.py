"""Who is told what changed.

A subscriber names a scope and gets, at its own pace, the latest state of every action of that scope that changed since it last
looked. States that nobody looked at in time are overwritten by later ones (coalesced), never dropped: a slow watcher holds at
most one entry an action. Everything happens on the event loop, in the order of commits.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from flyte_unified.core.ids import ActionKey, RunKey
from flyte_unified.ledger.model import Action, ActionType


@dataclass(frozen=True, slots=True)
class OneAction:
    """Changes of one action."""

    key: ActionKey


@dataclass(frozen=True, slots=True)
class Children:
    """Changes of the direct children of one action, and of itself."""

    parent: ActionKey


@dataclass(frozen=True, slots=True)
class WholeRun:
    """Changes of every action of a run."""

    run: RunKey


@dataclass(frozen=True, slots=True)
class Roots:
    """Changes of the root actions of a project and domain; of all of them when both are empty. Those of tracked runs apart."""

    project: str = ""
    domain: str = ""
    tracked: bool = False


@dataclass(frozen=True, slots=True)
class Conditions:
    """Changes of all conditions."""


@dataclass(frozen=True, slots=True)
class Everything:
    """Every change of what is carried out here: of no tracked run."""


_TOLD = 4096
"""Latest changes of which the versions are remembered."""

Scope = OneAction | Children | WholeRun | Roots | Conditions | Everything


class Subscription:
    """What changed and was not looked at yet. For one reader."""

    def __init__(self) -> None:
        self._pending: dict[ActionKey, Action] = {}
        self._changed = asyncio.Event()
        self._closed = False

    def put(self, action: Action) -> None:
        known = self._pending.get(action.key)
        if known is None or known.version < action.version:
            self._pending[action.key] = action
            self._changed.set()

    def close(self) -> None:
        """Ends ``next`` with an empty list, for good."""
        self._closed = True
        self._changed.set()

    def take(self) -> list[Action]:
        """What changed since the last look, without waiting."""
        changed, self._pending = list(self._pending.values()), {}
        if not self._closed:
            self._changed.clear()
        return changed

    async def next(self) -> list[Action]:
        """Waits for a change. An empty list means that the server is stopping."""
        await self._changed.wait()
        return self.take()


class Changes:
    """Subscriptions by scope.

    What another replica changed comes later than what this one did, as does its news of the same action: what is not newer
    than what was told already is not told again.
    """

    def __init__(self) -> None:
        self._told: OrderedDict[ActionKey, int] = OrderedDict()
        self._subscriptions: defaultdict[Scope, set[Subscription]] = defaultdict(set)
        self._closed = False

    @contextmanager
    def subscribe(self, *scopes: Scope) -> Iterator[Subscription]:
        """Changes from now on. Subscribe first, then read the state: what falls between is seen twice, never missed."""
        subscription = Subscription()
        if self._closed:
            subscription.close()
        for scope in scopes:
            self._subscriptions[scope].add(subscription)
        try:
            yield subscription
        finally:
            for scope in scopes:
                self._subscriptions[scope].discard(subscription)
                if not self._subscriptions[scope]:
                    del self._subscriptions[scope]

    def publish(self, actions: Iterable[Action]) -> None:
        for action in actions:
            if self._told.get(action.key, 0) >= action.version:
                continue
            self._told[action.key] = action.version
            self._told.move_to_end(action.key)
            if len(self._told) > _TOLD:
                self._told.popitem(last=False)
            for scope in _scopes(action):
                for subscription in self._subscriptions.get(scope, ()):
                    subscription.put(action)

    def close(self) -> None:
        """Ends every subscription: the server is stopping."""
        self._closed = True
        for subscriptions in self._subscriptions.values():
            for subscription in subscriptions:
                subscription.close()


def _scopes(action: Action) -> Iterator[Scope]:
    key = action.key
    if not action.tracked:
        yield Everything()
    yield OneAction(key)
    yield Children(key)
    yield WholeRun(key.run_key)
    if action.action_type is ActionType.CONDITION:
        yield Conditions()
    if action.parent is not None:
        yield Children(key.sibling(action.parent))
    else:
        yield Roots(key.project, key.domain, action.tracked)
        yield Roots(tracked=action.tracked)
