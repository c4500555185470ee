"""Deletion: preconditions, finalizers, grace periods, and what goes with what it belonged to."""

from __future__ import annotations

from typing import Any

import pytest

from flyte_unified.testing.fake_kube import FakeKube
from tests.contract.kube.raw import MERGE, Raw, config_map, pod


@pytest.fixture
async def collected(api: Raw) -> Raw:
    """A cluster with the controllers that follow an owner's end: a bare API server has none."""
    lease = await api("GET", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-controller-manager")
    if not api.url.startswith("http://") and lease.status == 404:
        pytest.skip("no controllers run in this cluster")
    return api


async def gone(api: Raw, path: str, name: str) -> None:
    """Wait for the end of an object."""
    async with api.watch(path, fieldSelector=f"metadata.name={name}", resourceVersion="0") as watch:
        if (await api("GET", f"{path}/{name}")).status == 404:
            return
        while (await watch.next())[0] != "DELETED":
            continue


async def test_what_is_deleted_is_gone(api: Raw):
    """The answer says what it was."""
    made = (await api("POST", "~configmaps", config_map("a"))).body
    done = await api("DELETE", "~configmaps/a")
    assert (done.status, done.body["status"], done.body["details"]) == (
        200, "Success", {"name": "a", "kind": "configmaps", "uid": made["metadata"]["uid"]},
    )  # fmt: skip
    assert (await api("DELETE", "~configmaps/a")).status == 404


async def test_a_precondition_protects_a_namesake(api: Raw):
    """By uid, and by version."""
    made = (await api("POST", "~configmaps", config_map("a"))).body["metadata"]
    for wrong in ({"uid": "other"}, {"resourceVersion": "1"}):
        refused = await api("DELETE", "~configmaps/a", {"preconditions": wrong})
        assert (refused.status, refused.reason) == (409, "Conflict")
    right = {"uid": made["uid"], "resourceVersion": made["resourceVersion"]}
    assert (await api("DELETE", "~configmaps/a", {"preconditions": right})).status == 200


async def test_a_finalizer_holds_an_object(api: Raw):
    """Deleted, it stays until the last one is removed, and takes no new ones."""
    await api("POST", "~configmaps", config_map("a", finalizers=["a.io/x", "a.io/y"]))
    marked = (await api("DELETE", "~configmaps/a")).body["metadata"]
    assert marked["deletionTimestamp"] and marked["finalizers"] == ["a.io/x", "a.io/y"]
    again = await api("DELETE", "~configmaps/a")
    assert again.body["metadata"] == marked
    more = await api("PATCH", "~configmaps/a", {"metadata": {"finalizers": ["a.io/x", "a.io/z"]}}, MERGE)
    assert more.causes == {("FieldValueForbidden", "metadata.finalizers")}
    taken = await api("POST", "~configmaps", config_map("a"))
    assert (taken.reason, taken.message) == ("AlreadyExists", 'object is being deleted: configmaps "a" already exists')
    alive = await api("PATCH", "~configmaps/a", {"metadata": {"deletionTimestamp": None}, "data": {"k": "v"}}, MERGE)
    assert alive.body["metadata"]["deletionTimestamp"] and alive.body["data"] == {"k": "v"}
    await api("PATCH", "~configmaps/a", {"metadata": {"finalizers": ["a.io/x"]}}, MERGE)
    async with api.watch("~configmaps", fieldSelector="metadata.name=a", resourceVersion="0") as watch:
        last = await api("PATCH", "~configmaps/a", {"metadata": {"finalizers": None}}, MERGE)
        assert last.status == 200 and [(await watch.next())[0] for _ in range(2)] == ["ADDED", "DELETED"]
    assert (await api("GET", "~configmaps/a")).status == 404


async def test_a_pod_on_a_node_ends_when_its_kubelet_says_so(api: Raw):
    """Its grace period can be shortened; with none it goes."""
    await api("POST", "~pods", pod("p", nodeName="n1"))
    first = (await api("DELETE", "~pods/p")).body["metadata"]
    assert first["deletionGracePeriodSeconds"] == 30 and first["deletionTimestamp"] > first["creationTimestamp"]
    longer = (await api("DELETE", "~pods/p", {"gracePeriodSeconds": 60})).body["metadata"]
    assert longer == first
    shorter = (await api("DELETE", "~pods/p", {"gracePeriodSeconds": 10})).body["metadata"]
    assert shorter["deletionGracePeriodSeconds"] == 10 and shorter["deletionTimestamp"] < first["deletionTimestamp"]
    wrong = await api("DELETE", "~pods/p", {"gracePeriodSeconds": 0, "preconditions": {"uid": "other"}})
    assert wrong.status == 409
    assert (await api("DELETE", "~pods/p", {"gracePeriodSeconds": 0})).status == 200
    assert (await api("GET", "~pods/p")).status == 404


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
async def test_a_pod_that_ended_needs_no_grace(api: Raw, phase: str):
    """Nor one without a node."""
    await api("POST", "~pods", pod("p", nodeName="n1"))
    await api("PATCH", "~pods/p/status", {"status": {"phase": phase}}, MERGE)
    await api("DELETE", "~pods/p")
    assert (await api("GET", "~pods/p")).status == 404


async def test_a_collection_is_deleted_by_selector(api: Raw):
    """The rest stays."""
    for name in ("a", "b", "c"):
        await api("POST", "~configmaps", config_map(name, labels={"keep": str(name == "c").lower()}))
    done = await api("DELETE", "~configmaps?labelSelector=keep=false")
    assert done.status == 200
    left = (await api("GET", "~configmaps?labelSelector=keep")).body["items"]
    assert [one["metadata"]["name"] for one in left] == ["c"]


async def test_some_namespaces_are_for_ever(api: Raw):
    """403, not an empty cluster."""
    assert (await api("DELETE", "/api/v1/namespaces/kube-system")).status == 403


def owned(name: str, owner: dict[str, Any], **more: Any) -> dict[str, Any]:
    meta = owner["metadata"]
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": meta["name"], "uid": meta["uid"], **more}
    return config_map(name, ownerReferences=[reference])


async def test_what_is_owned_goes_with_its_owner(collected: Raw):
    """And what that owns."""
    owner = (await collected("POST", "~configmaps", config_map("owner"))).body
    child = (await collected("POST", "~configmaps", owned("child", owner))).body
    await collected("POST", "~configmaps", owned("grandchild", child))
    assert (await collected("DELETE", "~configmaps/owner")).body["status"] == "Success"
    for name in ("child", "grandchild"):
        await gone(collected, "~configmaps", name)


async def test_an_owner_of_another_uid_is_no_owner(collected: Raw):
    """A namesake does not keep an orphan alive."""
    owner = (await collected("POST", "~configmaps", config_map("owner"))).body
    await collected("POST", "~configmaps", owned("child", owner, uid="5c5e2b3e-0000-4000-8000-000000000000"))
    await gone(collected, "~configmaps", "child")
    assert (await collected("GET", "~configmaps/owner")).status == 200


async def test_one_owner_of_two_is_enough(collected: Raw):
    """The reference to the other is dropped."""
    owners = [(await collected("POST", "~configmaps", config_map(name))).body for name in ("a", "b")]
    child = owned("child", owners[0])
    child["metadata"]["ownerReferences"] += owned("child", owners[1])["metadata"]["ownerReferences"]
    made = await collected("POST", "~configmaps", child)
    await collected("DELETE", "~configmaps/a")
    async with collected.watch("~configmaps", fieldSelector="metadata.name=child", resourceVersion=made.version) as watch:
        kind, changed = await watch.next()
    assert kind == "MODIFIED" and [one["name"] for one in changed["metadata"]["ownerReferences"]] == ["b"]


async def test_in_the_foreground_the_owner_goes_last(collected: Raw):
    """It waits for those that block it."""
    owner = (await collected("POST", "~configmaps", config_map("owner"))).body
    child = owned("child", owner, blockOwnerDeletion=True)
    child["metadata"]["finalizers"] = ["a.io/x"]
    await collected("POST", "~configmaps", child)
    marked = await collected("DELETE", "~configmaps/owner", {"propagationPolicy": "Foreground"})
    assert marked.body["metadata"]["finalizers"] == ["foregroundDeletion"]
    async with collected.watch("~configmaps", fieldSelector="metadata.name=child", resourceVersion="0") as watch:
        while not (await watch.next())[1]["metadata"].get("deletionTimestamp"):
            continue
    assert (await collected("GET", "~configmaps/owner")).status == 200
    await collected("PATCH", "~configmaps/child", {"metadata": {"finalizers": None}}, MERGE)
    await gone(collected, "~configmaps", "owner")


async def test_orphans_stay(collected: Raw):
    """Without the reference."""
    owner = (await collected("POST", "~configmaps", config_map("owner"))).body
    await collected("POST", "~configmaps", owned("child", owner))
    await collected("DELETE", "~configmaps/owner", {"propagationPolicy": "Orphan"})
    await gone(collected, "~configmaps", "owner")
    assert "ownerReferences" not in (await collected("GET", "~configmaps/child")).body["metadata"]


async def test_a_namespace_goes_with_all_that_is_in_it(collected: Raw):
    """While it empties it takes nothing new."""
    name = f"{collected.namespace}-2"
    await collected("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    inside = f"/api/v1/namespaces/{name}/configmaps"
    await collected("POST", inside, config_map("a", finalizers=["a.io/x"]))
    ending = (await collected("DELETE", f"/api/v1/namespaces/{name}")).body
    assert ending["status"]["phase"] == "Terminating"
    late = await collected("POST", inside, config_map("b"))
    assert (late.status, late.causes) == (403, {("NamespaceTerminating", "metadata.namespace")})
    await collected("PATCH", f"{inside}/a", {"metadata": {"finalizers": None}}, MERGE)
    await gone(collected, "/api/v1/namespaces", name)


async def test_a_lost_nodes_pods_are_deleted_and_stay(api: Raw, fake: FakeKube):
    """Until the node is removed."""
    fake.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})
    await api("POST", "~pods", pod("p", nodeName="n1"))
    await api("POST", "~pods", pod("q", nodeName="n2"))
    fake.lose_node("n1")
    lost = (await api("GET", "~pods/p")).body
    assert lost["metadata"]["deletionTimestamp"] and lost["status"]["reason"] == "NodeLost"
    assert any(one["reason"] == "DeletionByTaintManager" for one in lost["status"]["conditions"] if "reason" in one)
    assert "deletionTimestamp" not in (await api("GET", "~pods/q")).body["metadata"]
    fake.remove_node("n1")
    assert (await api("GET", "~pods/p")).status == 404
