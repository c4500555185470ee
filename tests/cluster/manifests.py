"""What is in config/kubernetes/base, as kustomize would apply it."""

from __future__ import annotations

from pathlib import Path

import yaml

from flyte_unified.kube.kinds import Object

KUBERNETES = Path(__file__).parents[2] / "config/kubernetes"
ACCOUNT = "flyte-unified"
_EVERYWHERE = frozenset({"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "Namespace"})
_ACCESS = frozenset({"ServiceAccount", "Role", "RoleBinding"})


def task_actions() -> Object:
    """The definition of their kind."""
    (definition,) = _read(KUBERNETES / "base/taskactions.yaml")
    return definition


def base(namespace: str) -> list[Object]:
    """Everything, in ``namespace``."""
    return _placed(_read(KUBERNETES / "base"), namespace)


def access(namespace: str) -> list[Object]:
    """The accounts, and what they may do."""
    return [obj for obj in base(namespace) if obj["kind"] in _ACCESS]


def secrets_access(namespace: str) -> list[Object]:
    """What the control plane needs besides to keep secrets."""
    return _placed(_read(KUBERNETES / "secrets"), namespace)


def _placed(objects: list[Object], namespace: str) -> list[Object]:
    for obj in objects:
        if obj["kind"] not in _EVERYWHERE:
            obj["metadata"]["namespace"] = namespace
        for subject in obj.get("subjects", ()):
            subject["namespace"] = namespace
    return objects


def _read(path: Path) -> list[Object]:
    if path.is_dir():
        listed = yaml.safe_load((path / "kustomization.yaml").read_text())["resources"]
        return [obj for name in listed for obj in _read(path / name)]
    return list(yaml.safe_load_all(path.read_text()))
