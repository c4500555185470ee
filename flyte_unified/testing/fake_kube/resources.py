"""What the server serves: Kubernetes' own resources as a table, and custom ones as their definitions are created.

The types of the built-in kinds are in ``schemas.json``: a real API server's OpenAPI without its prose, by
``tests/contract/kube/record_schemas.py``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

Object = dict[str, Any]
Schema = Mapping[str, Any]

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind at one version, and how it is served."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    singular: str = ""
    short: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: frozenset[str] = frozenset()
    fields: tuple[str, ...] = ()
    """Fields that a field selector may name, beside metadata.name and metadata.namespace."""
    verbs: tuple[str, ...] = ALL_VERBS
    generation: bool = False
    """Whether metadata.generation counts the changes of what is not status."""
    created_by_update: bool = False
    blind_update: bool = True
    """Whether an update without a resourceVersion is taken."""
    returns_deleted: bool = False
    """Whether a deletion answers with the object instead of a Status."""
    custom: bool = False
    schema: Schema = field(default_factory=dict, hash=False, compare=False)
    columns: tuple[Mapping[str, Any], ...] = field(default=(), hash=False, compare=False)
    storage: tuple[str, str] = ("", "")
    """Group and plural under which objects are kept: events of two groups are the same objects."""
    storage_version: str = ""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def shelf(self) -> tuple[str, str]:
        return self.storage if self.storage[1] else (self.group, self.plural)

    def selectable(self, name: str) -> bool:
        return name in self.fields or name == "metadata.name" or (name == "metadata.namespace" and self.namespaced)


def _row(group_version: str, kind: str, plural: str, options: str = "", **more: Any) -> Resource:
    """``options``: words of "cluster", "gen", "strict" (an update needs a resourceVersion), "upsert", "returns", "virtual"."""
    group, _, version = group_version.rpartition("/")
    words = set(options.split())
    return Resource(
        group, version, kind, plural,
        namespaced="cluster" not in words, singular=kind.lower(), generation="gen" in words,
        blind_update="strict" not in words, created_by_update="upsert" in words, returns_deleted="returns" in words,
        verbs=("create",) if "virtual" in words else ALL_VERBS, **more,
    )  # fmt: skip


def _sub(*names: str) -> frozenset[str]:
    return frozenset(names)


_ALL = ("all",)
_HOOK = ("api-extensions",)
_SCALED = frozenset({"status", "scale"})
_EVENT_FIELDS = tuple(
    f"involvedObject.{name}" for name in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
)
_REGARDING = tuple(name.replace("involvedObject", "regarding") for name in _EVENT_FIELDS)
_POD_FIELDS = ("spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork",
               "status.phase", "status.podIP", "status.podIPs", "status.nominatedNodeName")  # fmt: skip
_RBAC, _AUTHN, _AUTHZ = "rbac.authorization.k8s.io/v1", "authentication.k8s.io/v1", "authorization.k8s.io/v1"
_HOOKS = "admissionregistration.k8s.io/v1"

BUILTIN: tuple[Resource, ...] = (
    _row("v1", "Namespace", "namespaces", "cluster", short=("ns",), fields=("status.phase",),
         subresources=_sub("status", "finalize")),
    _row("v1", "Pod", "pods", "gen returns", short=("po",), categories=_ALL, fields=_POD_FIELDS,
         subresources=_sub("status", "log", "binding", "eviction", "ephemeralcontainers", "resize")),
    _row("v1", "Service", "services", "returns", short=("svc",), categories=_ALL, subresources=_sub("status"),
         fields=("spec.clusterIP", "spec.type")),
    _row("v1", "ConfigMap", "configmaps", short=("cm",)),
    _row("v1", "Secret", "secrets", fields=("type",)),
    _row("v1", "ServiceAccount", "serviceaccounts", "returns", short=("sa",), subresources=_sub("token")),
    _row("v1", "Event", "events", "upsert", short=("ev",), storage=("", "events"),
         fields=(*_EVENT_FIELDS, "reason", "reportingComponent", "source", "type")),
    _row("v1", "Node", "nodes", "cluster", short=("no",), subresources=_sub("status"), fields=("spec.unschedulable",)),
    _row("v1", "PodTemplate", "podtemplates", "gen returns"),
    _row("v1", "PersistentVolumeClaim", "persistentvolumeclaims", "returns", short=("pvc",), subresources=_sub("status")),
    _row("v1", "PersistentVolume", "persistentvolumes", "cluster returns", short=("pv",), subresources=_sub("status")),
    _row("v1", "ResourceQuota", "resourcequotas", "returns", short=("quota",), subresources=_sub("status")),
    _row("v1", "LimitRange", "limitranges", short=("limits",)),
    _row("v1", "Endpoints", "endpoints", short=("ep",)),
    _row("events.k8s.io/v1", "Event", "events", "upsert", short=("ev",), storage=("", "events"),
         fields=(*_REGARDING, "reason", "reportingController", "type")),
    _row("apps/v1", "Deployment", "deployments", "gen", short=("deploy",), categories=_ALL, subresources=_SCALED),
    _row("apps/v1", "ReplicaSet", "replicasets", "gen", short=("rs",), categories=_ALL, subresources=_SCALED,
         fields=("status.replicas",)),
    _row("apps/v1", "StatefulSet", "statefulsets", "gen", short=("sts",), categories=_ALL, subresources=_SCALED),
    _row("apps/v1", "DaemonSet", "daemonsets", "gen", short=("ds",), categories=_ALL, subresources=_sub("status")),
    _row("apps/v1", "ControllerRevision", "controllerrevisions"),
    _row("batch/v1", "Job", "jobs", "gen", categories=_ALL, subresources=_sub("status"), fields=("status.successful",)),
    _row("batch/v1", "CronJob", "cronjobs", "gen", short=("cj",), categories=_ALL, subresources=_sub("status")),
    _row("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", short=("hpa",), categories=_ALL,
         subresources=_sub("status")),
    _row("coordination.k8s.io/v1", "Lease", "leases", "strict upsert"),
    _row("discovery.k8s.io/v1", "EndpointSlice", "endpointslices", "gen"),
    _row(_RBAC, "Role", "roles"),
    _row(_RBAC, "RoleBinding", "rolebindings"),
    _row(_RBAC, "ClusterRole", "clusterroles", "cluster"),
    _row(_RBAC, "ClusterRoleBinding", "clusterrolebindings", "cluster"),
    _row("networking.k8s.io/v1", "Ingress", "ingresses", "gen", short=("ing",), subresources=_sub("status")),
    _row("networking.k8s.io/v1", "IngressClass", "ingressclasses", "cluster gen"),
    _row("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", "gen", short=("netpol",)),
    _row("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", "gen", short=("pdb",), subresources=_sub("status")),
    _row("scheduling.k8s.io/v1", "PriorityClass", "priorityclasses", "cluster gen", short=("pc",)),
    _row("storage.k8s.io/v1", "StorageClass", "storageclasses", "cluster returns", short=("sc",)),
    _row(_HOOKS, "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", "cluster gen", categories=_HOOK),
    _row(_HOOKS, "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", "cluster gen", categories=_HOOK),
    _row("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", "cluster gen strict",
         short=("crd", "crds"), categories=_HOOK, subresources=_sub("status")),
    _row(_AUTHN, "TokenReview", "tokenreviews", "cluster virtual"),
    _row(_AUTHN, "SelfSubjectReview", "selfsubjectreviews", "cluster virtual"),
    _row(_AUTHZ, "SubjectAccessReview", "subjectaccessreviews", "cluster virtual"),
    _row(_AUTHZ, "SelfSubjectAccessReview", "selfsubjectaccessreviews", "cluster virtual"),
    _row(_AUTHZ, "SelfSubjectRulesReview", "selfsubjectrulesreviews", "cluster virtual"),
    _row(_AUTHZ, "LocalSubjectAccessReview", "localsubjectaccessreviews", "virtual"),
)  # fmt: skip


@functools.cache
def definitions() -> dict[str, Schema]:
    """The built-in types by their OpenAPI names, without the prefix ``io.k8s.``."""
    loaded: dict[str, Schema] = orjson.loads(Path(__file__).with_name("schemas.json").read_bytes())
    return loaded


@functools.cache
def _by_kind() -> dict[tuple[str, str, str], Schema]:
    return {tuple(kind): schema for schema in definitions().values() for kind in schema.get("kinds", ())}


def resolve(schema: Schema) -> Schema:
    """``schema`` itself, or what it refers to, with the words beside the reference."""
    reference = schema.get("$ref")
    if reference is None:
        return schema
    return definitions()[reference] if len(schema) == 1 else {**definitions()[reference], **schema}


class Registry:
    """The resources by path and by kind. Custom resources come and go."""

    def __init__(self) -> None:
        self._by_path: dict[tuple[str, str, str], Resource] = {}
        for resource in BUILTIN:
            self.add(replace(resource, schema=_by_kind()[resource.group, resource.version, resource.kind]))

    def __iter__(self) -> Iterator[Resource]:
        return iter(self._by_path.values())

    def add(self, resource: Resource) -> None:
        self._by_path[resource.group, resource.version, resource.plural] = resource

    def remove(self, group: str, plural: str) -> None:
        for path in [path for path in self._by_path if path[0] == group and path[2] == plural]:
            del self._by_path[path]

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        return self._by_path.get((group, version, plural))

    def of_kind(self, api_version: str, kind: str) -> Resource | None:
        return next((one for one in self if one.api_version == api_version and one.kind == kind), None)

    def named(self, plural: str, group: str = "") -> Resource | None:
        """Any served version of the resource."""
        return next((one for one in self if one.plural == plural and one.group == group), None)

    def groups(self) -> dict[str, list[str]]:
        """Every group but the core, with its versions as they were added."""
        found: dict[str, list[str]] = {}
        for resource in self:
            if resource.group and resource.version not in found.setdefault(resource.group, []):
                found[resource.group].append(resource.version)
        return found
