"""By what an object says that it is ours, and which attempt it is. Pure.

Names and labels are for people and for selectors; which attempt it is stands in an annotation, where every key fits. An object
is believed only if its name is the one that this attempt has: operators copy metadata to what they make.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.names import object_name
from flyte_unified.kube.kinds import Object
from flyte_unified.launchers.api import WorkId
from flyte_unified.plugins.operators.kinds import MANAGED

DONE = "flyte.org/done"
"""Label: its end is known. What is done is followed no longer, however long its owner keeps it."""
SELECTOR = f"{MANAGED}=true,!{DONE}"
WORK = "flyte.org/work"
"""Annotation: the attempt."""
FINALIZER = "flyte.org/finalizer-k8s"
"""Flyte's own name for it. Keeps the object until its end is known, whoever deletes it."""


def dressed(
    manifest: Mapping[str, Any],
    work: WorkId,
    *,
    name: str,
    namespace: str,
    owner: Mapping[str, Any] | None,
    annotations: Mapping[str, str],
) -> Object:
    """``manifest`` as it is to be created. ``owner`` is the owner reference to the action's TaskAction."""
    said = manifest.get("metadata") or {}
    metadata: Object = {
        **said,
        "name": name,
        "namespace": namespace,
        "labels": {**(said.get("labels") or {}), MANAGED: "true"},
        "annotations": {**(said.get("annotations") or {}), **annotations, WORK: str(work)},
        "finalizers": [*(said.get("finalizers") or ()), FINALIZER],
    }
    if owner is not None:
        metadata["ownerReferences"] = [dict(owner)]
    return {**manifest, "metadata": metadata}


def work_of(obj: Object, *, limit: int) -> WorkId | None:
    """The attempt that ``obj`` is; None for what is not ours. ``limit`` is that of its kind's names."""
    metadata = obj["metadata"]
    try:
        work = WorkId.parse((metadata.get("annotations") or {}).get(WORK, ""))
    except InvalidArgument:
        return None
    return work if metadata["name"] == object_name(work.action, work.attempt, limit=limit) else None


def held(obj: Object) -> bool:
    """Whether its end is still to be told."""
    return FINALIZER in (obj["metadata"].get("finalizers") or ())


def release(obj: Object) -> list[Object]:
    """The JSON patch that lets ``obj`` go: without our finalizer, and marked as done.

    Refused for another object of that name, and if the finalizers are others by now.
    """
    metadata = obj["metadata"]
    finalizers = metadata.get("finalizers") or []
    patch: list[Object] = [
        {"op": "test", "path": "/metadata/uid", "value": metadata["uid"]},
        {"op": "add", "path": f"/metadata/labels/{DONE.replace('/', '~1')}", "value": "true"},
    ]
    if FINALIZER in finalizers:
        path = f"/metadata/finalizers/{finalizers.index(FINALIZER)}"
        patch += [{"op": "test", "path": path, "value": FINALIZER}, {"op": "remove", "path": path}]
    return patch
