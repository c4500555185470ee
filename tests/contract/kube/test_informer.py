"""An informer over an API server that fails in every way it can: what it tells adds up to what there is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from flyte_unified.kube.client import Kube
from flyte_unified.kube.informer import Informer
from flyte_unified.kube.kinds import CONFIG_MAPS
from flyte_unified.testing.fake_kube import FakeKube
from flyte_unified.testing.fake_kube.api import Call, Deletion
from tests.contract.kube.objects import config_map


def remove(fake: FakeKube, namespace: str, name: str) -> None:
    """As somebody else would while we cannot reach the server."""
    config_maps = fake.registry.named("configmaps", "")
    assert config_maps is not None
    fake.api.delete(config_maps, (namespace, name), Deletion(), Call())


class Told:
    """Keeps what an informer tells, and what it adds up to."""

    def __init__(self) -> None:
        self.news: list[tuple[str, str]] = []
        self.state: dict[str, dict[str, Any]] = {}
        self._wake = asyncio.Event()

    def __call__(self, change: str, obj: dict[str, Any]) -> None:
        name = obj["metadata"]["name"]
        assert (name in self.state) == (change != "ADDED"), f"{change} of {name}"
        self.news.append((change, name))
        if change == "DELETED":
            del self.state[name]
        else:
            self.state[name] = obj
        self._wake.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10.0):
            while not condition():
                self._wake.clear()
                await self._wake.wait()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
async def informer(kube: Kube, namespace: str, told: Told) -> AsyncIterator[Informer]:
    """Of the test's namespace, with small pages; started by the test."""
    made = Informer(kube, CONFIG_MAPS, namespace=namespace, labels="mine", on_event=told, pages=2)
    yield made
    await made.stop()


@pytest.fixture
def put(kube: Kube, namespace: str) -> Callable[..., Any]:
    """Creates an object that the informer follows."""

    async def create(*names: str, **data: str) -> None:
        for name in names:
            await kube.create(CONFIG_MAPS, config_map(name, namespace, labels={"mine": "1"}, **data))

    return create


async def test_what_is_there_is_told_before_it_starts(kube: Kube, informer: Informer, told: Told, put: Any, namespace: str):
    """From every page; then each change, as it comes."""
    await put("a", "b", "c")
    await kube.create(CONFIG_MAPS, config_map("another", namespace))
    assert not informer.synced
    await informer.start()
    assert informer.synced
    assert told.news == [("ADDED", "a"), ("ADDED", "b"), ("ADDED", "c")]
    await put("d")
    await kube.patch(CONFIG_MAPS, "a", {"data": {"x": "1"}}, namespace=namespace)
    await kube.delete(CONFIG_MAPS, "b", namespace=namespace)
    await told.until(lambda: len(told.news) == 6)
    assert told.news[3:] == [("ADDED", "d"), ("MODIFIED", "a"), ("DELETED", "b")]
    assert sorted(obj["metadata"]["name"] for obj in informer) == ["a", "c", "d"]
    known = informer.get("a", namespace)
    assert known is not None
    assert known["data"] == {"x": "1"}
    assert "managedFields" not in known["metadata"]


async def test_an_object_that_matches_no_more_is_deleted_to_us(
    kube: Kube, informer: Informer, told: Told, put: Any, namespace: str
):
    """A selector is about now."""
    await put("a")
    await informer.start()
    await kube.patch(CONFIG_MAPS, "a", {"metadata": {"labels": {"mine": None}}}, namespace=namespace)
    await told.until(lambda: ("DELETED", "a") in told.news)
    assert len(informer) == 0


async def test_a_cut_watch_goes_on_where_it_was(
    kube: Kube, fake: FakeKube, informer: Informer, told: Told, put: Any, namespace: str
):
    """Nothing is listed again, told twice or lost."""
    await put("a", "b")
    await informer.start()
    lists = fake.requests["list", "configmaps", ""]
    for number in range(3):
        fake.faults.cut_watches()
        await put(f"c{number}")
        await told.until(lambda number=number: f"c{number}" in told.state)
    assert told.news == [("ADDED", name) for name in ("a", "b", "c0", "c1", "c2")]
    assert fake.requests["list", "configmaps", ""] == lists


@pytest.mark.parametrize("refuse", [False, True], ids=["dropped", "refused"])
async def test_after_an_outage_everything_is_as_it_is(
    kube: Kube, fake: FakeKube, informer: Informer, told: Told, put: Any, namespace: str, refuse: bool
):
    """Deletions too, which a list does not show, and a history that was forgotten meanwhile."""
    await put("kept", "changed", "deleted", "replaced")
    await informer.start()
    fake.faults.outage(refuse=refuse)
    for name in ("deleted", "replaced"):
        remove(fake, namespace, name)
    fake.apply(config_map("changed", namespace, labels={"mine": "1"}, x="1"))
    fake.apply(config_map("replaced", namespace, labels={"mine": "1"}))
    fake.apply(config_map("new", namespace, labels={"mine": "1"}))
    fake.faults.expire()
    fake.faults.restore()
    told.news.clear()
    await told.until(lambda: len(told.news) >= 5)
    assert sorted(told.news) == [
        ("ADDED", "new"),
        ("ADDED", "replaced"),
        ("DELETED", "deleted"),
        ("DELETED", "replaced"),
        ("MODIFIED", "changed"),
    ]
    await put("later")
    await told.until(lambda: "later" in told.state)
    assert sorted(told.state) == ["changed", "kept", "later", "new", "replaced"]


async def test_a_server_that_answers_gone_is_listed_again(
    kube: Kube, fake: FakeKube, informer: Informer, told: Told, put: Any, namespace: str
):
    """Whether the watch or a page of the list is refused as too old."""
    await put("a", "b", "c")
    fake.faults.fail(410, 1, lambda asked: asked.verb == "watch", reason="Expired")
    await informer.start()
    await put("d")
    await told.until(lambda: "d" in told.state)
    assert told.news == [("ADDED", name) for name in "abcd"]


async def test_a_start_waits_for_a_server_that_is_away(fake: FakeKube, informer: Informer, told: Told, put: Any):
    """And is over when everything was told."""
    await put("a")
    fake.faults.fail(503, 2, lambda asked: asked.resource == "configmaps")
    await informer.start()
    assert told.news == [("ADDED", "a")]


async def test_a_storm_is_told_whole(
    kube: Kube, cluster: FakeKube | None, informer: Informer, told: Told, put: Any, namespace: str
):
    """Two thousand objects while watches break: each is added once, and every deletion is told."""
    await informer.start()
    names = [f"c{number}" for number in range(2000)]
    for begin in range(0, len(names), 100):
        await asyncio.gather(*(put(name) for name in names[begin : begin + 100]))
        if cluster is not None and begin % 500 == 0:
            cluster.faults.cut_watches()
    await told.until(lambda: len(told.state) == len(names))
    await kube.delete_all(CONFIG_MAPS, namespace=namespace, labels="mine")
    await told.until(lambda: not told.state)
    assert len(told.news) == 2 * len(names)


async def test_whoever_waits_for_an_informer_that_is_stopped_waits_no_more(fake: FakeKube, informer: Informer):
    """As of two that start together when the other one failed."""
    fake.faults.outage()
    starting = asyncio.create_task(informer.start())
    await asyncio.sleep(0)
    await informer.stop()
    async with asyncio.timeout(5):
        await asyncio.wait((starting,))
    assert starting.cancelled()
    fake.faults.restore()
