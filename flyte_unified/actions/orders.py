"""TaskActions in an API server: making them, changing them, removing them when their time is over."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from typing import NamedTuple

from flyte_unified.actions import resource
from flyte_unified.actions.resource import Order, Patch
from flyte_unified.core.ids import ActionKey
from flyte_unified.kube.client import Kube
from flyte_unified.kube.errors import Conflict, Exists, Missing
from flyte_unified.kube.informer import Informer
from flyte_unified.kube.kinds import TASK_ACTIONS, Object
from flyte_unified.ledger.api import Action, Ledger
from flyte_unified.storage.api import DataStore


class Grave(NamedTuple):
    """An object whose time will be over. ``stranger``: the action that it names, if nobody looked yet whether it is ours."""

    namespace: str
    name: str
    uid: str
    stranger: ActionKey | None = None


class Orders:
    """``namespace`` says where an action's order is; ``watched`` is the one namespace for all, or empty."""

    def __init__(
        self, *, kube: Kube, ledger: Ledger, store: DataStore, namespace: Callable[[ActionKey], str], watched: str
    ) -> None:
        self._kube = kube
        self._ledger = ledger
        self._store = store
        self._namespace = namespace
        self._watched = watched

    def informer(self, on_event: Callable[[str, Order], None], *, resync: float) -> Informer:
        """Over those that are not over: what is marked as terminated costs no memory any more."""
        return Informer(
            self._kube,
            TASK_ACTIONS,
            namespace=self._watched,
            labels=f"{resource.TERMINATED}!=terminated",
            on_event=lambda change, obj: on_event(change, obj["order"]),
            resync=resync,
            trim=_trimmed,
        )

    async def terminated(self) -> AsyncGenerator[Order]:
        """Those that only wait for their end."""
        selected = f"{resource.TERMINATED}=terminated"
        async with aclosing(self._kube.pages(TASK_ACTIONS, namespace=self._watched, labels=selected)) as pages:
            async for items, _ in pages:
                for obj in items:
                    yield resource.read_order(obj)

    async def create(self, action: Action, parent: Order | None) -> Order:
        """The action's order, made now or before. What is too large for it is stored first."""
        _, run_spec = await self._ledger.run(action.key.run_key)
        task = await self._ledger.spec(action.spec_digest) if action.spec_digest else None
        namespace = self._namespace(action.key)
        obj, outside = resource.new_order(action, run_spec, task, namespace=namespace, parent=parent)
        for uri, raw in outside.items():
            if await self._store.head(uri) is None:
                await self._store.put(uri, raw)
        try:
            made = await self._kube.create(TASK_ACTIONS, obj)
        except Exists:
            made = await self._kube.get(TASK_ACTIONS, obj["metadata"]["name"], namespace=namespace)
        return resource.read_order(made)

    async def write(self, order: Order, patch: Patch) -> Order:
        """The order after it. Raises Conflict if it is another by now."""
        changed = await self._kube.patch(
            TASK_ACTIONS, order.name, patch.body, namespace=order.namespace, subresource=patch.subresource
        )
        return resource.read_order(changed)

    async def remove(self, grave: Grave) -> None:
        """With whatever it owns. Another object of its name stays."""
        with suppress(Missing, Conflict):
            await self._kube.delete(TASK_ACTIONS, grave.name, namespace=grave.namespace, uid=grave.uid)


def _trimmed(obj: Object) -> Object:
    metadata = {name: obj["metadata"].get(name, "") for name in ("namespace", "name")}
    return {"metadata": metadata, "order": resource.read_order(obj)}
