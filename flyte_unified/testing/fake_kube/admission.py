"""Admission: what depends on other objects than the one written."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from flyte_unified.testing.fake_kube import errors, quantities
from flyte_unified.testing.fake_kube.errors import Cause
from flyte_unified.testing.fake_kube.resources import Object, Resource
from flyte_unified.testing.fake_kube.store import Store

_IMMORTAL = ("default", "kube-system", "kube-public")
_SYSTEM_PRIORITIES = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}
_TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
_PODS = ("", "pods")


class Admission:
    """The plugins of a real server that clients notice. ``service_accounts`` adds the one that gives pods their tokens."""

    def __init__(self, store: Store, *, service_accounts: bool = False) -> None:
        self._store = store
        self.service_accounts = service_accounts

    def create(self, resource: Resource, content: Object) -> None:
        """Raises ApiError 403, 404."""
        if resource.namespaced:
            self._namespace(resource, content)
        if resource.shelf == _PODS:
            self._limits(content)
            self._priority(content)
            if self.service_accounts:
                self._account(content)
        self._quotas(resource, content)

    def delete(self, resource: Resource, content: Object) -> None:
        """Raises ApiError 403."""
        name = content["metadata"]["name"]
        if resource.shelf == ("", "namespaces") and name in _IMMORTAL:
            raise errors.forbidden("", "namespaces", name, "this namespace may not be deleted")

    def _namespace(self, resource: Resource, content: Object) -> None:
        name = content["metadata"]["namespace"]
        record = self._store.get(("", "namespaces"), ("", name))
        if record is None:
            raise errors.not_found("", "namespaces", name)
        if b'"deletionTimestamp"' in record.data:
            why = f"unable to create new content in namespace {name} because it is being terminated"
            cause = Cause("NamespaceTerminating", f"namespace {name} is being terminated", "metadata.namespace")
            raise errors.forbidden(resource.group, resource.plural, content["metadata"].get("name", ""), why, [cause])

    def _in(self, shelf: tuple[str, str], namespace: str) -> list[Object]:
        records = self._store.shelf(shelf).records.values()
        return [record.object() for record in records if record.key[0] == namespace]

    def _refuse(self, content: Object, why: str) -> errors.ApiError:
        return errors.forbidden("", "pods", content["metadata"].get("name", ""), why)

    def _priority(self, pod: Object) -> None:
        """A pod's class becomes its number."""
        spec = pod["spec"]
        name = spec.get("priorityClassName")
        if not name or name in _SYSTEM_PRIORITIES:
            spec["priority"] = _SYSTEM_PRIORITIES.get(name or "", 0)
            return
        record = self._store.get(("scheduling.k8s.io", "priorityclasses"), ("", name))
        if record is None:
            raise self._refuse(pod, f"no PriorityClass with name {name} was found")
        found = record.object()
        spec["priority"] = found.get("value", 0)
        spec["preemptionPolicy"] = found.get("preemptionPolicy", "PreemptLowerPriority")

    def _account(self, pod: Object) -> None:
        """A pod runs as a service account, whose token it finds in a volume."""
        spec, namespace = pod["spec"], pod["metadata"]["namespace"]
        name = spec.setdefault("serviceAccountName", "default")
        spec["serviceAccount"] = name
        record = self._store.get(("", "serviceaccounts"), (namespace, name))
        if record is None and name != "default":
            raise self._refuse(pod, f'error looking up service account {namespace}/{name}: serviceaccount "{name}" not found')
        account = record.object() if record else {}
        if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
            spec["imagePullSecrets"] = account["imagePullSecrets"]
        if spec.get("automountServiceAccountToken", account.get("automountServiceAccountToken", True)):
            _mount_token(spec)

    def _limits(self, pod: Object) -> None:
        """Limit ranges: what containers get that asked for nothing, and what is too much."""
        for limit_range in self._in(("", "limitranges"), pod["metadata"]["namespace"]):
            for limit in (limit_range.get("spec") or {}).get("limits") or ():
                if limit["type"] == "Container":
                    for container in pod["spec"].get("containers") or ():
                        self._limit(pod, container, limit)

    def _limit(self, pod: Object, container: Object, limit: Mapping[str, Any]) -> None:
        resources = container.setdefault("resources", {})
        for part, key in (("limits", "default"), ("requests", "defaultRequest")):
            for name, value in (limit.get(key) or {}).items():
                resources.setdefault(part, {}).setdefault(name, value)
        for name, most in (limit.get("max") or {}).items():
            asked = (resources.get("limits") or {}).get(name)
            if asked is None or quantities.parse(asked) > quantities.parse(most):
                word = "but no limit is specified" if asked is None else f"but limit is {asked}"
                raise self._refuse(pod, f"maximum {name} usage per Container is {most}, {word}")

    def _quotas(self, resource: Resource, content: Object) -> None:
        if not resource.namespaced:
            return
        name = content["metadata"].get("name", "")
        for quota in self._in(("", "resourcequotas"), content["metadata"]["namespace"]):
            hard = (quota.get("spec") or {}).get("hard") or {}
            asked = _usage(resource, [content], hard)
            if missing := [key for key in asked if key in _COMPUTE and not asked[key]]:
                names = ",".join(one["name"] for one in content["spec"]["containers"])
                texts = ",".join(f"{key} for: {names}" for key in missing)
                why = f"failed quota: {quota['metadata']['name']}: must specify {texts}"
                raise errors.forbidden(resource.group, resource.plural, name, why)
            used = _usage(resource, self._in(resource.shelf, content["metadata"]["namespace"]), hard)
            over = sorted(key for key in asked if asked[key] + used[key] > quantities.parse(hard[key]))
            if over:
                told = [",".join(f"{key}={_text(amounts[key])}" for key in over) for amounts in (asked, used)]
                limited = ",".join(f"{key}={hard[key]}" for key in over)
                why = f"exceeded quota: {quota['metadata']['name']}, requested: {told[0]}, used: {told[1]}, limited: {limited}"
                raise errors.forbidden(resource.group, resource.plural, name, why)

    def usage(self, quota: Object, resources: Iterable[Resource]) -> dict[str, str]:
        """What of a quota is used, for its status."""
        hard = (quota.get("spec") or {}).get("hard") or {}
        found: dict[str, str] = {}
        for resource in resources:
            if resource.namespaced and _counted(resource, hard):
                used = _usage(resource, self._in(resource.shelf, quota["metadata"]["namespace"]), hard)
                found |= {key: _text(amount) for key, amount in used.items()}
        return found


_COMPUTE = {
    "cpu": ("requests", "cpu"), "memory": ("requests", "memory"), "requests.cpu": ("requests", "cpu"),
    "requests.memory": ("requests", "memory"), "limits.cpu": ("limits", "cpu"), "limits.memory": ("limits", "memory"),
}  # fmt: skip


def _counted(resource: Resource, hard: Mapping[str, str]) -> set[str]:
    """The keys of a quota that this resource uses up."""
    full = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
    keys = {f"count/{full}"} | (set() if resource.group else {resource.plural})
    if resource.shelf == _PODS:
        keys |= _COMPUTE.keys() | {key for key in hard if key.startswith("requests.") and "/" in key}
    return keys & hard.keys()


def _usage(resource: Resource, objects: Iterable[Object], hard: Mapping[str, str]) -> dict[str, Fraction]:
    used = dict.fromkeys(_counted(resource, hard), Fraction(0))
    for content in objects:
        if resource.shelf == _PODS and (content.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            used["count/pods"] = used.get("count/pods", Fraction(0)) + 1
            continue
        for key in used:
            used[key] += _amount(content, key)
    return {key: used[key] for key in used if key in hard}


def _amount(content: Object, key: str) -> Fraction:
    part, name = _COMPUTE.get(key) or ("requests", key.removeprefix("requests."))
    if key not in _COMPUTE and not key.startswith("requests."):
        return Fraction(1)
    values = [((one.get("resources") or {}).get(part) or {}).get(name) for one in content["spec"].get("containers") or ()]
    return sum((quantities.parse(value) for value in values if value is not None), Fraction(0))


def _text(amount: Fraction) -> str:
    return quantities.canonical(str(amount.numerator) if amount.denominator == 1 else f"{float(amount):f}")


def _mount_token(spec: Object) -> None:
    name = "kube-api-access-" + "".join(secrets.choice("bcdfghjklmnpqrstvwxz2456789") for _ in range(5))
    fields = [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]
    sources: list[Object] = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": fields}},
    ]
    containers = [one for kind in ("initContainers", "containers") for one in spec.get(kind) or ()]
    bare = [one for one in containers if all(m.get("mountPath") != _TOKEN_PATH for m in one.get("volumeMounts") or ())]
    for container in bare:
        container.setdefault("volumeMounts", []).append({"name": name, "readOnly": True, "mountPath": _TOKEN_PATH})
    if bare:
        spec.setdefault("volumes", []).append({"name": name, "projected": {"sources": sources, "defaultMode": 0o644}})
