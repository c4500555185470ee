"""What etcd and the watch cache are to a real server: objects by key, one revision for all, a bounded history of changes.

An object is kept as its JSON, encoded once: a list joins stored bytes, and an event is one byte string for every watcher.
Nothing here awaits, so a read and the write that follows it are one step.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import orjson

from flyte_unified.testing.fake_kube.errors import ApiError, expired
from flyte_unified.testing.fake_kube.resources import Object
from flyte_unified.testing.fake_kube.selectors import Requirement, matches

Key = tuple[str, str]
"""Namespace (empty for what has none) and name."""

HISTORY = 10_000
"""Changes of one resource that a watch or a continued list can go back."""
BACKLOG = 100_000
"""Changes that a slow watcher may be behind before its watch is ended, as a real server does it sooner."""
MAX_OBJECT = 1_572_864
"""etcd's limit for one request, in bytes."""


@dataclass(slots=True)
class Record:
    """One stored state of one object."""

    key: Key
    version: int
    data: bytes
    uid: str
    labels: Mapping[str, str]
    owners: tuple[str, ...]
    fields: dict[str, str] = field(default_factory=dict)
    """Values of selectable fields that somebody asked for."""

    def object(self) -> Object:
        decoded: Object = orjson.loads(self.data)
        return decoded


@dataclass(slots=True)
class Change:
    """``previous`` is None for what was created; ``deleted`` carries the last state at the revision of the deletion."""

    version: int
    record: Record
    previous: Record | None
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Selection:
    """What a list or a watch is about."""

    namespace: str = ""
    labels: tuple[Requirement, ...] = ()
    fields: tuple[Requirement, ...] = ()

    @property
    def everything(self) -> bool:
        return not (self.namespace or self.labels or self.fields)

    def takes(self, record: Record) -> bool:
        if self.namespace and record.key[0] != self.namespace:
            return False
        if self.labels and not matches(self.labels, record.labels):
            return False
        return not self.fields or matches(self.fields, _fields(record, self.fields))


def _fields(record: Record, wanted: tuple[Requirement, ...]) -> Mapping[str, str]:
    if any(requirement.key not in record.fields for requirement in wanted):
        content = record.object()
        for requirement in wanted:
            record.fields[requirement.key] = _field(content, requirement.key)
    return record.fields


def _field(content: Object, path: str) -> str:
    """A missing field is empty, a flag that is missing is false: selectors compare texts."""
    if path == "status.podIPs":
        return ",".join(ip["ip"] for ip in content.get("status", {}).get("podIPs", ()))
    if path in ("source", "reportingComponent"):
        return str(content.get("source", {}).get("component") or content.get("reportingComponent", ""))
    found: object = content
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    if found is None:
        return "false" if path in ("spec.unschedulable", "spec.hostNetwork") else "0" if path == "status.successful" else ""
    return str(found).lower() if isinstance(found, bool) else str(found)


def encode(content: Object, version: int) -> bytes:
    content["metadata"]["resourceVersion"] = str(version)
    return orjson.dumps(content)


class Watcher:
    """One watch's queue of changes. Its reader is woken by ``wake``; ``closed`` ends it."""

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        self.changes: deque[Change] = deque()
        self.marked = False
        """Whether a bookmark is due."""
        self.wake = asyncio.Event()
        self.closed = False

    def put(self, change: Change) -> None:
        self.changes.append(change)
        if len(self.changes) > BACKLOG:
            self.closed = True
        self.wake.set()

    def mark(self) -> None:
        self.marked = True
        self.wake.set()

    def close(self) -> None:
        self.closed = True
        self.wake.set()


class Shelf:
    """Every object of one resource."""

    def __init__(self) -> None:
        self.records: dict[Key, Record] = {}
        self.history: deque[Change] = deque()
        self.compacted = 0
        """The newest revision whose changes are forgotten: older states cannot be told any more."""
        self.watchers: set[Watcher] = set()
        self._sorted: list[Key] | None = None

    def add(self, change: Change) -> None:
        key = change.record.key
        if change.deleted:
            del self.records[key]
        else:
            self.records[key] = change.record
        if change.deleted or change.previous is None:
            self._sorted = None
        self.history.append(change)
        if len(self.history) > HISTORY:
            self.compacted = self.history.popleft().version
        for watcher in self.watchers:
            watcher.put(change)

    def forget(self, version: int) -> None:
        """Compact: what changed up to ``version`` cannot be watched any more."""
        while self.history and self.history[0].version <= version:
            self.history.popleft()
        self.compacted = max(self.compacted, version)

    def sorted_keys(self) -> list[Key]:
        if self._sorted is None:
            self._sorted = sorted(self.records, key="/".join)
        return self._sorted

    def at(self, version: int) -> list[Record]:
        """The objects in key order as they were at a revision. Raises ApiError 410."""
        if version < self.compacted:
            raise expired("The provided resource version is too old")
        if not self.history or self.history[-1].version <= version:
            return [self.records[key] for key in self.sorted_keys()]
        then: dict[Key, Record] = dict(self.records)
        for change in reversed(self.history):
            if change.version <= version:
                break
            if change.previous is None:
                then.pop(change.record.key, None)
            else:
                then[change.record.key] = change.previous
        return [then[key] for key in sorted(then, key="/".join)]

    def since(self, version: int) -> list[Change]:
        """The changes after a revision, oldest first. Raises ApiError 410."""
        if version < self.compacted:
            raise expired(f"too old resource version: {version} ({self.compacted})")
        found: list[Change] = []
        for change in reversed(self.history):
            if change.version <= version:
                break
            found.append(change)
        return found[::-1]


class Store:
    """All shelves under one revision."""

    def __init__(self) -> None:
        self.version = 1
        self._shelves: dict[tuple[str, str], Shelf] = {}
        self.listeners: list[Callable[[tuple[str, str], Change], None]] = []

    def shelf(self, name: tuple[str, str]) -> Shelf:
        found = self._shelves.get(name)
        if found is None:
            found = self._shelves[name] = Shelf()
        return found

    def shelves(self) -> Iterator[tuple[tuple[str, str], Shelf]]:
        return iter(list(self._shelves.items()))

    def get(self, name: tuple[str, str], key: Key) -> Record | None:
        return self.shelf(name).records.get(key)

    def put(self, name: tuple[str, str], key: Key, content: Object) -> Record:
        """Create or replace. ``content`` is not kept; its resourceVersion is set. Raises ApiError."""
        record = _record(key, self.version + 1, content)
        if len(record.data) > MAX_OBJECT:
            raise ApiError(500, "", "etcdserver: request is too large")
        self.version += 1
        self._tell(name, Change(self.version, record, self.get(name, key)))
        return record

    def remove(self, name: tuple[str, str], key: Key) -> Record:
        """Delete. The last state is told at the revision of the deletion."""
        previous = self.shelf(name).records[key]
        self.version += 1
        last = _record(key, self.version, previous.object())
        self._tell(name, Change(self.version, last, previous, deleted=True))
        return last

    def _tell(self, name: tuple[str, str], change: Change) -> None:
        self.shelf(name).add(change)
        for listener in self.listeners:
            listener(name, change)


def _record(key: Key, version: int, content: Object) -> Record:
    metadata = content["metadata"]
    owners = tuple(owner["uid"] for owner in metadata.get("ownerReferences") or ())
    data = encode(content, version)
    return Record(key, version, data, metadata["uid"], metadata.get("labels") or {}, owners)
