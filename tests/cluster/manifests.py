"""What is in config/kubernetes/base, as kustomize would apply it."""

from __future__ import annotations

from pathlib import Path

import yaml

from flyte_unified.kube.kinds import Object

KUBERNETES = Path(__file__).parents[2] / "config/kubernetes"
OVERLAY = KUBERNETES / "overlays/project-namespaces"
ACCOUNT = "flyte-unified"
_EVERYWHERE = frozenset({"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "Namespace"})
_ACCESS = frozenset({"ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"})


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


def access_everywhere(namespace: str) -> list[Object]:
    """The accounts in ``namespace``, and what they may do in all namespaces, secrets included."""
    objects = [obj for obj in _read(OVERLAY) if obj["kind"] in _ACCESS]
    return _placed([*objects, *_read(OVERLAY / "secrets")], namespace)


def project_access(namespace: str) -> list[Object]:
    """The accounts that a namespace of tasks needs."""
    return _placed([obj for obj in _read(KUBERNETES / "project") if obj["kind"] in _ACCESS], namespace)


def _placed(objects: list[Object], namespace: str) -> list[Object]:
    for obj in objects:
        if obj["kind"] not in _EVERYWHERE:
            obj["metadata"]["namespace"] = namespace
        for subject in obj.get("subjects", ()):
            subject["namespace"] = namespace
    return objects


def _read(path: Path) -> list[Object]:
    if not path.is_dir():
        return list(yaml.safe_load_all(path.read_text()))
    told = yaml.safe_load((path / "kustomization.yaml").read_text())
    objects = [obj for name in (*told.get("resources", ()), *told.get("components", ())) for obj in _read(path / name)]
    for patch in told.get("patches", ()):
        for obj in objects:
            if {"kind": obj["kind"], "name": obj["metadata"]["name"]} == patch.get("target"):
                _patch(obj, yaml.safe_load(patch["patch"]))
    return objects


def _patch(obj: Object, operations: list[Object]) -> None:
    for operation in operations:
        *parents, last = operation["path"].removeprefix("/").split("/")
        at = obj
        for name in parents:
            at = at[name]
        if operation["op"] == "replace":
            at[last] = operation["value"]
        else:
            at.pop(last, None)  # a namespace, which is kustomize's to set
