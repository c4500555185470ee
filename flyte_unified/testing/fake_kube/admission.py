"""Admission: what depends on other objects than the one written."""

from __future__ import annotations

from flyte_unified.testing.fake_kube import errors
from flyte_unified.testing.fake_kube.errors import Cause
from flyte_unified.testing.fake_kube.resources import Object, Resource
from flyte_unified.testing.fake_kube.store import Store


class Admission:
    def __init__(self, store: Store) -> None:
        self._store = store

    def create(self, resource: Resource, content: Object, call: object) -> None:
        if resource.namespaced:
            self._namespace(resource, content)

    def update(self, resource: Resource, content: Object, old: Object, call: object, subresource: str) -> None: ...

    def delete(self, resource: Resource, content: Object, call: object) -> None: ...

    def _namespace(self, resource: Resource, content: Object) -> None:
        name = content["metadata"]["namespace"]
        record = self._store.get(("", "namespaces"), ("", name))
        if record is None:
            raise errors.not_found("", "namespaces", name)
        if record.object()["status"]["phase"] == "Terminating":
            why = f"unable to create new content in namespace {name} because it is being terminated"
            cause = Cause("NamespaceTerminating", f"namespace {name} is being terminated", "metadata.namespace")
            raise errors.forbidden(resource.group, resource.plural, content["metadata"].get("name", ""), why, [cause])
