"""The same stored object at the versions it is served at.

Custom resources differ in ``apiVersion`` alone (conversion ``None``; webhooks are not called). Events are
one kind in two groups.
"""

from __future__ import annotations

import orjson

from flyte_unified.testing.fake_kube.resources import Object, Resource
from flyte_unified.testing.fake_kube.store import Record

_EVENT_NAMES = {
    "message": "note", "involvedObject": "regarding", "source": "deprecatedSource", "count": "deprecatedCount",
    "firstTimestamp": "deprecatedFirstTimestamp", "lastTimestamp": "deprecatedLastTimestamp",
    "reportingComponent": "reportingController",
}  # fmt: skip
"""Fields of an event in the core group, as events.k8s.io calls them."""


def shown(resource: Resource, record: Record) -> bytes:
    """The object's JSON at the version of ``resource``."""
    if not _differs(resource):
        return record.data
    return orjson.dumps(read(resource, record))


def read(resource: Resource, record: Record) -> Object:
    """The object at the version of ``resource``."""
    content = record.object()
    if not _differs(resource):
        return content
    if not resource.custom:
        content = {_EVENT_NAMES.get(key, key): value for key, value in content.items()}
    content["apiVersion"] = resource.api_version
    return content


def stored(resource: Resource, content: Object) -> Object:
    """The object as it is kept."""
    if not _differs(resource):
        return content
    if resource.custom:
        return {**content, "apiVersion": f"{resource.group}/{resource.storage_version}"}
    names = {new: old for old, new in _EVENT_NAMES.items()}
    return {names.get(key, key): value for key, value in content.items()} | {"apiVersion": "v1"}


def _differs(resource: Resource) -> bool:
    if resource.custom:
        return resource.version != resource.storage_version
    return resource.shelf == ("", "events") and bool(resource.group)
