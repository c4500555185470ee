"""Writes that are not of the object itself: binding and eviction of pods, scale, finalisation, tokens."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

from flyte_unified.testing.fake_kube import errors
from flyte_unified.testing.fake_kube.api import Api, Call, Deletion
from flyte_unified.testing.fake_kube.metadata import timestamp
from flyte_unified.testing.fake_kube.resources import Object, Registry, Resource
from flyte_unified.testing.fake_kube.selectors import matches, selector_requirements
from flyte_unified.testing.fake_kube.store import Key, Record, Store

SUCCESS: Object = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


class Subresources:
    """The special ones; status is a plain update, logs are ``logs``."""

    def __init__(self, *, api: Api, store: Store, registry: Registry) -> None:
        self._api = api
        self._store = store
        self._registry = registry

    def create(self, resource: Resource, key: Key, subresource: str, content: Object, call: Call) -> Object:
        """POST to a subresource. Raises ApiError."""
        match subresource:
            case "binding":
                return self.bind(resource, key, content, call)
            case "eviction":
                return self._evict(resource, key, content, call)
            case "token":
                return self._token(resource, key, content)
        raise errors.method_not_allowed()

    def bind(self, resource: Resource, key: Key, content: Object, call: Call) -> Object:
        """Give a pod its node, as a scheduler does."""
        target = content.get("target") or {}
        if not target.get("name"):
            raise errors.invalid("", "Binding", key[1], [errors.required("target.name")])
        if content["metadata"].get("name", key[1]) != key[1]:
            raise errors.bad_request("name in URL does not match name in Binding object")
        record = self._api.get(resource, key)
        pod = record.object()
        meta, spec = pod["metadata"], pod["spec"]
        if meta.get("deletionTimestamp"):
            why = f"pod {key[1]} is being deleted, cannot be assigned to a host"
            raise errors.conflict("", "pods/binding", key[1], why)
        if spec.get("nodeName"):
            why = f'pod {key[1]} is already assigned to node "{spec["nodeName"]}"'
            raise errors.conflict("", "pods/binding", key[1], why)
        wanted = content["metadata"].get("uid")
        if wanted and wanted != record.uid:
            why = f"Precondition failed: UID in precondition: {wanted}, UID in object meta: {record.uid}"
            raise errors.conflict("", "pods/binding", key[1], why)
        spec["nodeName"] = target["name"]
        meta.setdefault("annotations", {}).update(content["metadata"].get("annotations") or {})
        if not meta["annotations"]:
            del meta["annotations"]
        set_condition(pod, "PodScheduled", "True")
        self._api.write(resource, record, pod, call)
        return SUCCESS

    def _evict(self, resource: Resource, key: Key, content: Object, call: Call) -> Object:
        """Delete a pod unless a disruption budget has none to give."""
        record = self._api.get(resource, key)
        budgets = self._registry.named("poddisruptionbudgets", "policy")
        assert budgets is not None
        for budget in self._store.shelf(budgets.shelf).records.values():
            if budget.key[0] == key[0] and self._spent(budget, record):
                message = "Cannot evict pod as it would violate the pod's disruption budget."
                error = errors.too_many_requests(0, message)
                cause = {
                    "reason": "DisruptionBudget",
                    "message": f"The disruption budget {budget.key[1]} does not allow it now",
                }
                error.status_details = {"causes": [cause]}
                raise error
        options = content.get("deleteOptions") or {}
        if options.get("dryRun"):
            call.dry_run = True
        pod = record.object()
        if pod["spec"].get("nodeName"):
            set_condition(pod, "DisruptionTarget", "True", reason="EvictionByEvictionAPI", message="Eviction API: evicting")
            self._api.write(resource, record, pod, call)
        wanted = options.get("preconditions") or {}
        deletion = Deletion(grace=options.get("gracePeriodSeconds"), uid=wanted.get("uid") or "")
        self._api.delete(resource, key, deletion, call)
        return SUCCESS

    @staticmethod
    def _spent(budget: Record, pod: Record) -> bool:
        content = budget.object()
        selector = (content.get("spec") or {}).get("selector")
        if selector is None or not matches(selector_requirements(selector), pod.labels):
            return False
        return int((content.get("status") or {}).get("disruptionsAllowed", 0)) <= 0

    def _token(self, resource: Resource, key: Key, content: Object) -> Object:
        """A bearer token for a service account."""
        account = self._api.get(resource, key)
        seconds = (content.get("spec") or {}).get("expirationSeconds") or 3600
        token = secrets.token_urlsafe(24)
        self._api.tokens[token] = f"system:serviceaccount:{key[0]}:{account.key[1]}"
        content["status"] = {"token": token, "expirationTimestamp": timestamp(datetime.now(UTC) + timedelta(seconds=seconds))}
        return content

    def scale(self, resource: Resource, record: Record) -> Object:
        """The Scale of a workload."""
        content = record.object()
        meta = content["metadata"]
        kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        return {
            "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {key: meta[key] for key in kept if key in meta},
            "spec": {"replicas": content["spec"].get("replicas", 0)},
            "status": {"replicas": (content.get("status") or {}).get("replicas", 0)},
        }  # fmt: skip

    def rescale(self, resource: Resource, key: Key, scale: Object, call: Call) -> Object:
        """Write a Scale's replicas into its workload. Raises ApiError."""
        record = self._api.get(resource, key)
        content = record.object()
        if (version := scale.get("metadata", {}).get("resourceVersion")) and version != str(record.version):
            raise errors.conflict(resource.group, resource.plural, key[1])
        replicas = (scale.get("spec") or {}).get("replicas", 0)
        if not isinstance(replicas, int) or replicas < 0:
            cause = errors.invalid_value("spec.replicas", replicas, "must be greater than or equal to 0")
            raise errors.invalid("autoscaling", "Scale", key[1], [cause])
        content["spec"]["replicas"] = replicas
        return self.scale(resource, self._api.update(resource, key, content, call))


def set_condition(content: Object, kind: str, status: str, *, reason: str = "", message: str = "") -> None:
    """Write a condition of ``status.conditions``; its transition is now, if there is one."""
    conditions: list[dict[str, Any]] = content.setdefault("status", {}).setdefault("conditions", [])
    present = next((one for one in conditions if one["type"] == kind), None)
    if present is None:
        present = {"type": kind, "lastTransitionTime": timestamp()}
        present |= {"lastProbeTime": None} if content["kind"] == "Pod" else {}
        conditions.append(present)
    elif present["status"] != status:
        present["lastTransitionTime"] = timestamp()
    present["status"] = status
    present.update({key: value for key, value in (("reason", reason), ("message", message)) if value})
