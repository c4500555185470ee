"""Server-side apply: fields have managers, who disagree, and what nobody applies any more goes."""

from __future__ import annotations

from typing import Any

from tests.contract.kube.raw import APPLY, MERGE, Answer, Raw, config_map, pod


async def apply(api: Raw, path: str, content: dict[str, Any], manager: str, *, force: bool = False) -> Answer:
    return await api("PATCH", f"{path}?fieldManager={manager}{'&force=true' if force else ''}", content, APPLY)


def managed(answer: Answer) -> dict[tuple[str, str], Any]:
    """Fields by manager and operation."""
    return {(one["manager"], one["operation"]): one["fieldsV1"] for one in answer.body["metadata"]["managedFields"]}


async def test_an_applied_object_is_made_and_changed(api: Raw):
    """201, then 200; what is not applied again is removed."""
    first = await apply(api, "~configmaps/a", config_map("a", {"x": "1", "y": "1"}, labels={"l": "1"}), "one")
    assert first.status == 201
    assert managed(first) == {("one", "Apply"): {"f:data": {"f:x": {}, "f:y": {}}, "f:metadata": {"f:labels": {"f:l": {}}}}}
    second = await apply(api, "~configmaps/a", config_map("a", {"x": "2"}), "one")
    assert second.status == 200 and second.body["data"] == {"x": "2"} and "labels" not in second.body["metadata"]


async def test_managers_disagree_about_values(api: Raw):
    """A conflict names field and manager; force takes the field; equal values are shared."""
    await apply(api, "~configmaps/a", config_map("a", {"x": "1", "y": "1"}), "one")
    refused = await apply(api, "~configmaps/a", config_map("a", {"x": "2"}), "two")
    assert (refused.status, refused.reason, refused.causes) == (409, "Conflict", {("FieldManagerConflict", ".data.x")})
    assert 'conflict with "one"' in refused.message
    shared = await apply(api, "~configmaps/a", config_map("a", {"x": "1", "z": "1"}), "two")
    assert shared.body["data"] == {"x": "1", "y": "1", "z": "1"}
    taken = await apply(api, "~configmaps/a", config_map("a", {"x": "3"}), "two", force=True)
    assert taken.body["data"] == {"x": "3", "y": "1"}
    assert managed(taken) == {("one", "Apply"): {"f:data": {"f:y": {}}}, ("two", "Apply"): {"f:data": {"f:x": {}}}}
    left = await apply(api, "~configmaps/a", config_map("a"), "one")
    assert left.body["data"] == {"x": "3"}


async def test_an_update_takes_what_it_writes(api: Raw):
    """Who applies the field afterwards is told."""
    await apply(api, "~configmaps/a", config_map("a", {"x": "1"}), "one")
    written = await api("PATCH", "~configmaps/a?fieldManager=hand", {"data": {"x": "2", "q": "1"}}, MERGE)
    assert managed(written) == {("hand", "Update"): {"f:data": {"f:q": {}, "f:x": {}}}}
    refused = await apply(api, "~configmaps/a", config_map("a", {"x": "1"}), "one")
    assert refused.causes == {("FieldManagerConflict", ".data.x")} and '"hand" using v1' in refused.message


async def test_what_was_there_before_is_somebodys(api: Raw):
    """An application to an object that was created otherwise conflicts where it differs."""
    await api("POST", "~configmaps", config_map("a", {"x": "1", "y": "1"}))
    refused = await apply(api, "~configmaps/a", config_map("a", {"x": "2"}), "one")
    assert refused.causes == {("FieldManagerConflict", ".data.x")}
    assert (await apply(api, "~configmaps/a", config_map("a", {"x": "1"}), "one")).status == 200


async def test_items_of_lists_have_managers(api: Raw):
    """Containers, variables and ports by their keys; a status by its own address."""
    main = {"name": "main", "image": "i:1", "env": [{"name": "A", "value": "1"}], "ports": [{"containerPort": 80}]}
    made = await apply(api, "~pods/p", pod("p", containers=[main]), "one")
    fields = managed(made)["one", "Apply"]["f:spec"]["f:containers"]['k:{"name":"main"}']
    assert fields["f:env"] == {'k:{"name":"A"}': {".": {}, "f:name": {}, "f:value": {}}}
    assert fields["f:ports"] == {'k:{"containerPort":80,"protocol":"TCP"}': {".": {}, "f:containerPort": {}}}
    refused = await apply(api, "~pods/p", pod("p", containers=[{"name": "main", "image": "i:2"}]), "two")
    assert refused.causes == {("FieldManagerConflict", '.spec.containers[name="main"].image')}
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    content = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}
    running = await apply(api, "~pods/p/status", {**content, "status": status}, "kubelet")
    assert running.body["status"]["conditions"][0]["type"] == "Ready"
    assert {one.get("subresource") for one in running.body["metadata"]["managedFields"]} == {None, "status"}
    fewer = await apply(api, "~pods/p/status", {**content, "status": {"phase": "Running"}}, "kubelet")
    assert not fewer.body["status"].get("conditions")


async def test_an_item_that_is_no_longer_applied_goes(api: Raw):
    """With all of it."""

    def deployment(*names: str) -> dict[str, Any]:
        containers = [{"name": name, "image": "i:1"} for name in names]
        template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": containers}}
        spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
        return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec}

    await apply(api, "~apps/v1@deployments/d", deployment("main", "side"), "one")
    left = (await apply(api, "~apps/v1@deployments/d", deployment("main"), "one")).body
    assert [one["name"] for one in left["spec"]["template"]["spec"]["containers"]] == ["main"]


async def test_an_application_says_who_and_what(api: Raw):
    """A manager, the object of the address, fields of its type, and no managedFields."""
    good = config_map("a", {"x": "1"})
    assert (await api("PATCH", "~configmaps/a", good, APPLY)).causes == {("FieldValueRequired", "fieldManager")}
    assert (await apply(api, "~configmaps/b", good, "one")).status == 400
    assert (await apply(api, "~configmaps/a", config_map("a", managedFields=[]), "one")).status == 400
    unknown = await apply(api, "~configmaps/a", good | {"foo": 1}, "one")
    assert unknown.status == 500 and ".foo: field not declared in schema" in unknown.message
    assert (await apply(api, "~pods/none/status", pod("none"), "one")).status == 404
