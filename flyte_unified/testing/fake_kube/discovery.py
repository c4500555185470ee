"""What a client asks before it asks for objects: versions, groups, resources, health."""

from __future__ import annotations

from typing import Any

from flyte_unified.testing.fake_kube.resources import Registry, Resource

VERSION = {
    "major": "1", "minor": "36", "gitVersion": "v1.36.0", "gitCommit": "", "gitTreeState": "",
    "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "", "platform": "linux/amd64",
}  # fmt: skip


def answer(path: str, registry: Registry) -> dict[str, Any] | str | None:
    """The answer to a path that is no resource's; None if there is none."""
    parts = path.strip("/").split("/")
    match parts:
        case ["healthz" | "livez" | "readyz", *_]:
            return "ok"
        case ["version"]:
            return VERSION
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
        case ["apis"]:
            groups = [_group(name, versions) for name, versions in registry.groups().items()]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        case ["apis", group] if versions := registry.groups().get(group):
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(group, versions)}
        case ["api", "v1"]:
            return _resources(registry, "", "v1")
        case ["apis", group, version] if version in registry.groups().get(group, ()):
            return _resources(registry, group, version)
    return None


def _group(name: str, versions: list[str]) -> dict[str, Any]:
    told = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": told, "preferredVersion": told[0]}


def _resources(registry: Registry, group: str, version: str) -> dict[str, Any]:
    found = [one for one in registry if (one.group, one.version) == (group, version)]
    told = [entry for resource in found for entry in _entries(resource)]
    api_version = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": told}


SUBRESOURCES: dict[str, tuple[dict[str, str], list[str]]] = {
    "log": ({}, ["get"]),
    "binding": ({"kind": "Binding"}, ["create"]),
    "eviction": ({"group": "policy", "version": "v1", "kind": "Eviction"}, ["create"]),
    "token": ({"group": "authentication.k8s.io", "version": "v1", "kind": "TokenRequest"}, ["create"]),
    "scale": ({"group": "autoscaling", "version": "v1", "kind": "Scale"}, ["get", "patch", "update"]),
    "finalize": ({}, ["update"]),
}
"""Kind and verbs of a subresource; the others are read and written as their resource's kind."""


def _entries(resource: Resource) -> list[dict[str, Any]]:
    entry: dict[str, Any] = {
        "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced, "kind": resource.kind,
        "verbs": list(resource.verbs),
    }  # fmt: skip
    if resource.short:
        entry["shortNames"] = list(resource.short)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    below = []
    for name in sorted(resource.subresources):
        kind, verbs = SUBRESOURCES.get(name, ({}, ["get", "patch", "update"]))
        below.append({"name": f"{resource.plural}/{name}", "singularName": "", "namespaced": resource.namespaced,
                      "kind": resource.kind, **kind, "verbs": verbs})  # fmt: skip
    return [entry, *below]
