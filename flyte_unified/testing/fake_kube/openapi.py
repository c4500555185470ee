"""The types as OpenAPI documents, in the form that kubectl reads: merge keys, and which parameters a PATCH takes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flyte_unified.testing.fake_kube.resources import Registry, Resource, Schema, definitions

_INFO = {"title": "Kubernetes", "version": "v1.36.0"}
_PARAMETERS = ("dryRun", "fieldManager", "fieldValidation", "force")


def answer(path: str, registry: Registry) -> dict[str, Any] | None:
    """The document at a path below /openapi; None if there is none."""
    versions = {_place(resource): resource.api_version for resource in registry}
    if path == "/openapi/v3":
        return {"paths": {place: {"serverRelativeURL": f"/openapi/v3/{place}"} for place in versions}}
    if path == "/openapi/v2":
        return _v2(registry)
    place = path.removeprefix("/openapi/v3/")
    return _v3(list(registry), versions[place]) if place in versions else None


def _place(resource: Resource) -> str:
    return f"apis/{resource.api_version}" if resource.group else f"api/{resource.version}"


def _v2(registry: Registry) -> dict[str, Any]:
    found = _closure(registry, "#/definitions/")
    return {"swagger": "2.0", "info": _INFO, "paths": {}, "definitions": found}


def _v3(resources: Iterable[Resource], api_version: str) -> dict[str, Any]:
    served = [resource for resource in resources if resource.api_version == api_version]
    schemas = _closure(served, "#/components/schemas/")
    paths = {_path(resource): {"patch": _patch(resource)} for resource in served if "patch" in resource.verbs}
    return {"openapi": "3.0.0", "info": _INFO, "paths": paths, "components": {"schemas": schemas}}


def _path(resource: Resource) -> str:
    return f"/{_place(resource)}/{'namespaces/{namespace}/' if resource.namespaced else ''}{resource.plural}/{{name}}"


def _kind(resource: Resource) -> dict[str, str]:
    return {"group": resource.group, "version": resource.version, "kind": resource.kind}


def _patch(resource: Resource) -> dict[str, Any]:
    parameters = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in _PARAMETERS]
    return {"parameters": parameters, "responses": {}, "x-kubernetes-group-version-kind": _kind(resource)}


def _closure(resources: Iterable[Resource], prefix: str) -> dict[str, Any]:
    """The resources' types and all that they refer to, by name."""
    found: dict[str, Any] = {}
    waiting: list[str] = []
    names = {id(schema): name for name, schema in definitions().items()}
    for resource in resources:
        name = names.get(id(resource.schema)) or _custom_name(resource)
        schema = _renamed(resource.schema, prefix, waiting)
        schema["x-kubernetes-group-version-kind"] = [_kind(resource)]
        found[_full(name)] = schema
    while waiting:
        name = waiting.pop()
        if _full(name) not in found:
            found[_full(name)] = _renamed(definitions()[name], prefix, waiting)
    return found


def _custom_name(resource: Resource) -> str:
    return ".".join([*reversed(resource.group.split(".")), resource.version, resource.kind])


def _full(name: str) -> str:
    return f"io.k8s.{name}" if name in definitions() else name


def _renamed(schema: Schema, prefix: str, waiting: list[str]) -> Any:
    def walk(node: Any) -> Any:
        if isinstance(node, list):
            return [walk(item) for item in node]
        if not isinstance(node, dict):
            return node
        copied = {key: walk(value) for key, value in node.items() if key != "kinds"}
        if isinstance(reference := node.get("$ref"), str):
            waiting.append(reference)
            copied["$ref"] = prefix + _full(reference)
        return copied

    return walk(schema)
