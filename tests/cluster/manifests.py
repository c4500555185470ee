"""What is in config/kubernetes/base, as kustomize would apply it."""

from __future__ import annotations

from pathlib import Path

import yaml

from flyte_unified.kube.kinds import Object

KUBERNETES = Path(__file__).parents[2] / "config/kubernetes"
ACCOUNT = "flyte-unified"
_EVERYWHERE = frozenset({"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "Namespace"})


def task_actions() -> Object:
    """The definition of their kind."""
    definition: Object = yaml.safe_load((KUBERNETES / "base/taskactions.yaml").read_text())
    return definition


def base(namespace: str) -> list[Object]:
    """Everything, in ``namespace``."""
    listed = yaml.safe_load((KUBERNETES / "base/kustomization.yaml").read_text())["resources"]
    return [obj for name in listed for obj in _placed(KUBERNETES / "base" / name, namespace)]


def access(namespace: str) -> list[Object]:
    """The accounts, and what they may do."""
    return _placed(KUBERNETES / "base/rbac.yaml", namespace)


def _placed(path: Path, namespace: str) -> list[Object]:
    objects: list[Object] = list(yaml.safe_load_all(path.read_text()))
    for obj in objects:
        if obj["kind"] not in _EVERYWHERE:
            obj["metadata"]["namespace"] = namespace
        for subject in obj.get("subjects", ()):
            subject["namespace"] = namespace
    return objects
