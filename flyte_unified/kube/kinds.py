"""Kinds of objects, and where an API server keeps them.

Objects are dicts, exactly as on the wire. ``kubernetes``' typed models lose the fields that they do not know, have none for
custom resources, and cost more than twenty times as much: 1,000 pods (1.8 MB) were read in 15 ms, and into models in 340.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import quote

Object: TypeAlias = dict[str, Any]
"""An object as JSON has it: ``apiVersion``, ``kind``, ``metadata`` and its own parts."""


@dataclass(frozen=True, slots=True)
class Kind:
    """``group`` is empty for the core; ``plural`` is the resource's name in addresses and in RBAC rules.

    Of a ``partial`` one only ``metadata`` is answered, whatever is asked or written: what else is in it never comes here.
    """

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    partial: bool = False

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The path of an address, as https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-uris has it.

        Without a name it is the collection's, without a namespace that of all namespaces. Raises ValueError for a name that
        needs a namespace.
        """
        if name and self.namespaced and not namespace:
            raise ValueError(f"{self.plural} {name}: no namespace")
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts += [part for part in (self.plural, name, subresource) if part]
        return "".join(f"/{quote(part, safe='')}" for part in parts)


def key_of(obj: Object) -> tuple[str, str]:
    """Namespace (empty for an object of the whole cluster) and name."""
    metadata = obj["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


PODS = Kind("", "v1", "Pod", "pods")
EVENTS = Kind("", "v1", "Event", "events")
SECRETS = Kind("", "v1", "Secret", "secrets")
SECRETS_BY_NAME = Kind("", "v1", "Secret", "secrets", partial=True)
"""Without their values."""
CONFIG_MAPS = Kind("", "v1", "ConfigMap", "configmaps")
SERVICES = Kind("", "v1", "Service", "services")
KNATIVE_SERVICES = Kind("serving.knative.dev", "v1", "Service", "services")
DEPLOYMENTS = Kind("apps", "v1", "Deployment", "deployments")
POD_TEMPLATES = Kind("", "v1", "PodTemplate", "podtemplates")
NODES = Kind("", "v1", "Node", "nodes", namespaced=False)
NAMESPACES = Kind("", "v1", "Namespace", "namespaces", namespaced=False)
LEASES = Kind("coordination.k8s.io", "v1", "Lease", "leases")
CRDS = Kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False)
ACCESS_REVIEWS = Kind("authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", namespaced=False)
TASK_ACTIONS = Kind("flyte.org", "v1", "TaskAction", "taskactions")
