"""What the client's verbs do to an API server, and what they raise."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from flyte_unified.core.errors import NotLeader
from flyte_unified.kube import errors
from flyte_unified.kube.client import APPLY, JSON_PATCH, Kube
from flyte_unified.kube.kinds import CONFIG_MAPS, NODES, PODS, Kind
from flyte_unified.testing.fake_kube import FakeKube
from tests.contract.kube.objects import config_map, pod


async def test_an_object_is_created_read_replaced_and_deleted(kube: Kube, namespace: str):
    """Each answer is the object as the server stores it."""
    made = await kube.create(CONFIG_MAPS, config_map("a", namespace, key="1"))
    assert made["metadata"]["uid"]
    made["data"]["key"] = "2"
    replaced = await kube.replace(CONFIG_MAPS, made)
    assert await kube.get(CONFIG_MAPS, "a", namespace=namespace) == replaced
    assert replaced["metadata"]["resourceVersion"] != made["metadata"]["resourceVersion"]
    await kube.delete(CONFIG_MAPS, "a", namespace=namespace)
    with pytest.raises(errors.Missing, match=f"get configmaps {namespace}/a: 404 NotFound: .*not found") as missing:
        await kube.get(CONFIG_MAPS, "a", namespace=namespace)
    assert (missing.value.status, missing.value.reason, missing.value.about["name"]) == (404, "NotFound", "a")


async def test_a_namespace_may_be_said_beside_the_object(kube: Kube, namespace: str):
    """An object that names none gets it; without any nothing is sent."""
    unplaced = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}
    assert (await kube.create(CONFIG_MAPS, unplaced, namespace=namespace))["metadata"]["namespace"] == namespace
    with pytest.raises(ValueError, match="configmaps a: no namespace"):
        await kube.create(CONFIG_MAPS, unplaced)
    with pytest.raises(ValueError, match="configmaps a: no namespace"):
        await kube.get(CONFIG_MAPS, "a")


async def test_a_name_that_is_taken_is_not_a_write_that_lost(kube: Kube, namespace: str):
    """Both are answered 409; the reason tells them apart."""
    old = await kube.create(CONFIG_MAPS, config_map("a", namespace))
    with pytest.raises(errors.Exists, match="AlreadyExists"):
        await kube.create(CONFIG_MAPS, config_map("a", namespace))
    await kube.replace(CONFIG_MAPS, old | {"data": {"key": "mine"}})
    with pytest.raises(errors.Conflict, match="409 Conflict"):
        await kube.replace(CONFIG_MAPS, old | {"data": {"key": "theirs"}})


async def test_what_is_wrong_is_told_as_invalid(kube: Kube, namespace: str):
    """With the server's words on where."""
    with pytest.raises(errors.Invalid, match=r"metadata\.name") as invalid:
        await kube.create(CONFIG_MAPS, config_map("Not A Name", namespace))
    assert invalid.value.about["causes"]


async def test_a_kind_that_nobody_serves_is_told_from_an_object(kube: Kube, namespace: str):
    """So a CRD that is missing is not taken for an object that is."""
    unknown = Kind("nobody.example.com", "v1", "Nothing", "nothings")
    with pytest.raises(errors.Missing) as missing:
        await kube.get(unknown, "a", namespace=namespace)
    assert missing.value.is_kind
    with pytest.raises(errors.Missing) as missing:
        await kube.create(CONFIG_MAPS, config_map("a", "flyte-unified-test-nowhere"))
    assert not missing.value.is_kind


async def test_a_status_is_written_beside_the_rest(kube: Kube, namespace: str):
    """A write of the object changes no status, and one of the status nothing else."""
    made = await kube.create(PODS, pod("a", namespace))
    made["spec"]["activeDeadlineSeconds"] = 7
    made["status"]["message"] = "told"
    await kube.replace(PODS, made, subresource="status")
    await kube.patch(PODS, "a", {"status": {"reason": "Because"}}, namespace=namespace, subresource="status")
    await kube.patch(PODS, "a", {"status": {"reason": "Not"}}, namespace=namespace)
    now = await kube.get(PODS, "a", namespace=namespace)
    assert (now["status"]["message"], now["status"]["reason"]) == ("told", "Because")
    assert "activeDeadlineSeconds" not in now["spec"]
    await kube.delete(PODS, "a", namespace=namespace, grace=0)


async def test_a_patch_merges_or_operates(kube: Kube, namespace: str):
    """An operation that does not fit refuses the whole patch."""
    await kube.create(CONFIG_MAPS, config_map("a", namespace, one="1", two="2"))
    merged = await kube.patch(CONFIG_MAPS, "a", {"data": {"one": None, "three": "3"}}, namespace=namespace)
    assert merged["data"] == {"two": "2", "three": "3"}
    operations = [{"op": "test", "path": "/data/two", "value": "2"}, {"op": "remove", "path": "/data/two"}]
    assert (await kube.patch(CONFIG_MAPS, "a", operations, namespace=namespace, content_type=JSON_PATCH))["data"] == {
        "three": "3"
    }
    with pytest.raises(errors.Invalid):
        await kube.patch(CONFIG_MAPS, "a", operations, namespace=namespace, content_type=JSON_PATCH)


async def test_an_intent_is_applied(kube: Kube, cluster: FakeKube | None, namespace: str):
    """It creates what is missing and takes back what it said before."""
    if cluster is not None:
        pytest.skip("the fake has no owners of fields")
    intent = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}, "data": {"x": "1", "y": "1"}}
    await kube.patch(CONFIG_MAPS, "b", intent, namespace=namespace, content_type=APPLY)
    intent["data"] = {"x": "2"}
    assert (await kube.patch(CONFIG_MAPS, "b", intent, namespace=namespace, content_type=APPLY))["data"] == {"x": "2"}


async def test_a_patch_can_demand_a_version(kube: Kube, namespace: str):
    """A version in it is a condition."""
    made = await kube.create(CONFIG_MAPS, config_map("a", namespace))
    version = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}}
    await kube.patch(CONFIG_MAPS, "a", version | {"data": {"x": "1"}}, namespace=namespace)
    with pytest.raises(errors.Conflict):
        await kube.patch(CONFIG_MAPS, "a", version | {"data": {"x": "2"}}, namespace=namespace)


async def test_a_deletion_can_demand_a_uid(kube: Kube, namespace: str):
    """Another object of the same name is not deleted by mistake."""
    made = await kube.create(CONFIG_MAPS, config_map("a", namespace))
    with pytest.raises(errors.Conflict):
        await kube.delete(CONFIG_MAPS, "a", namespace=namespace, uid="0f0f0f0f-0000-4000-8000-000000000000")
    await kube.delete(CONFIG_MAPS, "a", namespace=namespace, uid=made["metadata"]["uid"])
    with pytest.raises(errors.Missing):
        await kube.delete(CONFIG_MAPS, "a", namespace=namespace)


async def test_a_list_comes_in_pages_of_what_is_selected(kube: Kube, namespace: str):
    """Each object is whole; the pages together are of one version."""
    for number in range(5):
        await kube.create(CONFIG_MAPS, config_map(f"c{number}", namespace, labels={"odd": str(number % 2)}))
    pages = [page async for page in kube.pages(CONFIG_MAPS, namespace=namespace, labels="odd in (0)", limit=2)]
    assert [[obj["metadata"]["name"] for obj in items] for items, _ in pages] == [["c0", "c2"], ["c4"]]
    assert {(obj["apiVersion"], obj["kind"]) for items, _ in pages for obj in items} == {("v1", "ConfigMap")}
    assert len({version for _, version in pages}) == 1
    one = [items async for items, _ in kube.pages(CONFIG_MAPS, namespace=namespace, fields="metadata.name=c3")]
    assert [obj["metadata"]["name"] for obj in one[0]] == ["c3"]


async def test_all_that_match_are_deleted_at_once(kube: Kube, namespace: str):
    """And no others."""
    for number in range(4):
        await kube.create(CONFIG_MAPS, config_map(f"c{number}", namespace, labels={"odd": str(number % 2)}))
    await kube.delete_all(CONFIG_MAPS, namespace=namespace, labels="odd=1")
    left = [
        obj["metadata"]["name"]
        async for items, _ in kube.pages(CONFIG_MAPS, namespace=namespace, labels="odd")
        for obj in items
    ]
    assert left == ["c0", "c2"]


async def test_a_watch_tells_what_follows_a_version(kube: Kube, namespace: str):
    """First that it was taken, then each change."""
    made = await kube.create(CONFIG_MAPS, config_map("a", namespace))
    version = made["metadata"]["resourceVersion"]
    async with aclosing(kube.watch(CONFIG_MAPS, namespace=namespace, labels="mine", resource_version=version)) as events:
        assert await anext(events) == ("BOOKMARK", {"metadata": {"resourceVersion": version}})
        await kube.create(CONFIG_MAPS, config_map("b", namespace, labels={"mine": "1"}))
        await kube.patch(CONFIG_MAPS, "b", {"data": {"x": "1"}}, namespace=namespace)
        await kube.create(CONFIG_MAPS, config_map("c", namespace))
        await kube.delete(CONFIG_MAPS, "b", namespace=namespace)
        told = [await anext(events) for _ in range(3)]
    assert [(change, obj["metadata"]["name"]) for change, obj in told] == [("ADDED", "b"), ("MODIFIED", "b"), ("DELETED", "b")]


async def test_a_kind_without_namespaces_needs_none(kube: Kube):
    """Nodes are the cluster's."""
    async with aclosing(kube.pages(NODES)) as pages:
        _, version = await anext(pages)
    assert version


async def test_a_read_waits_for_a_server_that_has_too_much_to_do(kube: Kube, fake: FakeKube, namespace: str):
    """As long as it says, within the call's time; a write is refused at once, and says for how long."""
    await kube.create(CONFIG_MAPS, config_map("a", namespace))
    fake.faults.throttle(1, retry_after=1)
    assert await kube.get(CONFIG_MAPS, "a", namespace=namespace)
    fake.faults.throttle(1, retry_after=60)
    with pytest.raises(errors.Throttled) as throttled:
        await kube.get(CONFIG_MAPS, "a", namespace=namespace)
    assert throttled.value.retry_after == 60
    fake.faults.throttle(1, retry_after=1)
    with pytest.raises(errors.Throttled):
        await kube.create(CONFIG_MAPS, config_map("b", namespace))


async def test_a_version_that_is_forgotten_is_gone(kube: Kube, fake: FakeKube, namespace: str):
    """For a watch as for the next page of a list."""
    for number in range(3):
        made = await kube.create(CONFIG_MAPS, config_map(f"c{number}", namespace))
    version = made["metadata"]["resourceVersion"]
    async with aclosing(kube.pages(CONFIG_MAPS, namespace=namespace, limit=1)) as pages:
        await anext(pages)
        await kube.delete(CONFIG_MAPS, "c0", namespace=namespace)
        fake.faults.expire()
        with pytest.raises(errors.Gone):
            await anext(pages)
    async with aclosing(kube.watch(CONFIG_MAPS, namespace=namespace, resource_version=version)) as events:
        with pytest.raises(errors.Gone):
            assert [event async for event in events] == [("BOOKMARK", {"metadata": {"resourceVersion": version}})]


async def test_a_server_that_is_away_is_told_as_away(kube: Kube, fake: FakeKube, namespace: str):
    """Whether it drops connections, cuts a watch, answers 5xx or not at all."""
    made = await kube.create(CONFIG_MAPS, config_map("a", namespace))
    version = made["metadata"]["resourceVersion"]
    async with aclosing(kube.watch(CONFIG_MAPS, namespace=namespace, resource_version=version)) as events:
        await anext(events)
        fake.faults.outage()
        with pytest.raises(errors.Away, match=f"watch configmaps {namespace}: "):
            await anext(events)
    with pytest.raises(errors.Away):
        await kube.get(CONFIG_MAPS, "a", namespace=namespace)
    fake.faults.restore()
    fake.faults.outage(refuse=True)
    with pytest.raises(errors.Away, match="503 ServiceUnavailable"):
        await kube.create(CONFIG_MAPS, config_map("b", namespace))
    fake.faults.restore()
    assert await kube.get(CONFIG_MAPS, "a", namespace=namespace)


async def test_a_call_ends_in_its_time(fake: FakeKube, tmp_path):
    """An answer that does not come is Away."""
    impatient = Kube(kubeconfig=tmp_path / "kubeconfig", timeout=0.05)
    await impatient.start()
    fake.faults.delay(0.3)
    with pytest.raises(errors.Away, match=r"get nodes a: no answer within 0\.05 s"):
        await impatient.get(NODES, "a")
    fake.faults.restore()
    await impatient.stop()


async def test_calls_and_watches_do_not_wait_for_each_other(kube: Kube, namespace: str):
    """More watches than there are calls at one time leave room for calls."""
    made = await kube.create(CONFIG_MAPS, config_map("a", namespace))
    version = made["metadata"]["resourceVersion"]
    watches = [kube.watch(CONFIG_MAPS, namespace=namespace, resource_version=version) for _ in range(70)]
    await asyncio.gather(*(anext(watch) for watch in watches))
    assert await kube.get(CONFIG_MAPS, "a", namespace=namespace)
    for watch in watches:
        await watch.aclose()


async def test_a_guarded_client_asks_before_it_writes(kube: Kube, namespace: str):
    """And reads without; the one that it was made of is as free as before."""

    def forbid() -> None:
        raise NotLeader("not now")

    guarded = kube.guarded(forbid)
    with pytest.raises(NotLeader):
        await guarded.create(CONFIG_MAPS, config_map("a", namespace))
    with pytest.raises(errors.Missing):
        await guarded.get(CONFIG_MAPS, "a", namespace=namespace)
    await kube.create(CONFIG_MAPS, config_map("a", namespace))
    with pytest.raises(NotLeader):
        await guarded.delete(CONFIG_MAPS, "a", namespace=namespace)
    await kube.delete(CONFIG_MAPS, "a", namespace=namespace)
