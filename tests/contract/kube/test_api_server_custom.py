"""Custom resources: served as they are defined, pruned, filled in and checked by their schema."""

from __future__ import annotations

import copy
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.contract.kube.raw import MERGE, STRATEGIC, Raw

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"

SPEC: dict[str, Any] = {
    "type": "object",
    "required": ["size"],
    "properties": {
        "size": {"type": "integer", "minimum": 1, "maximum": 5},
        "word": {"type": "string", "pattern": "^[a-z]+$", "minLength": 2, "maxLength": 5},
        "choice": {"type": "string", "enum": ["a", "b"]},
        "default": {"type": "string", "default": "there"},
        "nested": {"type": "object", "properties": {"x": {"type": "integer", "default": 7}}},
        "either": {"x-kubernetes-int-or-string": True},
        "list": {"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "string"}},
        "map": {"type": "object", "additionalProperties": {"type": "integer"}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "named": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"type": "string"}, "v": {"type": "string"}},
            },
        },
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "time": {"type": "string", "format": "date-time"},
        "nothing": {"type": "string", "nullable": True},
        "flag": {"type": "boolean"},
    },
}


def definition(group: str) -> dict[str, Any]:
    status = {"type": "object", "properties": {"phase": {"type": "string"}}}
    schema = {"type": "object", "required": ["spec"], "properties": {"spec": SPEC, "status": status}}
    columns = [
        {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": schema},
    }
    names = {"plural": "things", "kind": "Thing", "shortNames": ["th"]}
    spec = {
        "group": group,
        "scope": "Namespaced",
        "names": names,
        "versions": [{**version, "additionalPrinterColumns": columns}],
    }
    kind = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    return {**kind, "metadata": {"name": f"things.{group}"}, "spec": spec}


@pytest.fixture
async def things(api: Raw) -> AsyncIterator[str]:
    """The path of a new resource's objects."""
    group = f"t{uuid.uuid4().hex[:8]}.example.org"
    made = await api("POST", DEFINITIONS, definition(group))
    assert made.status == 201, made.body
    async with api.watch(DEFINITIONS, fieldSelector=f"metadata.name=things.{group}", resourceVersion="0") as watch:
        while not established((await watch.next())[1]):
            continue
    path = f"~{group}/v1@things"
    while (await api("GET", path)).status == 404:  # a real server says that it is established before it serves it
        continue
    yield path
    await api("DELETE", f"{DEFINITIONS}/things.{group}")


def established(content: dict[str, Any]) -> bool:
    conditions = content["status"]["conditions"] or ()  # null at first
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)


def thing(path: str, name: str, spec: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    content = {"apiVersion": path[1:].partition("@")[0], "kind": "Thing", "metadata": {"name": name}, **more}
    return content if spec is None else content | {"spec": spec}


async def test_a_definition_is_served_at_once(api: Raw, things: str):
    """By discovery too, with its short name."""
    group = things[1:].partition("/")[0]
    found = (await api("GET", f"/apis/{group}/v1")).body["resources"]
    assert [(one["name"], one["kind"]) for one in found] == [("things", "Thing"), ("things/status", "Thing")]
    assert found[0]["shortNames"] == ["th"] and found[0]["singularName"] == "thing" and found[0]["namespaced"] is True
    assert group in [one["name"] for one in (await api("GET", "/apis")).body["groups"]]


def without_type(content: dict[str, Any]) -> None:
    del content["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["type"]


WRONG: dict[str, tuple[Any, str]] = {
    "name": (lambda one: one["metadata"].update(name="others.example.org"), "metadata.name"),
    "scope": (lambda one: one["spec"].update(scope="Everywhere"), "spec.scope"),
    "storage": (lambda one: one["spec"]["versions"][0].update(storage=False), "spec.versions"),
    "type": (without_type, ".properties[spec].type"),
    "schema": (lambda one: one["spec"]["versions"][0].pop("schema"), "spec.versions[0].schema.openAPIV3Schema"),
}


@pytest.mark.parametrize("case", WRONG)
async def test_a_wrong_definition_is_refused(api: Raw, case: str):
    """Schemas are structural, names fit, one version is stored."""
    spoil, field = WRONG[case]
    content = copy.deepcopy(definition("wrong.example.org"))
    spoil(content)
    refused = await api("POST", DEFINITIONS, content)
    assert refused.status == 422 and any(where.endswith(field) for _, where in refused.causes)


async def test_unknown_fields_are_pruned_and_defaults_filled_in(api: Raw, things: str):
    """A status of the creator's making is dropped, generation begins at one."""
    spec = {"size": 1, "other": 2, "nested": {"y": 1}, "free": {"q": {"r": 1}}, "either": "5%", "nothing": None, "word": None}
    made = await api("POST", things, thing(things, "a", spec, status={"phase": "x"}, extra=1))
    assert made.status == 201 and "status" not in made.body and "extra" not in made.body
    expected = {"size": 1, "default": "there", "nested": {"x": 7}, "free": {"q": {"r": 1}}, "either": "5%", "nothing": None}
    assert made.body["spec"] == expected and made.body["metadata"]["generation"] == 1
    strict = await api("POST", f"{things}?fieldValidation=Strict", thing(things, "b", {"size": 1, "other": 2}))
    assert strict.status == 400 and 'unknown field "spec.other"' in strict.message


INVALID: dict[str, tuple[dict[str, Any] | None, str, str]] = {
    "type": ({"size": "x"}, "FieldValueTypeInvalid", "spec.size"),
    "missing": ({}, "FieldValueRequired", "spec.size"),
    "null": ({"size": None}, "FieldValueRequired", "spec.size"),
    "low": ({"size": 0}, "FieldValueInvalid", "spec.size"),
    "high": ({"size": 9}, "FieldValueInvalid", "spec.size"),
    "pattern": ({"size": 1, "word": "A1"}, "FieldValueInvalid", "spec.word"),
    "long": ({"size": 1, "word": "abcdef"}, "FieldValueTooLong", "spec.word"),
    "short": ({"size": 1, "word": "a"}, "FieldValueInvalid", "spec.word"),
    "enum": ({"size": 1, "choice": "c"}, "FieldValueNotSupported", "spec.choice"),
    "either": ({"size": 1, "either": True}, "FieldValueTypeInvalid", "spec.either"),
    "many": ({"size": 1, "list": ["a", "b", "c"]}, "FieldValueTooMany", "spec.list"),
    "few": ({"size": 1, "list": []}, "FieldValueInvalid", "spec.list"),
    "values": ({"size": 1, "map": {"a": "x"}}, "FieldValueTypeInvalid", "spec.map.a"),
    "twice by key": ({"size": 1, "named": [{"name": "a"}, {"name": "a"}]}, "FieldValueDuplicate", "spec.named[1]"),
    "no key": ({"size": 1, "named": [{"v": "a"}]}, "FieldValueRequired", "spec.named[0].name"),
    "twice": ({"size": 1, "set": ["a", "a"]}, "FieldValueDuplicate", "spec.set[1]"),
    "time": ({"size": 1, "time": "now"}, "FieldValueTypeInvalid", "spec.time"),
    "flag": ({"size": 1, "flag": "true"}, "FieldValueTypeInvalid", "spec.flag"),
    "no spec": (None, "FieldValueRequired", "spec"),
}


@pytest.mark.parametrize("case", INVALID)
async def test_what_its_schema_forbids_is_refused(api: Raw, things: str, case: str):
    """422 with the field."""
    spec, reason, field = INVALID[case]
    refused = await api("POST", things, thing(things, "a", spec))
    assert (refused.status, refused.reason) == (422, "Invalid") and (reason, field) in refused.causes


async def test_its_status_has_an_address_of_its_own(api: Raw, things: str):
    """A write there changes nothing else, labels and finalizers included; generation counts the spec."""
    made = (await api("POST", things, thing(things, "a", {"size": 1}))).body
    assert (await api("PUT", f"{things}/a", thing(things, "a", {"size": 2}))).causes == {
        ("FieldValueInvalid", "metadata.resourceVersion")
    }
    updated = await api("PUT", f"{things}/a", {**made, "spec": {"size": 2}, "status": {"phase": "x"}})
    assert "status" not in updated.body and updated.body["metadata"]["generation"] == 2
    patch = {"status": {"phase": "run"}, "spec": {"size": 3}, "metadata": {"labels": {"a": "b"}, "finalizers": ["a.io/b"]}}
    written = (await api("PATCH", f"{things}/a/status", patch, MERGE)).body
    assert (written["status"], written["spec"]["size"], written["metadata"]["generation"]) == ({"phase": "run"}, 2, 2)
    assert not written["metadata"].keys() & {"labels", "finalizers"}
    wrong = await api("PATCH", f"{things}/a/status", {"status": {"phase": 5}}, MERGE)
    assert wrong.causes == {("FieldValueTypeInvalid", "status.phase")}
    assert (await api("PATCH", f"{things}/a", {"spec": {"size": 4}}, STRATEGIC)).status == 415


async def test_a_finalizer_without_a_domain_is_warned_of(api: Raw, things: str):
    """And taken."""
    content = thing(things, "a", {"size": 1})
    content["metadata"]["finalizers"] = ["mine"]
    made = await api("POST", things, content)
    assert made.status == 201 and "prefer a domain-qualified finalizer name" in made.headers["Warning"]
    await api("PATCH", f"{things}/a", {"metadata": {"finalizers": None}}, MERGE)


async def test_its_columns_are_shown(api: Raw, things: str):
    """As kubectl asks for them."""
    await api("POST", things, thing(things, "a", {"size": 3}))
    table = (await api("GET", things, Accept=TABLE)).body
    assert table["kind"] == "Table" and [one["name"] for one in table["columnDefinitions"]] == ["Name", "Size", "Age"]
    assert table["rows"][0]["cells"][:2] == ["a", 3] and table["rows"][0]["object"]["metadata"]["name"] == "a"


async def test_a_definition_goes_with_its_objects(api: Raw):
    """And its address with it."""
    group = f"t{uuid.uuid4().hex[:8]}.example.org"
    await api("POST", DEFINITIONS, definition(group))
    path = f"~{group}/v1@things"
    while (await api("POST", path, thing(path, "a", {"size": 1}))).status == 404:
        continue
    await api("DELETE", f"{DEFINITIONS}/things.{group}")
    while (await api("GET", f"{DEFINITIONS}/things.{group}")).status != 404:
        continue
    while (await api("GET", path)).status != 404:
        continue
