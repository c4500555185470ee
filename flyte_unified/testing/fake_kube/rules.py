"""What the kinds have of their own: defaults, what a write may touch, what is checked, how they are deleted.

``pods`` and ``kinds`` hold the rules of single kinds; here is what all share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from flyte_unified.testing.fake_kube import kinds, pods, structural
from flyte_unified.testing.fake_kube.errors import Cause
from flyte_unified.testing.fake_kube.metadata import timestamp
from flyte_unified.testing.fake_kube.resources import Object, Resource

PODS, NAMESPACES = ("", "pods"), ("", "namespaces")
_DEFAULTS: Mapping[tuple[str, str], Callable[[Object], None]] = {("", "pods"): pods.default, **kinds.DEFAULTS}
_CHECKS: Mapping[tuple[str, str], Callable[[Object, Object | None], list[Cause]]] = {("", "pods"): pods.check, **kinds.CHECKS}


def default(resource: Resource, content: Object) -> None:
    """Write what a reader may rely on and the client left out."""
    if rule := _DEFAULTS.get(resource.shelf):
        rule(content)


def prepare_create(resource: Resource, content: Object) -> None:
    """A new object has no status of its client's making."""
    if "status" in resource.subresources and resource.shelf not in kinds.KEEP_STATUS:
        content.pop("status", None)
        if initial := kinds.INITIAL_STATUS.get(resource.shelf):
            content["status"] = initial(content)


def prepare_update(resource: Resource, content: Object, old: Object, subresource: str) -> Object:
    """What of ``content`` counts: all but the status, or, written to the status subresource, little but the status."""
    if subresource == "status":
        return _with_status(resource, content, old)
    if "status" in resource.subresources:
        content = _without(content, "status")
        if "status" in old:
            content["status"] = old["status"]
    return content


def _with_status(resource: Resource, content: Object, old: Object) -> Object:
    result = dict(old)
    if not resource.custom:  # only custom resources keep all of their metadata from such a write
        result["metadata"] = dict(content["metadata"])
        if "ownerReferences" in old["metadata"]:
            result["metadata"]["ownerReferences"] = old["metadata"]["ownerReferences"]
        else:
            result["metadata"].pop("ownerReferences", None)
    elif "managedFields" in content["metadata"]:
        result["metadata"] = old["metadata"] | {"managedFields": content["metadata"]["managedFields"]}
    result.pop("status", None)
    if "status" in content:
        result["status"] = content["status"]
    return result


def _without(content: Object, key: str) -> Object:
    return {name: value for name, value in content.items() if name != key}


def counted(resource: Resource, content: Object) -> Mapping[str, Any]:
    """The part of an object whose changes are counted by metadata.generation."""
    dropped = {"metadata"} | ({"status"} if "status" in resource.subresources else set())
    return {key: value for key, value in content.items() if key not in dropped}


def check(resource: Resource, content: Object, old: Object | None, subresource: str) -> list[Cause]:
    """What is wrong with the object beside its metadata; with ``old``, also what may not change."""
    if resource.custom:
        return structural.validate(content, resource.schema)
    if subresource == "status":
        return pods.check_status(content, old) if resource.shelf == PODS and old else []
    rule = _CHECKS.get(resource.shelf)
    return rule(content, old) if rule else []


def grace(resource: Resource, content: Object, asked: int | None) -> int:
    """Seconds between the wish to delete and the end; only pods on a node have any."""
    if resource.shelf != PODS:
        return 0
    spec = content["spec"]
    if not spec.get("nodeName") or content.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    period: int = spec.get("terminationGracePeriodSeconds", 30) if asked is None else asked
    if asked is None and "deletionTimestamp" in content["metadata"]:
        period = content["metadata"]["deletionGracePeriodSeconds"]
    return max(period, 0) if period >= 0 else 1


def deletion_finalizers(meta: Mapping[str, Any], propagation: str) -> list[str]:
    """The finalizers that hold the object back: its own, and one of the garbage collector for two of the propagations."""
    present = list(meta.get("finalizers") or ())
    if not propagation:
        return present
    kept = [name for name in present if name not in ("orphan", "foregroundDeletion")]
    wanted = {"Orphan": ["orphan"], "Foreground": ["foregroundDeletion"]}.get(propagation, [])
    return kept + wanted


def held(resource: Resource, content: Object) -> bool:
    """Whether something beside its own finalizers keeps the object: a namespace goes when it is empty."""
    return resource.shelf == NAMESPACES and bool((content.get("spec") or {}).get("finalizers"))


def mark_deleted(resource: Resource, content: Object, grace_seconds: int, finalizers: list[str]) -> None:
    """Begin a deletion, or shorten one that goes on."""
    meta = content["metadata"]
    begun = datetime.now(UTC)
    if pending := meta.get("deletionTimestamp"):
        begun = datetime.fromisoformat(pending) - timedelta(seconds=meta.get("deletionGracePeriodSeconds", 0))
    elif "generation" in meta:
        meta["generation"] += 1
    meta["deletionTimestamp"] = timestamp(begun + timedelta(seconds=grace_seconds))
    meta["deletionGracePeriodSeconds"] = grace_seconds
    meta["finalizers"] = finalizers
    if not finalizers:
        del meta["finalizers"]
    if resource.shelf == NAMESPACES:
        del meta["deletionGracePeriodSeconds"]
        content["status"]["phase"] = "Terminating"
