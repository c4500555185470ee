"""Objects for tests."""

from __future__ import annotations

from typing import Any

from flyte_unified.kube.kinds import CRDS, Kind, Object


def config_map(name: str, namespace: str, *, labels: dict[str, str] | None = None, **data: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "labels": labels or {}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def pod(name: str, namespace: str) -> dict[str, Any]:
    """One that no scheduler looks at and no node takes."""
    container = {"name": "main", "image": "registry.invalid/nothing"}
    nowhere = {"nodeSelector": {"flyte-unified.test/none": "true"}, "schedulerName": "nobody"}
    spec = {"containers": [container], "restartPolicy": "Never", **nowhere}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def definition(kind: Kind) -> Object:
    """Of a custom resource that may hold anything."""
    version = {
        "name": kind.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
        "subresources": {"status": {}},
    }
    names = {"kind": kind.kind, "plural": kind.plural, "singular": kind.kind.lower(), "listKind": f"{kind.kind}List"}
    return {
        "apiVersion": CRDS.api_version,
        "kind": CRDS.kind,
        "metadata": {"name": f"{kind.plural}.{kind.group}"},
        "spec": {"group": kind.group, "scope": "Namespaced", "names": names, "versions": [version]},
    }
