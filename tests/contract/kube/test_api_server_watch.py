"""Lists and watches: one state in pages, then every change after it, in order, under selectors."""

from __future__ import annotations

import asyncio

import pytest

from flyte_unified.testing.fake_kube import FakeKube
from tests.contract.kube.raw import MERGE, PATIENCE, Raw, config_map, pod


async def fill(api: Raw, count: int) -> None:
    for number in range(count):
        parity = "even" if number % 2 == 0 else "odd"
        await api("POST", "~configmaps", config_map(f"m{number}", labels={"number": str(number), "parity": parity}))


def names(body: dict) -> list[str]:
    return [one["metadata"]["name"] for one in body["items"] if one["metadata"]["name"] != "kube-root-ca.crt"]


async def test_pages_are_of_one_moment(api: Raw):
    """What is made or deleted between two pages is not seen in the second."""
    await fill(api, 5)
    first = (await api("GET", "~configmaps?limit=2")).body
    await api("POST", "~configmaps", config_map("m9"))
    await api("DELETE", "~configmaps/m3")
    second = (await api("GET", f"~configmaps?limit=2&continue={first['metadata']['continue']}")).body
    third = (await api("GET", f"~configmaps?limit=2&continue={second['metadata']['continue']}")).body
    found = names(first) + names(second) + names(third)
    assert found == ["m0", "m1", "m2", "m3", "m4"] and "continue" not in third["metadata"]
    assert first["metadata"]["remainingItemCount"] == second["metadata"]["remainingItemCount"] + 2
    assert {one["metadata"]["resourceVersion"] for one in (first, second, third)} == {first["metadata"]["resourceVersion"]}


SELECTED = {
    "labelSelector=parity=even": ["m0", "m2"],
    "labelSelector=parity!=even": ["m1", "m3"],
    "labelSelector=parity==odd,number in (0,1)": ["m1"],
    "labelSelector=number notin (0,1)": ["m2", "m3"],
    "labelSelector=parity": ["m0", "m1", "m2", "m3"],
    "labelSelector=!parity": [],
    "labelSelector=number>1": ["m2", "m3"],
    "fieldSelector=metadata.name=m1": ["m1"],
    "fieldSelector=metadata.name!=m1": ["m0", "m2", "m3"],
    "labelSelector=parity=even&fieldSelector=metadata.name=m2": ["m2"],
}


@pytest.mark.parametrize("query", SELECTED)
async def test_selectors_choose(api: Raw, query: str):
    """By labels, as sets too, and by the fields that are indexed."""
    await fill(api, 4)
    assert names((await api("GET", f"~configmaps?{query}")).body) == SELECTED[query]


WRONG = {
    "labelSelector=a in": 400, "labelSelector=a=b c": 400, "fieldSelector=spec.x=1": 400, "fieldSelector=x": 400,
    "limit=x": 400, "resourceVersion=x": 400, "continue=x": 400, "resourceVersionMatch=Exact": 422,
    "resourceVersionMatch=Foo&resourceVersion=1": 422, "resourceVersionMatch=Exact&resourceVersion=0": 422,
    "watch=1&sendInitialEvents=true": 422, "resourceVersion=999999999": 504,
}  # fmt: skip


@pytest.mark.parametrize("query", WRONG)
async def test_a_list_that_makes_no_sense_is_refused(api: Raw, query: str):
    """Not taken for an empty one."""
    assert (await api("GET", f"~configmaps?{query}")).status == WRONG[query]


async def test_pods_are_found_by_node_and_phase(api: Raw):
    """As a kubelet and a controller look for them."""
    await api("POST", "~pods", pod("a", nodeName="n1"))
    await api("POST", "~pods", pod("b"))
    await api("PATCH", "~pods/b/status", {"status": {"phase": "Failed"}}, MERGE)
    assert names((await api("GET", "~pods?fieldSelector=spec.nodeName=n1")).body) == ["a"]
    assert names((await api("GET", "~pods?fieldSelector=status.phase=Failed,spec.nodeName=")).body) == ["b"]


async def test_a_watch_tells_what_came_after_a_list(api: Raw):
    """Every change once, in order; what is deleted has the version of its deletion."""
    await fill(api, 1)
    version = (await api("GET", "~configmaps")).version
    await api("PATCH", "~configmaps/m0", {"data": {"k": "1"}}, MERGE)
    async with api.watch("~configmaps", resourceVersion=version, fieldSelector="metadata.name!=kube-root-ca.crt") as watch:
        await api("POST", "~configmaps", config_map("n"))
        await api("DELETE", "~configmaps/m0")
        events = [await watch.next() for _ in range(3)]
    assert [(kind, one["metadata"]["name"]) for kind, one in events] == [("MODIFIED", "m0"), ("ADDED", "n"), ("DELETED", "m0")]
    versions = [int(one["metadata"]["resourceVersion"]) for _, one in events]
    assert versions == sorted(set(versions)) and versions[0] > int(version) and events[2][1]["data"] == {"k": "1"}


@pytest.mark.parametrize("version", ["", "0"])
async def test_a_watch_from_nowhere_begins_with_what_is_there(api: Raw, version: str):
    """Without a version, and from any."""
    await fill(api, 2)
    async with api.watch("~configmaps", resourceVersion=version, labelSelector="parity") as watch:
        assert sorted(await watch.names(2)) == [("ADDED", "m0"), ("ADDED", "m1")]
        await api("DELETE", "~configmaps/m1")
        assert await watch.names(1) == [("DELETED", "m1")]


async def test_what_no_longer_matches_is_deleted_to_the_watcher(api: Raw):
    """And what begins to match is new."""
    await fill(api, 2)
    version = (await api("GET", "~configmaps")).version
    async with api.watch("~configmaps", resourceVersion=version, labelSelector="parity=even") as watch:
        changed = await api("PATCH", "~configmaps/m0", {"metadata": {"labels": {"parity": "odd"}}}, MERGE)
        kind, content = await watch.next()
        assert (kind, content["metadata"]["labels"]["parity"], content["metadata"]["resourceVersion"]) == (
            "DELETED", "even", changed.version,
        )  # fmt: skip
        await api("PATCH", "~configmaps/m1", {"metadata": {"labels": {"parity": "even"}}}, MERGE)
        assert await watch.names(1) == [("ADDED", "m1")]


async def test_a_list_can_be_watched(api: Raw):
    """With sendInitialEvents a bookmark ends what was there."""
    await fill(api, 2)
    options = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    async with api.watch("~configmaps", labelSelector="parity", **options) as watch:
        assert sorted(await watch.names(2)) == [("ADDED", "m0"), ("ADDED", "m1")]
        kind, mark = await watch.next()
        assert kind == "BOOKMARK" and mark["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        assert int(mark["metadata"]["resourceVersion"]) >= int((await api("GET", "~configmaps/m1")).version)


async def test_a_watch_ends_in_time(api: Raw):
    """timeoutSeconds is an end in good order."""
    async with api.watch("~configmaps", resourceVersion="0", timeoutSeconds="1", labelSelector="none=such") as watch:
        with pytest.raises(EOFError):
            await watch.next()


async def test_a_pod_that_is_deleted_is_marked_first(api: Raw):
    """Unscheduled, it goes at once, in two events."""
    made = await api("POST", "~pods", pod("p"))
    async with api.watch("~pods", resourceVersion=made.version) as watch:
        await api("DELETE", "~pods/p")
        (first, marked), (second, _) = [await watch.next() for _ in range(2)]
    assert (first, second) == ("MODIFIED", "DELETED") and marked["metadata"]["deletionGracePeriodSeconds"] == 0


async def test_the_forgotten_cannot_be_watched(api: Raw, fake: FakeKube):
    """410 in the stream; a continued list says how to go on."""
    await fill(api, 4)
    page = (await api("GET", "~configmaps?limit=2")).body["metadata"]
    await api("DELETE", "~configmaps/m3")
    fake.faults.expire()
    async with api.watch("~configmaps", resourceVersion=page["resourceVersion"]) as watch:
        kind, status = await watch.next()
    assert (watch.status, kind, status["code"], status["reason"]) == (200, "ERROR", 410, "Expired")
    gone = await api("GET", f"~configmaps?limit=2&continue={page['continue']}")
    assert (gone.status, gone.reason) == (410, "Expired")
    rest = await api("GET", f"~configmaps?continue={gone.body['metadata']['continue']}")
    assert names(rest.body) == ["m2"]


async def test_many_watchers_see_the_same(api: Raw):
    """Each every event."""
    version = (await api("GET", "~configmaps")).version

    async def follow() -> list[tuple[str, str]]:
        async with api.watch("~configmaps", resourceVersion=version, labelSelector="parity") as watch:
            return await watch.names(6)

    followers = [asyncio.create_task(follow()) for _ in range(5)]
    await fill(api, 6)
    told = await asyncio.gather(*followers)
    assert told == [[("ADDED", f"m{number}") for number in range(6)]] * 5


async def test_bookmarks_say_how_far_a_watch_is(api: Raw, fake: FakeKube):
    """To those who asked for them."""
    version = (await api("GET", "~configmaps")).version
    async with (
        api.watch("~configmaps", resourceVersion=version, allowWatchBookmarks="true") as marked,
        api.watch("~configmaps", resourceVersion=version) as plain,
    ):
        secret = await api("POST", "~secrets", {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}})
        fake.send_bookmarks()
        kind, content = await marked.next()
        assert (kind, content["metadata"]["resourceVersion"]) == ("BOOKMARK", secret.version)
        await api("POST", "~configmaps", config_map("a"))
        assert await plain.names(1) == [("ADDED", "a")]


async def test_a_watcher_that_left_is_forgotten(api: Raw, fake: FakeKube):
    """At once, not when there is something to tell."""
    watchers = fake.store.shelf(("", "configmaps")).watchers
    async with api.watch("~configmaps", resourceVersion="0"):
        assert len(watchers) == 1
    async with asyncio.timeout(PATIENCE):
        while watchers:
            await api("GET", "~secrets")
