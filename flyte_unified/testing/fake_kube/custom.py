"""CustomResourceDefinitions: what may be defined, and the resources that a definition serves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flyte_unified.testing.fake_kube.errors import Cause, forbidden_field, invalid_value, required, unsupported
from flyte_unified.testing.fake_kube.metadata import dns_subdomain, timestamp
from flyte_unified.testing.fake_kube.resources import ALL_VERBS, Object, Resource, Schema

CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
"""The finalizer under which a definition's objects are deleted before it goes."""


def default(content: Object) -> None:
    spec = content.setdefault("spec", {})
    names = spec.setdefault("names", {})
    if kind := names.get("kind"):
        names.setdefault("singular", kind.lower())
        names.setdefault("listKind", f"{kind}List")
    spec.setdefault("conversion", {"strategy": "None"})


def check(content: Object, old: Object | None) -> list[Cause]:
    spec = content["spec"]
    names, group, versions = spec["names"], spec.get("group", ""), spec.get("versions") or []
    wanted = f"{names.get('plural', '')}.{group}"
    causes = []
    if content["metadata"].get("name") != wanted:
        text = 'must be spec.names.plural+"."+spec.group'
        causes.append(invalid_value("metadata.name", content["metadata"].get("name", ""), text))
    if not group or (why := dns_subdomain(group)) or "." not in group:
        causes.append(
            required("spec.group")
            if not group
            else invalid_value("spec.group", group, why or "should be a domain with at least one dot")
        )
    if spec.get("scope") not in ("Cluster", "Namespaced"):
        causes.append(
            unsupported("spec.scope", spec.get("scope", ""), ["Cluster", "Namespaced"])
            if spec.get("scope")
            else required("spec.scope")
        )
    causes += [required(f"spec.names.{key}") for key in ("plural", "kind") if not names.get(key)]
    if sum(1 for version in versions if version.get("storage")) != 1:
        causes.append(invalid_value("spec.versions", versions, "must have exactly one version marked as storage version"))
    for index, version in enumerate(versions):
        # A schema that is the only one is told of where it stood in older definitions.
        place = "spec.validation.openAPIV3Schema" if len(versions) == 1 else f"spec.versions[{index}].schema.openAPIV3Schema"
        causes += _version(version, f"spec.versions[{index}].schema.openAPIV3Schema", place)
    if old is not None:
        for field in ("group", "scope"):
            if spec.get(field) != old["spec"].get(field):
                causes.append(invalid_value(f"spec.{field}", spec.get(field), "field is immutable"))
    return causes


def _version(version: Mapping[str, Any], path: str, place: str) -> Iterator[Cause]:
    schema = (version.get("schema") or {}).get("openAPIV3Schema")
    if schema is None:
        yield required(path)
        return
    if not schema.get("type"):
        yield required(f"{place}.type", "must not be empty at the root")
    elif schema["type"] != "object":
        yield invalid_value(f"{place}.type", schema["type"], "must be object at the root")
    yield from _structural(schema, place)


def _structural(schema: Schema, path: str) -> Iterator[Cause]:
    """Every field has a type, and ``properties`` and ``additionalProperties`` exclude each other."""
    if "properties" in schema and schema.get("additionalProperties"):
        yield forbidden_field(f"{path}.additionalProperties", "additionalProperties and properties are mutual exclusive")
    for key, inner in (schema.get("properties") or {}).items():
        where = f"{path}.properties[{key}]"
        yield from _typed(inner, where, "must not be empty for specified object fields")
        yield from _structural(inner, where)
    if isinstance(items := schema.get("items"), Mapping):
        yield from _typed(items, f"{path}.items", "must not be empty for specified array items")
        yield from _structural(items, f"{path}.items")
    elif schema.get("type") == "array":
        yield required(f"{path}.items", "must be specified")
    if isinstance(rest := schema.get("additionalProperties"), Mapping):
        yield from _typed(rest, f"{path}.additionalProperties", "must not be empty for specified object fields")
        yield from _structural(rest, f"{path}.additionalProperties")


def _typed(schema: Schema, path: str, why: str) -> Iterator[Cause]:
    free = schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
    if not schema.get("type") and not free:
        yield required(f"{path}.type", why)


def resources(definition: Object) -> list[Resource]:
    """What the definition serves, a resource a version."""
    spec = definition["spec"]
    names, stored = spec["names"], next(version["name"] for version in spec["versions"] if version["storage"])
    return [_resource(spec, names, version, stored) for version in spec["versions"] if version.get("served")]


def _resource(spec: Object, names: Object, version: Object, stored: str) -> Resource:
    below = version.get("subresources") or {}
    fields = tuple(field["jsonPath"].removeprefix(".") for field in version.get("selectableFields") or ())
    return Resource(
        spec["group"], version["name"], names["kind"], names["plural"], spec["scope"] == "Namespaced",
        singular=names["singular"], short=tuple(names.get("shortNames") or ()), categories=tuple(names.get("categories") or ()),
        subresources=frozenset({"status"} & below.keys()), fields=fields, verbs=ALL_VERBS, generation=True, blind_update=False,
        custom=True, schema=version["schema"]["openAPIV3Schema"], columns=tuple(version.get("additionalPrinterColumns") or ()),
        storage_version=stored,
    )  # fmt: skip


def first_status(definition: Object) -> Object:
    """Before anybody looked at the names: conditions are null, which clients must bear."""
    stored = [version["name"] for version in definition["spec"].get("versions") or () if version.get("storage")]
    return {"conditions": None, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": stored}


def established(definition: Object) -> Object:
    """The status of a definition whose names nobody else has."""
    now = timestamp()
    texts = {
        "NamesAccepted": ("NoConflicts", "no conflicts found"),
        "Established": ("InitialNamesAccepted", "the initial names have been accepted"),
    }
    conditions = [
        {"type": kind, "status": "True", "lastTransitionTime": now, "reason": reason, "message": message}
        for kind, (reason, message) in texts.items()
    ]
    stored = [version["name"] for version in definition["spec"]["versions"] if version["storage"]]
    before = (definition.get("status") or {}).get("storedVersions") or []
    versions = [*before, *(name for name in stored if name not in before)]
    return {"conditions": conditions, "acceptedNames": definition["spec"]["names"], "storedVersions": versions}
