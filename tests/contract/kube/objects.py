"""Objects for tests."""

from __future__ import annotations

from typing import Any


def config_map(name: str, namespace: str, *, labels: dict[str, str] | None = None, **data: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "labels": labels or {}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def pod(name: str, namespace: str) -> dict[str, Any]:
    """One that no scheduler looks at and no node takes."""
    container = {"name": "main", "image": "registry.invalid/nothing"}
    nowhere = {"nodeSelector": {"flyte-unified.test/none": "true"}, "schedulerName": "nobody"}
    spec = {"containers": [container], "restartPolicy": "Never", **nowhere}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": spec}
