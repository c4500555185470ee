"""What a cluster's controllers do behind the API: collect garbage, empty namespaces, establish definitions.

They act in a later turn of the loop, as they do in a cluster: the answer to a request is there before its consequences.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

from flyte_unified.testing.fake_kube import custom
from flyte_unified.testing.fake_kube.admission import Admission
from flyte_unified.testing.fake_kube.api import Api, Call, Deletion
from flyte_unified.testing.fake_kube.errors import ApiError
from flyte_unified.testing.fake_kube.resources import Object, Registry, Resource
from flyte_unified.testing.fake_kube.store import Change, Key, Record, Store

Place = tuple[tuple[str, str], Key]
"""Shelf and key of an object."""

_NAMESPACES, _DEFINITIONS = ("", "namespaces"), ("apiextensions.k8s.io", "customresourcedefinitions")
_QUOTAS = ("", "resourcequotas")
_USED = (_QUOTAS, ("", "pods"))
"""Whose changes alter what quotas have left, beside creations and deletions."""
_FOREGROUND, _ORPHAN = "foregroundDeletion", "orphan"


class Collector:
    """Listens to the store and keeps the cluster's promises about what belongs together."""

    def __init__(self, api: Api, store: Store, registry: Registry, *, admission: Admission) -> None:
        self._api = api
        self._store = store
        self._registry = registry
        self._admission = admission
        self._live: dict[str, Place] = {}
        self._dependents: dict[str, set[Place]] = defaultdict(set)
        self._waiting: deque[Callable[[], None]] = deque()
        self._call = Call(manager="kube-controller-manager", validation="Ignore")
        store.listeners.append(self._changed)

    def later(self, step: Callable[[], None]) -> None:
        """Do ``step`` in a later turn of the loop."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._run)
        self._waiting.append(step)

    def _run(self) -> None:
        """One round: what its steps cause waits for the next one. A step that lost a race has nothing left to do."""
        for _ in range(len(self._waiting)):
            try:
                self._waiting[0]()
            except ApiError as error:
                if error.reason not in ("NotFound", "Conflict"):
                    raise
            finally:
                self._waiting.popleft()
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._run)

    def _changed(self, shelf: tuple[str, str], change: Change) -> None:
        record, place = change.record, (shelf, change.record.key)
        for uid in change.previous.owners if change.previous else ():
            self._dependents[uid].discard(place)
        if change.deleted:
            self._live.pop(record.uid, None)
            self._dropped(shelf, record)
        else:
            self._live[record.uid] = place
            for uid in record.owners:
                self._dependents[uid].add(place)
            if record.owners:
                self.later(lambda: self._check(place))
        if shelf == _DEFINITIONS:
            self._definition(change)
        elif shelf == _NAMESPACES and change.previous is None:
            self.later(lambda: self._furnish(record.key[1]))
        elif shelf == _NAMESPACES and not change.deleted:
            self.later(lambda: self._namespace(record.key[1]))
        if (
            record.key[0]
            and self._store.shelf(_QUOTAS).records
            and (change.deleted or change.previous is None or shelf in _USED)
        ):
            self.later(lambda: self._quotas(record.key[0]))
        if not change.deleted and b'"deletionTimestamp"' in record.data:
            self.later(lambda: self._deleting(place))

    def _dropped(self, shelf: tuple[str, str], record: Record) -> None:
        for dependent in self._dependents.pop(record.uid, ()):
            self.later(lambda place=dependent: self._check(place))  # type: ignore[misc]  # a default binds the loop's value
        for uid in record.owners:
            if uid in self._live:
                self.later(lambda place=self._live[uid]: self._deleting(place))  # type: ignore[misc]  # the same
        namespace = record.key[0]
        if namespace:
            self.later(lambda: self._namespace(namespace))
        if (definition := self._store.get(_DEFINITIONS, ("", f"{shelf[1]}.{shelf[0]}"))) is not None:
            self.later(lambda: self._cleaned(definition.key))

    def _find(self, place: Place) -> tuple[Resource, Object] | None:
        shelf, key = place
        resource, record = self._registry.named(shelf[1], shelf[0]), self._store.get(shelf, key)
        return None if resource is None or record is None else (resource, record.object())

    def _check(self, place: Place) -> None:
        """Delete an object without owners, or take from it the owners that are gone."""
        found = self._find(place)
        if found is None:
            return
        resource, content = found
        owners = content["metadata"].get("ownerReferences") or []
        states = [self._owner(owner, place[1][0]) for owner in owners]
        if not owners or set(states) == {"solid"}:
            return
        if "solid" in states:
            self._patch(
                resource,
                place,
                {"ownerReferences": [owner for owner, state in zip(owners, states, strict=True) if state == "solid"]},
            )
            return
        if content["metadata"].get("deletionTimestamp") and "absent" in states:
            return
        finalizers = content["metadata"].get("finalizers") or ()
        foreground = _FOREGROUND in finalizers or ("waiting" in states and self._dependents.get(content["metadata"]["uid"]))
        propagation = "Orphan" if _ORPHAN in finalizers else "Foreground" if foreground else "Background"
        if not content["metadata"].get("deletionTimestamp"):
            self._api.delete(resource, place[1], Deletion(propagation=propagation, uid=content["metadata"]["uid"]), self._call)

    def _owner(self, owner: Object, namespace: str) -> str:
        """solid, absent, or waiting for its dependents to go."""
        resource = self._registry.of_kind(owner["apiVersion"], owner["kind"])
        if resource is None:
            return "solid"  # nobody can know
        place = (resource.shelf, (namespace if resource.namespaced else "", owner["name"]))
        if self._live.get(owner["uid"]) != place:
            return "absent"
        found = self._find(place)
        meta = found[1]["metadata"] if found else {}
        return "waiting" if meta.get("deletionTimestamp") and _FOREGROUND in (meta.get("finalizers") or ()) else "solid"

    def _deleting(self, place: Place) -> None:
        """An owner in deletion: its dependents first, or none of them."""
        found = self._find(place)
        if found is None:
            return
        resource, content = found
        meta = content["metadata"]
        finalizers = meta.get("finalizers") or []
        if not meta.get("deletionTimestamp"):
            return
        if _ORPHAN in finalizers:
            for dependent in list(self._dependents.get(meta["uid"], ())):
                self._disown(dependent, meta["uid"])
            self._patch(resource, place, {"finalizers": [name for name in finalizers if name != _ORPHAN]})
        elif _FOREGROUND in finalizers:
            dependents = self._dependents.get(meta["uid"], set())
            if any(self._blocks(dependent, meta["uid"]) for dependent in dependents):
                for dependent in dependents:
                    self.later(lambda place=dependent: self._check(place))  # type: ignore[misc]  # as above
            else:
                self._patch(resource, place, {"finalizers": [name for name in finalizers if name != _FOREGROUND]})
        elif resource.shelf == _DEFINITIONS:
            self._clean(content)

    def _blocks(self, place: Place, uid: str) -> bool:
        found = self._find(place)
        owners = found[1]["metadata"].get("ownerReferences") or () if found else ()
        return any(owner["uid"] == uid and owner.get("blockOwnerDeletion") for owner in owners)

    def _disown(self, place: Place, uid: str) -> None:
        if found := self._find(place):
            owners = [owner for owner in found[1]["metadata"]["ownerReferences"] if owner["uid"] != uid]
            self._patch(found[0], place, {"ownerReferences": owners})

    def _patch(self, resource: Resource, place: Place, meta: Object) -> None:
        def change(content: Object) -> Object:
            content["metadata"].update(meta)
            for key in [key for key, value in meta.items() if not value]:
                del content["metadata"][key]
            return content

        self._api.patch(resource, place[1], change, self._call)

    def _namespace(self, name: str) -> None:
        """Empty a namespace in deletion; the empty one goes."""
        found = self._find((_NAMESPACES, ("", name)))
        if found is None or not found[1]["metadata"].get("deletionTimestamp"):
            return
        left = 0
        for shelf, content in self._store.shelves():
            resource = self._registry.named(shelf[1], shelf[0])
            for record in [record for record in content.records.values() if record.key[0] == name]:
                left += 1
                if resource and b'"deletionTimestamp"' not in record.data:
                    self._api.delete(resource, record.key, Deletion(propagation="Background"), self._call)
        if not left:
            self._api.finalize(name)

    def _quotas(self, namespace: str) -> None:
        """Write into the quotas of a namespace what is used of them."""
        resource = self._registry.named(_QUOTAS[1])
        assert resource is not None
        for record in list(self._store.shelf(_QUOTAS).records.values()):
            quota = record.object()
            if record.key[0] == namespace:
                used = self._admission.usage(quota, self._registry)
                self._status(resource, (_QUOTAS, record.key), {"hard": quota["spec"].get("hard") or {}, "used": used})

    def _furnish(self, namespace: str) -> None:
        """What every namespace of a cluster with service accounts has."""
        if not self._admission.service_accounts:
            return
        for kind, name in (("ServiceAccount", "default"), ("ConfigMap", "kube-root-ca.crt")):
            resource = self._registry.of_kind("v1", kind)
            assert resource is not None
            self._api.create(resource, namespace, {"metadata": {"name": name}}, self._call)

    def _definition(self, change: Change) -> None:
        """Serve what is defined; what is no longer defined is not found."""
        definition = change.record.object()
        spec, place = definition["spec"], (_DEFINITIONS, change.record.key)
        self._registry.remove(spec["group"], spec["names"]["plural"])
        if change.deleted:
            for watcher in self._store.shelf((spec["group"], spec["names"]["plural"])).watchers:
                watcher.close()
            return
        for resource in custom.resources(definition):
            self._registry.add(resource)
        if change.previous is None:
            self.later(lambda: self._establish(place))

    def _establish(self, place: Place) -> None:
        found = self._find(place)
        if found is None:
            return
        finalizers = found[1]["metadata"].get("finalizers") or []
        self._patch(found[0], place, {"finalizers": [*finalizers, custom.CLEANUP]})
        self._status(found[0], place, custom.established(found[1]))

    def _status(self, resource: Resource, place: Place, status: Object) -> None:
        self._api.patch(resource, place[1], lambda content: {**content, "status": status}, self._call, subresource="status")

    def _clean(self, definition: Object) -> None:
        """Delete the objects of a definition in deletion."""
        spec = definition["spec"]
        resource = self._registry.named(spec["names"]["plural"], spec["group"])
        if resource is not None:
            for record in list(self._store.shelf(resource.shelf).records.values()):
                self._api.delete(resource, record.key, Deletion(propagation="Background"), self._call)
        self._cleaned(("", definition["metadata"]["name"]))

    def _cleaned(self, key: Key) -> None:
        found = self._find((_DEFINITIONS, key))
        if found is None or not found[1]["metadata"].get("deletionTimestamp"):
            return
        spec: dict[str, Any] = found[1]["spec"]
        if not self._store.shelf((spec["group"], spec["names"]["plural"])).records:
            finalizers = [name for name in found[1]["metadata"].get("finalizers") or () if name != custom.CLEANUP]
            self._patch(found[0], (_DEFINITIONS, key), {"finalizers": finalizers})
