"""A ledger and a cluster, with mirrors between them that come and go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from flyteidl2.core import types_pb2
from flyteidl2.workflow import run_definition_pb2

from flyte_unified.actions.mirror import Mirror
from flyte_unified.artifacts.elsewhere import ProducedElsewhere
from flyte_unified.core.errors import NotLeader
from flyte_unified.core.ids import ActionKey
from flyte_unified.core.names import order_name
from flyte_unified.core.phases import Phase
from flyte_unified.kube.client import Kube
from flyte_unified.kube.errors import Exists
from flyte_unified.kube.informer import Informer
from flyte_unified.kube.kinds import CRDS, TASK_ACTIONS, Object
from flyte_unified.ledger.api import Action, ActionType, Ledger, Move, first_record
from tests.unit.executor.world import ROOT, World, world_in

CRD = Path(__file__).parents[3] / "config" / "kubernetes" / "base" / "taskactions.yaml"
_PATIENCE = 20.0


async def define(kube: Kube) -> None:
    """Has the cluster serve TaskActions."""
    definition = yaml.safe_load(CRD.read_text())
    with suppress(Exists):
        await kube.create(CRDS, definition)
    served = asyncio.Event()

    def on_event(change: str, obj: Object) -> None:
        conditions = (obj.get("status") or {}).get("conditions") or []
        if any(condition["type"] == "Established" and condition["status"] == "True" for condition in conditions):
            served.set()

    name = definition["metadata"]["name"]
    informer = Informer(kube, CRDS, fields=f"metadata.name={name}", on_event=on_event)
    await informer.start()
    try:
        await asyncio.wait_for(served.wait(), _PATIENCE)
    finally:
        await informer.stop()


@dataclass
class Scene:
    """``handed_out`` are the actions that mirrors gave to whoever carries them out, in their latest states."""

    world: World
    kube: Kube
    namespace: str
    orders: Informer
    handed_out: dict[ActionKey, Action] = field(default_factory=dict)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    deposed: bool = False
    """Whether a mirror said that its term is over"""
    versions: dict[str, list[Object]] = field(default_factory=dict)
    """Each state that a watch told of each order"""

    @property
    def ledger(self) -> Ledger:
        return self.world.ledger

    @asynccontextmanager
    async def mirror(self, **options: Any) -> AsyncIterator[Mirror]:
        """One from its start to its crash."""
        mirror = Mirror(
            ledger=self.ledger,
            productions=ProducedElsewhere(produced=self.world.produced, ledger=self.ledger, store=self.world.store),
            kube=self.kube,
            store=self.world.store,
            clock=self.world.clock,
            namespace=lambda _: self.namespace,
            watched=self.namespace,
            epoch=options.pop("epoch", None),
            **options,
        )
        reader = asyncio.create_task(self._read(mirror), name="reader")
        try:
            yield mirror
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            await mirror.close()

    async def _read(self, mirror: Mirror) -> None:
        changed = await mirror.start()
        try:
            while True:
                self.handed_out |= {action.key: action for action in changed}
                await self.tell()
                if not (changed := await mirror.next()):
                    return
        except NotLeader:
            self.deposed = True
            await self.tell()

    async def tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def until(self, holds: Callable[[], object]) -> None:
        """Returns when it does; looks again whenever something changed in the cluster or was handed out."""
        async with asyncio.timeout(_PATIENCE), self.changed:
            await self.changed.wait_for(lambda: bool(holds()))

    async def is_handed_out(self, key: ActionKey = ROOT, phase: Phase = Phase.QUEUED) -> None:
        await self.until(lambda: key in self.handed_out and self.handed_out[key].phase is phase)

    def order(self, key: ActionKey = ROOT) -> Object | None:
        return self.orders.get(order_name(key), self.namespace)

    async def ordered(self, key: ActionKey = ROOT) -> Object:
        """The order, when there is one that is not about to end."""
        await self.until(lambda: (order := self.order(key)) and "deletionTimestamp" not in order["metadata"])
        return self.order(key) or {}

    def reason(self, key: ActionKey = ROOT) -> str:
        """Of the condition Progressing."""
        conditions = ((self.order(key) or {}).get("status") or {}).get("conditions") or []
        return next((str(condition["reason"]) for condition in conditions if condition["type"] == "Progressing"), "")

    async def says(self, reason: str, key: ActionKey = ROOT) -> Object:
        await self.until(lambda: self.reason(key) == reason)
        return self.order(key) or {}

    async def write(self, status: Object, key: ActionKey = ROOT) -> None:
        """As another executor would."""
        await self.kube.patch(TASK_ACTIONS, order_name(key), {"status": status}, namespace=self.namespace, subresource="status")

    async def move(self, *phases: Phase, key: ActionKey = ROOT, **fields: Any) -> None:
        for phase in phases:
            await self.ledger.move(key, Move(to=phase, **fields))

    async def condition(self, name: str) -> ActionKey:
        key = ROOT.sibling(name)
        spec = run_definition_pb2.ConditionAction(name=name, type=types_pb2.LiteralType(simple=types_pb2.BOOLEAN))
        now = self.world.clock.now()
        new = Action(
            key=key,
            parent=ROOT.name,
            depth=0,
            action_type=ActionType.CONDITION,
            phase=Phase.PAUSED,
            created_at=now,
            updated_at=now,
            short_name=name,
            spec=spec.SerializeToString(),
            output_base=f"{self.world.base}/r1",
            record=first_record(Phase.PAUSED, at=now).SerializeToString(),
        )
        await self.ledger.enqueue(new)
        return key

    async def lose(self, key: ActionKey = ROOT) -> None:
        """Without a word to those who hold a finalizer."""
        name = order_name(key)
        await self.kube.patch(TASK_ACTIONS, name, {"metadata": {"finalizers": None}}, namespace=self.namespace)
        await self.kube.delete(TASK_ACTIONS, name, namespace=self.namespace)


@asynccontextmanager
async def scene_in(directory: Path, *, kube: Kube, namespace: str) -> AsyncIterator[Scene]:
    await define(kube)
    tellers: set[asyncio.Task[None]] = set()

    def on_event(change: str, obj: Object) -> None:
        scene.versions.setdefault(obj["metadata"]["name"], []).append(obj)
        teller = asyncio.create_task(scene.tell())
        tellers.add(teller)
        teller.add_done_callback(tellers.discard)

    orders = Informer(kube, TASK_ACTIONS, namespace=namespace, on_event=on_event)
    async with world_in(directory) as world:
        scene = Scene(world, kube, namespace, orders)
        await orders.start()
        try:
            yield scene
        finally:
            await orders.stop()
            await asyncio.gather(*tellers)
