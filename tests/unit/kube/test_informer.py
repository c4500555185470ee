"""An informer's patience: when it asks again, and what it says of it. Under virtual time, over a server that is a script."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from flyte_unified.kube import errors
from flyte_unified.kube.client import Kube
from flyte_unified.kube.informer import Informer, pause
from flyte_unified.kube.kinds import PODS

pytestmark = pytest.mark.virtual_time


def pod(name: str, version: int) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "n", "uid": name, "resourceVersion": str(version)}}


class Script:
    """A server of lists and watches: ``objects`` are listed, ``watches`` say how each watch goes on; the last one for good.

    A watch is a list of events and errors; at its end it waits, unless None ends it.
    """

    def __init__(self, *objects: dict[str, Any], watches: list[list[Any]] | None = None) -> None:
        self.objects = list(objects)
        self.watches = watches or [[]]
        self.refusing: errors.KubeError | None = None
        self.lists: list[float] = []
        self.opened: list[tuple[float, str]] = []

    async def pages(self, *_: object, **__: object) -> AsyncIterator[tuple[list[dict[str, Any]], str]]:
        self.lists.append(asyncio.get_running_loop().time())
        if self.refusing is not None:
            raise self.refusing
        yield self.objects, "100"

    async def watch(self, *_: object, resource_version: str, **__: object) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        self.opened.append((asyncio.get_running_loop().time(), resource_version))
        script = self.watches.pop(0) if len(self.watches) > 1 else self.watches[0]
        for step in script:
            if step is None:
                return
            if isinstance(step, Exception):
                raise step
            if isinstance(step, float):
                await asyncio.sleep(step)
            else:
                yield step
        await asyncio.Event().wait()

    def informer(self, **more: Any) -> Informer:
        return Informer(cast("Kube", self), PODS, **{"on_event": lambda *_: None, **more})


OPEN = ("BOOKMARK", {"metadata": {"resourceVersion": "100"}})
AWAY = errors.Away("watch pods: cut")


async def run(informer: Informer, seconds: float) -> None:
    await informer.start()
    await asyncio.sleep(seconds)
    await informer.stop()


async def test_an_outage_is_logged_once_and_asked_for_with_growing_pauses():
    """Its end too. What follows the first pauses is bounded."""
    script = Script(watches=[*[[AWAY]] * 12, [OPEN]])
    with capture_logs() as logs:
        await run(script.informer(), 500.0)
    waits = [later - earlier for (earlier, _), (later, _) in zip(script.opened, script.opened[1:], strict=False)]
    assert len(script.opened) == 13
    assert all(0.25 * 2**n <= wait <= 0.5 * 2**n for n, wait in enumerate(waits[:6]))
    assert all(15.0 <= wait <= 30.0 for wait in waits[6:])
    assert [log["event"] for log in logs] == ["objects are followed no longer", "objects are followed again"]
    assert logs[0]["error"] == "watch pods: cut"
    assert logs[1]["seconds"] == pytest.approx(script.opened[-1][0] + 1.0, abs=0.1)


async def test_an_outage_is_over_with_the_first_news():
    """The next one begins with a short pause, and is told anew."""
    news = ("ADDED", pod("a", 101))
    script = Script(watches=[[AWAY], [AWAY], [AWAY], [OPEN, news, AWAY], [OPEN]])
    with capture_logs() as logs:
        await run(script.informer(), 60.0)
    assert [log["event"] for log in logs] == [
        "objects are followed no longer",
        "objects are followed again",
        "objects are followed no longer",
        "objects are followed again",
    ]
    assert script.opened[4][0] - script.opened[3][0] <= 0.5
    assert script.opened[4][1] == "101"


async def test_a_bookmark_moves_the_version():
    """So that a quiet kind's watch does not begin in a past that is forgotten."""
    script = Script(watches=[[OPEN, 60.0, ("BOOKMARK", {"metadata": {"resourceVersion": "200"}}), None], [OPEN]])
    await run(script.informer(), 90.0)
    assert script.opened[-1] == (60.0, "200")
    assert len(script.lists) == 1


async def test_a_watch_that_ends_at_once_is_a_failure():
    """Else we would ask without a pause for ever."""
    script = Script(watches=[[OPEN, None]])
    with capture_logs() as logs:
        await run(script.informer(), 100.0)
    assert len(script.opened) < 15
    assert "ended it at once" in logs[0]["error"]


async def test_a_version_that_is_always_too_old_is_not_asked_for_without_a_pause():
    """The first time is ordinary, and not even logged."""
    script = Script(watches=[[errors.Gone("watch pods: too old")]])
    with capture_logs() as logs:
        await run(script.informer(), 100.0)
    assert script.lists[:2] == [0.0, 0.0]
    assert 5 < len(script.lists) < 15
    assert logs == []


async def test_a_server_that_says_when_is_not_asked_before():
    """Retry-After counts for more than our own pauses."""
    script = Script(watches=[[errors.Throttled("watch pods", retry_after=20.0)], [OPEN]])
    await run(script.informer(), 30.0)
    assert script.opened[1][0] == 20.0


async def test_what_a_watch_lost_is_found_by_the_next_list():
    """In ``resync`` seconds, give or take a tenth, though the watch was never cut."""
    told: list[tuple[str, str]] = []
    script = Script(pod("a", 1), pod("b", 2), watches=[[OPEN]])
    informer = script.informer(resync=100.0, on_event=lambda change, obj: told.append((change, obj["metadata"]["name"])))
    await informer.start()
    script.objects = [pod("b", 2), pod("c", 3)]
    await asyncio.sleep(150.0)
    await informer.stop()
    assert told == [("ADDED", "a"), ("ADDED", "b"), ("ADDED", "c"), ("DELETED", "a")]
    assert len(script.lists) == 2
    assert 90.0 <= script.lists[1] <= 110.0


async def test_an_error_in_a_callback_ends_nothing():
    """It is logged with the object's name, and the next is told."""
    told: list[str] = []

    def take(_: str, obj: dict[str, Any]) -> None:
        if obj["metadata"]["name"] == "bad":
            raise ZeroDivisionError
        told.append(obj["metadata"]["name"])

    script = Script(pod("bad", 1), pod("a", 2), watches=[[OPEN, ("MODIFIED", pod("bad", 101)), ("ADDED", pod("b", 102))]])
    with capture_logs() as logs:
        informer = script.informer(on_event=take)
        await run(informer, 1.0)
    assert told == ["a", "b"]
    assert [(log["event"], log["name"], log["namespace"]) for log in logs] == [("a change was not taken in", "bad", "n")] * 2
    assert informer.get("bad", "n") == pod("bad", 101)


async def test_an_object_that_cannot_be_read_does_not_end_it():
    """It says so with what went wrong, and lists again: what follows the object is told."""

    def trim(obj: dict[str, Any]) -> dict[str, Any]:
        return {"node": obj["spec"]["nodeName"]} if obj["metadata"]["name"] == "bad" else obj

    script = Script(watches=[[OPEN, ("ADDED", pod("bad", 101))], [OPEN, ("ADDED", pod("a", 102))]])
    informer = script.informer(trim=trim)
    with capture_logs() as logs:
        await run(informer, 10.0)
    assert informer.get("a", "n") == pod("a", 102)
    assert len(script.lists) == 2
    assert (logs[0]["error"], logs[0]["exc_info"]) == ("'spec'", True)


async def test_a_start_that_waiting_does_not_mend_fails():
    """Rights, say. Nothing is left running."""
    script = Script()
    script.refusing = errors.Forbidden("list pods: 403")
    informer = script.informer()
    with pytest.raises(errors.Forbidden):
        await informer.start()
    assert not informer.synced
    assert len(script.lists) == 1


async def test_once_started_it_outlives_the_loss_of_its_rights():
    """Somebody may give them back."""
    script = Script(watches=[[errors.Forbidden("watch pods: 403")], [OPEN, ("ADDED", pod("a", 101))]])
    informer = script.informer()
    await run(informer, 10.0)
    assert informer.synced
    assert informer.get("a", "n") == pod("a", 101)
    assert informer.last_seen > 0


async def test_a_start_can_be_given_up():
    """Of a server that is away; then nothing is left running."""
    script = Script()
    script.refusing = AWAY
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(100.0):
            await script.informer().start()
    assert len(script.lists) > 5


def test_pauses_grow_and_are_not_the_same_for_all():
    """From half a second to half a minute, however long it takes."""
    assert len({pause(3) for _ in range(20)}) > 1
    assert all(15.0 <= pause(failures) <= 30.0 for failures in (8, 100, 10_000))
