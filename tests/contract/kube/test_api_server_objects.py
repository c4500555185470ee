"""Objects: what a server fills in, what it refuses, and in which words that a client looks at."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.contract.kube.raw import JSON_PATCH, MERGE, STRATEGIC, Raw, config_map, pod


async def test_a_new_object_gets_its_identity(api: Raw):
    """uid, creation time and a resourceVersion are the server's."""
    made = await api("POST", "~configmaps", config_map("a", {"k": "v"}, uid="mine", creationTimestamp="2001-01-01T00:00:00Z"))
    meta = made.body["metadata"]
    assert made.status == 201
    assert (meta["name"], meta["namespace"]) == ("a", api.namespace)
    assert meta["uid"] != "mine" and meta["creationTimestamp"] > "2020" and int(meta["resourceVersion"]) > 0
    assert (await api("GET", "~configmaps/a")).body == made.body


async def test_versions_grow_over_all_kinds(api: Raw):
    """One counter for every resource."""
    first = await api("POST", "~configmaps", config_map("a"))
    second = await api("POST", "~secrets", {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}})
    third = await api("PATCH", "~configmaps/a", {"data": {"k": "v"}}, MERGE)
    assert int(first.version) < int(second.version) < int(third.version)


async def test_a_name_is_generated(api: Raw):
    """Five characters behind the prefix."""
    made = await api("POST", "~configmaps", config_map("") | {"metadata": {"generateName": "run-"}})
    name = made.body["metadata"]["name"]
    assert made.status == 201 and name.startswith("run-") and len(name) == 9


async def test_a_name_is_taken_once(api: Raw):
    """409 AlreadyExists, with the name in its details."""
    await api("POST", "~pods", pod("p"))
    again = await api("POST", "~pods", pod("p"))
    assert (again.status, again.reason) == (409, "AlreadyExists")
    assert again.message == 'pods "p" already exists' and again.body["details"] == {"name": "p", "kind": "pods"}


REFUSED: dict[str, tuple[dict[str, Any], set[tuple[str, str]]]] = {
    "no name": (config_map(""), {("FieldValueRequired", "metadata.name")}),
    "capital letters": (config_map("A"), {("FieldValueInvalid", "metadata.name")}),
    "a label": (config_map("a", labels={"a b": "c d"}), {("FieldValueInvalid", "metadata.labels")}),
    "an annotation": (config_map("a", annotations={"a b": ""}), {("FieldValueInvalid", "metadata.annotations")}),
    "long annotations": (config_map("a", annotations={"a": "x" * 262_145}), {("FieldValueTooLong", "metadata.annotations")}),
    "a finalizer": (config_map("a", finalizers=["mine"]), {("FieldValueInvalid", "metadata.finalizers[0]")}),
    "an owner": (
        config_map("a", ownerReferences=[{"apiVersion": "v1", "kind": "", "name": "o", "uid": ""}]),
        {("FieldValueInvalid", "metadata.ownerReferences.kind"), ("FieldValueInvalid", "metadata.ownerReferences.uid")},
    ),
    "too much data": (config_map("a", {"k": "x" * 1_048_577}), {("FieldValueTooLong", "[]")}),
    "a key": (config_map("a", {"a b": ""}), {("FieldValueInvalid", "data[a b]")}),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_is_invalid_names_its_fields(api: Raw, case: str):
    """422 Invalid with a cause for each."""
    content, causes = REFUSED[case]
    refused = await api("POST", "~configmaps", content)
    assert (refused.status, refused.reason, refused.causes) == (422, "Invalid", causes)


PODS: dict[str, tuple[dict[str, Any], set[tuple[str, str]]]] = {
    "no containers": ({"containers": []}, {("FieldValueRequired", "spec.containers")}),
    "no image": ({"containers": [{"name": "c"}]}, {("FieldValueRequired", "spec.containers[0].image")}),
    "names": (
        {"containers": [{"name": "A", "image": "i"}, {"name": "b", "image": "i"}, {"name": "b", "image": "i"}]},
        {("FieldValueInvalid", "spec.containers[0].name"), ("FieldValueDuplicate", "spec.containers[2].name")},
    ),
    "restart policy": ({"restartPolicy": "Sometimes"}, {("FieldValueNotSupported", "spec.restartPolicy")}),
    "deadline": ({"activeDeadlineSeconds": 0}, {("FieldValueInvalid", "spec.activeDeadlineSeconds")}),
    "mounts": (
        {"containers": [{"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]},
        {("FieldValueNotFound", "spec.containers[0].volumeMounts[0].name")},
    ),
    "requests over limits": (
        {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}]},
        {("FieldValueInvalid", "spec.containers[0].resources.requests")},
    ),
    "gpus requested alone": (
        {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"nvidia.com/gpu": "1"}}}]},
        {("FieldValueRequired", "spec.containers[0].resources.limits")},
    ),
    "environment": (
        {"containers": [{"name": "c", "image": "i", "env": [{"name": "a=b"}]}]},
        {("FieldValueInvalid", "spec.containers[0].env[0].name")},
    ),
    "tolerations": (
        {"tolerations": [{"key": "k", "operator": "Exists", "value": "v"}]},
        {("FieldValueInvalid", "spec.tolerations[0].operator")},
    ),
    "node selector": ({"nodeSelector": {"k": "a b"}}, {("FieldValueInvalid", "spec.nodeSelector")}),
}


@pytest.mark.parametrize("case", PODS)
async def test_a_pod_that_cannot_be_is_refused(api: Raw, case: str):
    """As a task's pod could be wrong."""
    spec, causes = PODS[case]
    refused = await api("POST", "~pods", pod("p", **spec))
    assert (refused.status, refused.causes) == (422, causes)


async def test_a_pod_gets_its_defaults(api: Raw):
    """A reader finds them, the client need not write them."""
    resources = {"limits": {"cpu": "1000m", "memory": "1024Mi"}}
    made = (await api("POST", "~pods", pod("p", containers=[{"name": "c", "image": "i", "resources": resources}]))).body
    container = made["spec"]["containers"][0]
    assert made["status"] == {"phase": "Pending", "qosClass": "Guaranteed"} and made["metadata"]["generation"] == 1
    assert container["resources"] == {key: {"cpu": "1", "memory": "1Gi"} for key in ("limits", "requests")}
    assert (container["imagePullPolicy"], made["spec"]["restartPolicy"]) == ("Always", "Always")
    assert [one["tolerationSeconds"] for one in made["spec"]["tolerations"]] == [300, 300]


async def test_unknown_fields_go_with_a_warning_or_are_refused(api: Raw):
    """As fieldValidation says: Warn by default, Ignore, Strict."""
    wrong = pod("p", foo=1)
    warned = await api("POST", "~pods?dryRun=All", wrong)
    ignored = await api("POST", "~pods?dryRun=All&fieldValidation=Ignore", wrong)
    strict = await api("POST", "~pods?fieldValidation=Strict", wrong)
    assert (warned.status, warned.headers["Warning"]) == (201, '299 - "unknown field \\"spec.foo\\""')
    assert "foo" not in warned.body["spec"] and ignored.status == 201 and "Warning" not in ignored.headers
    assert (strict.status, strict.reason) == (400, "BadRequest") and 'unknown field "spec.foo"' in strict.message


BAD: dict[str, tuple[bytes, str, int]] = {
    "half of it": (b"{", "application/json", 400),
    "nothing": (b"", "application/json", 400),
    "a list": (b"[]", "application/json", 400),
    "another type": (b'{"metadata":{"name":"p"},"spec":{"containers":"x"}}', "application/json", 400),
    "no quantity": (
        b'{"metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"i","resources":{"limits":{"cpu":"x"}}}]}}',
        "application/json",
        400,
    ),
    "text": (b"x", "text/plain", 415),
    "a flood": (b'{"metadata":{"name":"' + b"x" * 3_200_000 + b'"}}', "application/json", 413),
}


@pytest.mark.parametrize("case", BAD)
async def test_a_body_that_is_no_object_is_refused(api: Raw, case: str):
    """With the status that says why."""
    body, kind, status = BAD[case]
    assert (await api("POST", "~pods", body, kind)).status == status


async def test_an_object_has_an_end(api: Raw):
    """What etcd would not take is refused in etcd's words."""
    event = {"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "message": "x" * 1_700_000}
    refused = await api("POST", "~events", event | {"involvedObject": {"namespace": api.namespace}})
    assert (refused.status, refused.message) == (500, "etcdserver: request is too large")


async def test_paths_that_lead_nowhere(api: Raw):
    """404 for what is not served, 405 for what is not done there."""
    asked = [
        await api("GET", "~foos"),
        await api("GET", "~pods/nope"),
        await api("PUT", "~pods"),
        await api("POST", "~pods/p", pod("p")),
    ]
    assert [answer.status for answer in asked] == [404, 404, 405, 405]
    assert asked[1].message == 'pods "nope" not found'
    assert (await api("POST", "/api/v1/namespaces/nope/pods", pod("p"))).message == 'namespaces "nope" not found'


async def test_a_namespace_is_where_it_belongs(api: Raw):
    """Across namespaces one lists and watches, and no more; what has no namespace is not found in one."""
    await api("POST", "~configmaps", config_map("a"))
    everywhere = await api("GET", f"/api/v1/configmaps?fieldSelector=metadata.namespace={api.namespace},metadata.name=a")
    assert [one["metadata"]["name"] for one in everywhere.body["items"]] == ["a"]
    asked = [
        await api("POST", "/api/v1/configmaps", config_map("b", namespace=api.namespace)),
        await api("DELETE", "/api/v1/configmaps"),
        await api("GET", "/api/v1/configmaps/a"),
        await api("GET", "~nodes"),
        await api("POST", "~configmaps", config_map("b", namespace="elsewhere")),
    ]
    assert [answer.status for answer in asked] == [405, 405, 404, 404, 400]


async def test_an_old_version_does_not_win(api: Raw):
    """An update of another state is a conflict; one without a version is taken."""
    old = (await api("POST", "~configmaps", config_map("a", {"k": "1"}))).body
    new = (await api("PUT", "~configmaps/a", {**old, "data": {"k": "2"}})).body
    late = await api("PUT", "~configmaps/a", {**old, "data": {"k": "3"}})
    assert (late.status, late.reason) == (409, "Conflict") and "the object has been modified" in late.message
    patched = await api("PATCH", "~configmaps/a", {"metadata": {"resourceVersion": old["metadata"]["resourceVersion"]}}, MERGE)
    assert patched.status == 409
    blind = await api("PUT", "~configmaps/a", config_map("a", {"k": "4"}))
    assert blind.status == 200 and int(blind.version) > int(new["metadata"]["resourceVersion"])


async def test_of_many_writers_of_one_version_one_wins(api: Raw):
    """Optimistic locking."""
    old = (await api("POST", "~configmaps", config_map("a", {"k": "0"}))).body
    answers = await asyncio.gather(*(api("PUT", "~configmaps/a", {**old, "data": {"k": str(n)}}) for n in range(1, 9)))
    assert sorted(answer.status for answer in answers) == [200] + [409] * 7


async def test_no_change_is_no_write(api: Raw):
    """The version stays."""
    made = await api("POST", "~configmaps", config_map("a", {"k": "1"}))
    same = await api("PATCH", "~configmaps/a", {"data": {"k": "1"}, "metadata": {"labels": {}}}, MERGE)
    assert (same.status, same.version) == (200, made.version)


async def test_identity_does_not_change(api: Raw):
    """Name, namespace and uid are refused, the creation time is kept."""
    made = (await api("POST", "~configmaps", config_map("a"))).body
    changes = [{"name": "b"}, {"namespace": "b"}, {"uid": "b"}]
    assert [(await api("PATCH", "~configmaps/a", {"metadata": one}, MERGE)).status for one in changes] == [400, 400, 422]
    kept = await api("PATCH", "~configmaps/a", {"metadata": {"creationTimestamp": "2001-01-01T00:00:00Z"}}, MERGE)
    assert kept.body["metadata"] == made["metadata"]
    other = await api("PUT", "~configmaps/a", config_map("a", uid="other"))
    assert (other.status, other.reason) == (409, "Conflict")


async def test_a_dry_run_changes_nothing(api: Raw):
    """It answers as if."""
    made = await api("POST", "~configmaps?dryRun=All", config_map("a"))
    assert made.status == 201 and (await api("GET", "~configmaps/a")).status == 404
    kept = await api("POST", "~configmaps", config_map("a", {"k": "1"}))
    assert (await api("PATCH", "~configmaps/a?dryRun=All", {"data": {"k": "2"}}, MERGE)).body["data"] == {"k": "2"}
    assert (await api("DELETE", "~configmaps/a?dryRun=All")).status == 200
    assert (await api("GET", "~configmaps/a")).body == kept.body


async def test_a_pods_spec_is_fixed(api: Raw):
    """Images, a shorter deadline and more tolerations are taken; all else is not."""
    await api("POST", "~pods", pod("p"))
    assert (await api("PATCH", "~pods/p", {"spec": {"nodeName": "n"}}, MERGE)).causes == {("FieldValueForbidden", "spec")}
    image = {"spec": {"containers": [{"name": "main", "image": "other"}], "activeDeadlineSeconds": 10}}
    changed = await api("PATCH", "~pods/p", image, STRATEGIC)
    assert changed.body["spec"]["containers"][0]["image"] == "other" and changed.body["metadata"]["generation"] == 2
    longer = await api("PATCH", "~pods/p", {"spec": {"activeDeadlineSeconds": 20}}, MERGE)
    assert longer.causes >= {("FieldValueInvalid", "spec.activeDeadlineSeconds")}
    more = [*changed.body["spec"]["tolerations"], {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert (await api("PATCH", "~pods/p", {"spec": {"tolerations": more}}, MERGE)).status == 200
    fewer = await api("PATCH", "~pods/p", {"spec": {"tolerations": more[:-1]}}, MERGE)
    assert fewer.status == 422


async def test_status_is_written_at_its_own_address(api: Raw):
    """A write of the object leaves it alone, a write of the status leaves the spec alone."""
    await api("POST", "~pods", pod("p") | {"status": {"phase": "Running"}})
    beside = await api("PATCH", "~pods/p", {"status": {"phase": "Running"}, "metadata": {"labels": {"a": "b"}}}, MERGE)
    assert beside.body["status"]["phase"] == "Pending"
    at_it = await api("PATCH", "~pods/p/status", {"status": {"phase": "Running"}, "spec": {"activeDeadlineSeconds": 3}}, MERGE)
    assert at_it.body["status"]["phase"] == "Running" and "activeDeadlineSeconds" not in at_it.body["spec"]
    assert at_it.body["metadata"]["generation"] == 1 and at_it.body["metadata"]["labels"] == {"a": "b"}


async def test_an_ended_container_stays_ended(api: Raw):
    """In a pod that does not restart."""
    await api("POST", "~pods", pod("p", restartPolicy="Never"))

    def status(state: dict[str, Any]) -> dict[str, Any]:
        one = {"name": "main", "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": state}
        return {"status": {"phase": "Running", "containerStatuses": [one]}}

    ended = await api("PATCH", "~pods/p/status", status({"terminated": {"exitCode": 1}}), MERGE)
    terminated = {"exitCode": 1, "startedAt": None, "finishedAt": None}
    assert ended.body["status"]["containerStatuses"][0]["state"]["terminated"] == terminated
    again = await api("PATCH", "~pods/p/status", status({"running": {}}), MERGE)
    assert again.causes == {("FieldValueForbidden", "status.containerStatuses[0].state")}


async def test_a_json_patch_is_applied_whole_or_not(api: Raw):
    """``test`` guards the rest."""
    await api("POST", "~configmaps", config_map("a", {"k": "1"}))
    good = [
        {"op": "test", "path": "/data/k", "value": "1"},
        {"op": "add", "path": "/data/l", "value": "2"},
        {"op": "remove", "path": "/data/k"},
    ]
    assert (await api("PATCH", "~configmaps/a", good, JSON_PATCH)).body["data"] == {"l": "2"}
    failed = await api("PATCH", "~configmaps/a", [{"op": "replace", "path": "/data/l", "value": "3"}, *good[:1]], JSON_PATCH)
    assert (failed.status, failed.reason) == (422, "Invalid")
    assert (await api("GET", "~configmaps/a")).body["data"] == {"l": "2"}
    assert (await api("PATCH", "~configmaps/a", {"op": "x"}, JSON_PATCH)).status == 400
    assert (await api("PATCH", "~configmaps/a", {}, "application/json")).status == 415


async def test_a_strategic_patch_knows_the_lists(api: Raw):
    """Containers and variables by name, finalizers as a set; and how to delete from them."""
    spec = {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {
                "containers": [{"name": "c", "image": "i", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}]
            },
        },
    }
    content = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "finalizers": ["a.io/b"]}, "spec": spec}
    await api("POST", "~apps/v1@deployments", content)
    env = [{"name": "C", "value": "3"}, {"name": "A", "$patch": "delete"}, {"name": "B", "value": "9"}]
    patch = {
        "metadata": {"finalizers": ["a.io/c"]},
        "spec": {"template": {"spec": {"containers": [{"name": "c", "env": env}]}}},
    }
    done = (await api("PATCH", "~apps/v1@deployments/d", patch, STRATEGIC)).body
    container = done["spec"]["template"]["spec"]["containers"][0]
    assert {one["name"]: one["value"] for one in container["env"]} == {"B": "9", "C": "3"} and container["image"] == "i"
    assert set(done["metadata"]["finalizers"]) == {"a.io/b", "a.io/c"} and done["metadata"]["generation"] == 2
    gone = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a.io/b", "a.io/c"]}}
    assert "finalizers" not in (await api("PATCH", "~apps/v1@deployments/d", gone, STRATEGIC)).body["metadata"]


async def test_a_pod_is_bound_once(api: Raw):
    """To one node; its place is no part of an update."""
    await api("POST", "~pods", pod("p"))
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}}
    assert (await api("POST", "~pods/p/binding", binding)).status == 201
    bound = (await api("GET", "~pods/p")).body
    assert bound["spec"]["nodeName"] == "n1" and bound["status"]["conditions"][0]["type"] == "PodScheduled"
    again = await api("POST", "~pods/p/binding", binding)
    assert (again.status, again.reason) == (409, "Conflict") and "already assigned" in again.message


async def test_an_event_is_one_object_in_two_groups(api: Raw):
    """Under their own names of its fields."""
    about = {"kind": "Pod", "name": "p", "namespace": api.namespace}
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "e"},
        "involvedObject": about,
        "message": "m",
        "reason": "R",
    }
    await api("POST", "~events", event)
    other = (await api("GET", "~events.k8s.io/v1@events/e")).body
    assert (other["regarding"], other["note"], other["apiVersion"]) == (about, "m", "events.k8s.io/v1")
    found = await api("GET", "~events?fieldSelector=involvedObject.name=p,reason=R")
    assert [one["metadata"]["name"] for one in found.body["items"]] == ["e"]
    astray = await api("POST", "~events", event | {"metadata": {"name": "f"}, "involvedObject": {"namespace": "elsewhere"}})
    assert astray.causes == {("FieldValueInvalid", "involvedObject.namespace")}


async def test_a_leases_times_have_six_digits(api: Raw):
    """And an update of a lease names the version it saw; of one that is not there it makes one."""

    def lease(**spec: Any) -> dict[str, Any]:
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec": spec}

    path = "~coordination.k8s.io/v1@leases"
    assert (await api("POST", path, lease(renewTime="2026-01-01T00:00:00Z"))).status == 400
    made = await api("PUT", f"{path}/l", lease(holderIdentity="a", renewTime="2026-01-01T00:00:00.123456Z"))
    assert (made.status, made.body["spec"]["renewTime"]) == (201, "2026-01-01T00:00:00.123456Z")
    assert (await api("PUT", f"{path}/l", lease(holderIdentity="b"))).causes == {
        ("FieldValueInvalid", "metadata.resourceVersion")
    }
