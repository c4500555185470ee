"""Reservations outlive a database that was away."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import cast

import pytest
from flyteidl2.core import tasks_pb2
from flyteidl2.task import run_pb2, task_definition_pb2

from flyte_unified.core.errors import Unavailable
from flyte_unified.core.ids import ActionKey, RunKey
from flyte_unified.executor.caching import HEARTBEAT, Caching, Found
from flyte_unified.executor.reconcile import Cached
from flyte_unified.launchers.api import WorkId
from flyte_unified.ledger.api import Ledger
from flyte_unified.storage.api import DataStore
from tests.unit.ledger import births

pytestmark = pytest.mark.virtual_time

ACTION = replace(births.action("c"), cache_key="k")


class Catalog:
    """One key without a result. ``failing`` is raised by what is asked next."""

    def __init__(self, holder: str = "") -> None:
        self.holder = holder
        self.failing: list[Exception] = []
        self.beats = 0
        self.released: list[str] = []
        self.free = asyncio.Event()

    async def lookup(self, key: str, *, max_age: float | None) -> Found | None:
        return None

    async def store(self, key: str, output_uri: str, *, source: ActionKey, attempt: int, overwrite: bool) -> None: ...

    async def reserve(self, key: str, owner: str, *, heartbeat: float) -> str:
        self._fail()
        self.beats += 1
        return self.holder or owner

    async def release(self, key: str, owner: str) -> None:
        self._fail()
        self.released.append(owner)

    async def freed(self, key: str) -> None:
        self._fail()
        await self.free.wait()

    def scoped(self, key: str, scope: int, *, project: str, domain: str) -> str:
        return key

    def _fail(self) -> None:
        if self.failing:
            raise self.failing.pop()


class Rows:
    """The ledger, as far as caching asks it."""

    async def spec(self, digest: str) -> task_definition_pb2.TaskSpec:
        spec = task_definition_pb2.TaskSpec()
        spec.task_template.metadata.CopyFrom(tasks_pb2.TaskMetadata(cache_serializable=True))
        return spec

    async def run(self, key: RunKey) -> tuple[None, run_pb2.RunSpec]:
        return None, run_pb2.RunSpec()


def caching_of(catalog: Catalog) -> Caching:
    return Caching(catalog=catalog, ledger=cast("Ledger", Rows()), store=cast("DataStore", None))


async def test_who_waits_is_woken_though_the_catalog_was_away() -> None:
    """A wait that fails once would otherwise be a wait for ever."""
    catalog, woken = Catalog(holder="another"), asyncio.Event()
    caching = caching_of(catalog)
    assert await caching.ask(ACTION, woken=woken.set) is Cached.RESERVED
    catalog.failing = [Unavailable("away")] * 3
    await asyncio.sleep(HEARTBEAT * 10)
    assert not woken.is_set()
    catalog.free.set()
    await asyncio.wait_for(woken.wait(), HEARTBEAT * 2)
    await caching.close()


async def test_a_reservation_is_renewed_though_the_catalog_was_away() -> None:
    """Else another would compute the same as soon as it expires."""
    catalog = Catalog()
    caching = caching_of(catalog)
    assert await caching.ask(ACTION, woken=lambda: None) is Cached.MISS
    catalog.failing = [Unavailable("away")]
    before = catalog.beats
    await asyncio.sleep(HEARTBEAT * 5.5)
    assert catalog.beats >= before + 4
    await caching.drop(ACTION.key)


async def test_what_could_not_be_given_back_is_given_back_later() -> None:
    """Who drops an action tries again; who waits for its key would else wait until it expires."""
    catalog = Catalog()
    caching = caching_of(catalog)
    await caching.ask(ACTION, woken=lambda: None)
    catalog.failing = [Unavailable("away")]
    with pytest.raises(Unavailable):
        await caching.drop(ACTION.key)
    await caching.drop(ACTION.key)
    await caching.drop(ACTION.key)
    assert catalog.released == [str(WorkId(ACTION.key, 0))]
