"""What a request does to the objects, without HTTP: read, create, replace, patch, delete, and the rules in between.

The order of the steps is a real server's (k8s.io/apiserver/pkg/registry/generic/registry/store.go): decode, default, admit,
validate, store. No step awaits, so every request is atomic.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

from flyte_unified.testing.fake_kube import decode, errors, metadata, rules, versions
from flyte_unified.testing.fake_kube.admission import Admission
from flyte_unified.testing.fake_kube.errors import Cause
from flyte_unified.testing.fake_kube.ownership import Managers
from flyte_unified.testing.fake_kube.resources import Object, Registry, Resource
from flyte_unified.testing.fake_kube.store import Key, Record, Store, encode


@dataclass(slots=True)
class Call:
    """What came with a request beside its object."""

    dry_run: bool = False
    manager: str = ""
    """fieldManager, which an application must name; of other writes it is the client's program."""
    agent: str = ""
    validation: str = "Warn"
    """fieldValidation: Ignore, Warn or Strict."""
    force: bool = False
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Deletion:
    """DeleteOptions. ``grace`` in seconds; None is the kind's own."""

    grace: int | None = None
    propagation: str = ""
    uid: str = ""
    version: str = ""


class Api:
    """The verbs over one store."""

    def __init__(self, store: Store, registry: Registry, *, admission: Admission) -> None:
        self._store = store
        self._registry = registry
        self._admission = admission
        self.tokens: dict[str, str] = {}
        """Users by the bearer tokens that were given out."""

    def get(self, resource: Resource, key: Key) -> Record:
        record = self._store.get(resource.shelf, key)
        if record is None:
            raise errors.not_found(resource.group, resource.plural, key[1])
        return record

    def create(self, resource: Resource, namespace: str, content: Object, call: Call) -> Record:
        content = self.decode(resource, content, call)
        meta = content["metadata"]
        if not resource.namespaced and meta.get("namespace"):
            raise errors.bad_request("namespace is not allowed on this type")
        if namespace and meta.setdefault("namespace", namespace) != namespace:
            raise errors.bad_request("the namespace of the provided object does not match the namespace sent on the request")
        if meta.get("resourceVersion"):
            raise errors.ApiError(500, "", "resourceVersion should not be set on objects to be created")
        metadata.begin(content)
        rules.default(resource, content)
        rules.prepare_create(resource, content)
        self._admission.create(resource, content)
        if resource.generation:
            meta["generation"] = 1
        key = (namespace, meta.get("name", ""))
        self._valid(resource, content, None, call)
        if (present := self._store.get(resource.shelf, key)) is not None:
            deleting = "deletionTimestamp" in present.object()["metadata"]
            raise errors.already_exists(resource.group, resource.plural, key[1], deleting=deleting)
        return self._put(resource, key, content, call)

    def update(self, resource: Resource, key: Key, content: Object, call: Call, *, subresource: str = "") -> Record:
        content = self.decode(resource, content, call)
        self._named(key, content)
        meta = content["metadata"]
        if resource.created_by_update and not subresource and self._store.get(resource.shelf, key) is None:
            meta.pop("resourceVersion", None)
            return self.create(resource, key[0], content, call)
        return self._replace(resource, self.get(resource, key), content, call, subresource=subresource)

    def patch(
        self, resource: Resource, key: Key, change: Callable[[Object], Object], call: Call, *, subresource: str = ""
    ) -> Record:
        """``change`` makes the new object of the present one."""
        record = self.get(resource, key)
        content = change(versions.read(resource, record))
        meta = content.get("metadata")
        if not isinstance(meta, dict):
            raise errors.bad_request("metadata is not an object")
        try:
            content = self.decode(resource, content, call)
        except errors.ApiError as error:  # of a patch, it is the result that is wrong, not the request
            cause = errors.invalid_value("patch", "object", error.message)
            raise errors.invalid("", "", "", [cause]) from None
        self._named(key, content)
        if (uid := content["metadata"].get("uid")) and uid != record.uid:
            cause = errors.invalid_value("metadata.uid", uid, "field is immutable")
            raise errors.invalid(resource.group, resource.kind, key[1], [cause])
        return self._replace(resource, record, content, call, subresource=subresource)

    def apply(self, resource: Resource, key: Key, applied: Object, call: Call, *, subresource: str = "") -> tuple[Record, bool]:
        """Server-side apply: the object, and whether it is new. Raises ApiError."""
        if not call.manager:
            cause = errors.required("fieldManager", "is required for apply patch")
            raise errors.invalid("meta.k8s.io", "PatchOptions", "", [cause])
        if "managedFields" in applied["metadata"]:
            raise errors.bad_request("metadata.managedFields must be nil")
        values = self.decode(resource, copy.deepcopy(applied), Call(validation="Ignore"))
        if unknown := decode.unknown(resource, applied):
            what = f"({key[0]}/{key[1]}; {resource.api_version}, Kind={resource.kind})"
            message = f"failed to create typed patch object {what}: .{unknown[0]}: field not declared in schema"
            raise errors.ApiError(500, "", message)
        self._named(key, values)
        record = self._store.get(resource.shelf, key)
        if record is None:
            if subresource:
                raise errors.not_found(resource.group, resource.plural, key[1])
            managers = Managers({"metadata": {}}, resource)
            managers.apply({}, applied, values, call.manager, "", force=True)
            created = copy.deepcopy(applied)
            created["metadata"] |= {"name": key[1], "managedFields": managers.entries()}
            return self.create(resource, key[0], created, call), True
        live = versions.read(resource, record)
        managers = Managers(live, resource)
        if not managers:
            managers.adopt(live)
        merged = managers.apply(live, applied, values, call.manager, subresource, force=call.force)
        merged["metadata"]["managedFields"] = managers.entries()
        content = self.decode(resource, merged, call)
        return self._replace(resource, record, content, call, subresource=subresource, applied=True), False

    def write(self, resource: Resource, record: Record, content: Object, call: Call) -> Record:
        """Store what a controller or a subresource made of a record: no rule of updates applies. Raises ApiError."""
        return self._put(resource, record.key, content, call, version=record.version)

    def decode(self, resource: Resource, content: Object, call: Call) -> Object:
        """An object of the kind, without what the kind does not have. Raises ApiError 400."""
        if content.setdefault("apiVersion", resource.api_version) != resource.api_version:
            message = f'{content.get("kind")} in version "{content["apiVersion"]}" cannot be handled as a {resource.kind}'
            raise errors.bad_request(message)
        if content.setdefault("kind", resource.kind) != resource.kind:
            message = f'{content["kind"]} in version "{resource.version}" cannot be handled as a {resource.kind}'
            raise errors.bad_request(message)
        decoded, unknown = decode.decode_custom(resource, content) if resource.custom else decode.decode(resource, content)
        if unknown and call.validation == "Strict":
            raise decode.strict_error(resource, unknown)
        if call.validation == "Warn":
            call.warnings += [f'unknown field "{path}"' for path in unknown]
        return decoded

    @staticmethod
    def _named(key: Key, content: Object) -> None:
        """Raises ApiError where the object is not the one of the path."""
        meta = content["metadata"]
        if meta.setdefault("name", key[1]) != key[1]:
            text = f"the name of the object ({meta['name']}) does not match the name on the URL ({key[1]})"
            raise errors.bad_request(text)
        if key[0] and meta.setdefault("namespace", key[0]) != key[0]:
            raise errors.bad_request("the namespace of the provided object does not match the namespace sent on the request")

    def _replace(
        self, resource: Resource, record: Record, content: Object, call: Call, *, subresource: str, applied: bool = False
    ) -> Record:
        old, meta, key = versions.read(resource, record), content["metadata"], record.key
        self._current(resource, record, old, content)
        metadata.carry(content, old)
        rules.default(resource, content)
        content = rules.prepare_update(resource, content, old, subresource)
        meta = content["metadata"]
        if resource.generation and "generation" in meta and rules.counted(resource, content) != rules.counted(resource, old):
            meta["generation"] += 1
        self._valid(resource, content, old, call, subresource)
        if not applied:
            self._manage(resource, content, old, call, subresource)
        if _finished(content):
            if not call.dry_run:
                self._store.remove(resource.shelf, key)
            return Record(key, record.version, encode(content, record.version), record.uid, {}, ())
        meta["resourceVersion"] = old["metadata"]["resourceVersion"]
        if content == old:
            return record
        return self._put(resource, key, content, call, version=record.version)

    @staticmethod
    def _manage(resource: Resource, content: Object, old: Object, call: Call, subresource: str) -> None:
        """Keep book of who writes what, for an object that was applied once."""
        content["metadata"].pop("managedFields", None)
        if "managedFields" in old["metadata"]:
            managers = Managers(old, resource)
            managers.update(old, content, call.manager or call.agent, subresource)
            content["metadata"]["managedFields"] = managers.entries()

    def _current(self, resource: Resource, record: Record, old: Object, content: Object) -> None:
        """Raises ApiError: the caller saw another state, or another object of this name."""
        meta, name = content["metadata"], record.key[1]
        version = meta.get("resourceVersion")
        if version in (None, "", "0"):
            if not resource.blind_update:
                cause = errors.invalid_value("metadata.resourceVersion", 0, "must be specified for an update")
                raise errors.invalid(resource.group, resource.plural if resource.custom else resource.kind, name, [cause])
        elif version != str(record.version):
            raise errors.conflict(resource.group, resource.plural, name)
        uid, present = meta.get("uid"), old["metadata"]["uid"]
        if uid and uid != present:
            why = (
                f"StorageError: invalid object, Precondition failed: UID in precondition: {uid}, UID in object meta: {present}"
            )
            raise errors.conflict(resource.group, resource.plural, name, why)

    def delete(self, resource: Resource, key: Key, options: Deletion, call: Call) -> tuple[Record, bool]:
        """The last state, and whether the object is gone (otherwise finalizers, a grace period or its content hold it)."""
        record = self.get(resource, key)
        self._precondition(resource, record, options)
        content = record.object()
        self._admission.delete(resource, content)
        meta = content["metadata"]
        pending = "deletionTimestamp" in meta
        grace = rules.grace(resource, content, options.grace)
        finalizers = rules.deletion_finalizers(meta, options.propagation)
        gone = not (grace or finalizers or rules.held(resource, content))
        if gone and (pending or resource.shelf != rules.PODS):
            return self._remove(resource, record, call), True
        if pending and grace >= meta.get("deletionGracePeriodSeconds", 0) and finalizers == (meta.get("finalizers") or []):
            return record, False
        rules.mark_deleted(resource, content, grace, finalizers)
        record = self._put(resource, key, content, call, version=record.version)
        if gone:  # a pod that nothing holds is marked before it goes, for those who watch
            self._remove(resource, record, call)
        return record, gone

    def _remove(self, resource: Resource, record: Record, call: Call) -> Record:
        return record if call.dry_run else self._store.remove(resource.shelf, record.key)

    def finalize(self, namespace: str) -> None:
        """Say that a namespace is empty."""
        resource = self._registry.named("namespaces")
        assert resource is not None
        record = self.get(resource, ("", namespace))
        content = record.object()
        content["spec"].pop("finalizers", None)
        if content["metadata"].get("finalizers"):
            self._put(resource, record.key, content, Call())
        else:
            self._store.remove(resource.shelf, record.key)

    def _precondition(self, resource: Resource, record: Record, options: Deletion) -> None:
        name = record.key[1]
        if options.uid and options.uid != record.uid:
            why = (
                f"the UID in the precondition ({options.uid}) does not match the UID in record ({record.uid}). "
                "The object might have been deleted and then recreated"
            )
            raise errors.conflict(resource.group, resource.kind, name, why)
        if options.version and options.version != str(record.version):
            why = (
                f"the ResourceVersion in the precondition ({options.version}) does not match the ResourceVersion in record "
                f"({record.version}). The object might have been modified"
            )
            raise errors.conflict(resource.group, resource.kind, name, why)

    def _valid(self, resource: Resource, content: Object, old: Object | None, call: Call, subresource: str = "") -> None:
        causes: list[Cause] = metadata.check(resource, content)
        if old is not None:
            causes += metadata.check_update(content, old)
        causes += rules.check(resource, content, old, subresource)
        if resource.custom:
            call.warnings += metadata.warnings(content, old)
        if causes:
            raise errors.invalid(resource.group, resource.kind, content["metadata"].get("name", ""), causes)

    def _put(self, resource: Resource, key: Key, content: Object, call: Call, *, version: int = 0) -> Record:
        content = versions.stored(resource, content)
        if call.dry_run:
            data = encode(content, version)
            if not version:
                del content["metadata"]["resourceVersion"]
            return Record(key, version, data, content["metadata"]["uid"], {}, ())
        return self._store.put(resource.shelf, key, content)


def _finished(content: Object) -> bool:
    meta = content["metadata"]
    return bool(meta.get("deletionTimestamp")) and not meta.get("finalizers") and not meta.get("deletionGracePeriodSeconds")
