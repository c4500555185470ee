"""Lists and watches: which objects at which revision, in which pages, and what a watcher is told."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass

import orjson

from flyte_unified.testing.fake_kube import errors
from flyte_unified.testing.fake_kube.errors import Cause
from flyte_unified.testing.fake_kube.resources import Resource
from flyte_unified.testing.fake_kube.selectors import parse_fields, parse_labels
from flyte_unified.testing.fake_kube.store import Change, Record, Selection, Shelf, Store, Watcher, encode

_BOOKMARK_SECONDS = 60.0
_MATCHES = ("", "Exact", "NotOlderThan")
View = Callable[[Record], bytes]
"""How an object is shown: its JSON, perhaps at another version or as a table's row."""


@dataclass(frozen=True, slots=True)
class ListOptions:
    """The query of a list or a watch. Raises ApiError 400 and 422 from ``of``."""

    selection: Selection
    version: str = ""
    match: str = ""
    limit: int = 0
    token: str = ""
    bookmarks: bool = False
    initial_events: bool | None = None
    timeout: float | None = None

    @classmethod
    def of(cls, resource: Resource, namespace: str, query: Mapping[str, str], *, name: str = "") -> ListOptions:
        fields = parse_fields(query.get("fieldSelector", ""), resource.selectable)
        if name:
            fields += parse_fields(f"metadata.name={name}", resource.selectable)
        initial = query.get("sendInitialEvents")
        seconds = query.get("timeoutSeconds")
        return cls(
            Selection(namespace, parse_labels(query.get("labelSelector", "")), fields),
            version=query.get("resourceVersion", ""), match=query.get("resourceVersionMatch", ""),
            limit=_number(query.get("limit", "0")), token=query.get("continue", ""),
            bookmarks=truth(query.get("allowWatchBookmarks", "")),
            initial_events=None if initial is None else truth(initial), timeout=float(_number(seconds)) if seconds else None,
        )  # fmt: skip


def truth(text: str) -> bool:
    """Go's idea of a true query parameter."""
    return text.lower() not in ("", "0", "false", "f")


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise errors.bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


def page(store: Store, resource: Resource, options: ListOptions) -> tuple[list[Record], dict[str, object]]:
    """One page and the list's metadata. Raises ApiError 400, 410, 504."""
    shelf = store.shelf(resource.shelf)
    version, start = _revision(store, resource, options)
    try:
        records = shelf.at(version)
    except errors.ApiError:
        if options.token:
            raise _token_expired(store, start) from None
        raise
    found: list[Record] = []
    if namespace := options.selection.namespace:
        records = [record for record in records if record.key[0] == namespace]
    if start:
        records = [record for record in records if "/".join(record.key) > start]
    remaining = 0
    for index, record in enumerate(records):
        if not options.selection.takes(record):
            continue
        if options.limit and len(found) == options.limit:
            remaining = len(records) - index
            break
        found.append(record)
    meta: dict[str, object] = {"resourceVersion": str(version)}
    if remaining:
        meta["continue"] = _token(version, "/".join(found[-1].key))
        if not (options.selection.labels or options.selection.fields):
            meta["remainingItemCount"] = remaining
    return found, meta


def _revision(store: Store, resource: Resource, options: ListOptions) -> tuple[int, str]:
    """At which revision the list is, and after which key it begins."""
    if options.match and not options.version:
        raise _list_invalid("resourceVersionMatch", "resourceVersionMatch is forbidden unless resourceVersion is provided")
    if options.match not in _MATCHES:
        choices = 'supported values: "Exact", "NotOlderThan", ""'
        message = f'Unsupported value: "{options.match}": {choices}'
        cause = Cause("FieldValueNotSupported", message, "resourceVersionMatch")
        raise errors.invalid("meta.k8s.io", "ListOptions", "", [cause])
    if (options.match, options.version) == ("Exact", "0"):
        why = 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
        raise _list_invalid("resourceVersionMatch", why)
    if options.token:
        if options.version not in ("", "0"):
            raise errors.bad_request("specifying resource version is not allowed when using continue")
        version, start = _read_token(options.token)
        return (store.version if version < 0 else version), start
    if options.version in ("", "0"):
        return store.version, ""
    version = _version(options.version)
    if version > store.version:
        raise too_large(version, store.version)
    if options.match == "Exact" or (options.limit and not options.match):
        return version, ""
    return store.version, ""


def _list_invalid(field: str, why: str) -> errors.ApiError:
    return errors.invalid("meta.k8s.io", "ListOptions", "", [Cause("FieldValueForbidden", f"Forbidden: {why}", field)])


def too_large(version: int, current: int) -> errors.ApiError:
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    message = f"Timeout: Too large resource version: {version}, current: {current}"
    return errors.ApiError(504, "Timeout", message, details={"causes": [cause], "retryAfterSeconds": 1})


def _version(text: str) -> int:
    if not text.isdigit():
        raise errors.bad_request(f'Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax')
    return int(text)


def _token(version: int, start: str) -> str:
    return base64.urlsafe_b64encode(orjson.dumps({"v": "meta.k8s.io/v1", "rv": version, "start": start})).decode().rstrip("=")


def _read_token(text: str) -> tuple[int, str]:
    try:
        token = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        return int(token["rv"]), str(token["start"])
    except (binascii.Error, ValueError, KeyError, TypeError):
        raise errors.bad_request("continue key is not valid: unable to decode") from None


def _token_expired(store: Store, start: str) -> errors.ApiError:
    message = (
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the "
        "continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing "
        "with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the "
        "time the first chunk was returned and now may show up in the list."
    )
    return errors.expired(message, {"continue": _token(-1, start), "resourceVersion": ""})


class Watch:
    """The events of one watch as bytes, a line each."""

    def __init__(self, store: Store, resource: Resource, options: ListOptions, view: View) -> None:
        self._store = store
        self._resource = resource
        self._options = options
        self._view = view
        self._shelf: Shelf = store.shelf(resource.shelf)
        self.watcher = Watcher(options.selection)
        self._first = self._opening()
        self._shelf.watchers.add(self.watcher)

    def close(self) -> None:
        self._shelf.watchers.discard(self.watcher)

    def _opening(self) -> list[bytes]:
        """What is told at once. Raises ApiError where the watch cannot begin."""
        options = self._options
        if options.initial_events is not None and options.match != "NotOlderThan":
            why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            raise _list_invalid("resourceVersionMatch", why)
        if options.initial_events is None and options.match:
            raise _list_invalid(
                "resourceVersionMatch", "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
            )
        self._reached = self._store.version
        version = _version(options.version or "0")
        self._silent = version  # what comes before is no news to a watcher from the future
        initial = options.initial_events if options.initial_events is not None else version == 0
        if initial:
            records = self._shelf.at(self._reached)
            lines = [self._line(b"ADDED", self._view(record)) for record in records if options.selection.takes(record)]
            end = options.initial_events and options.bookmarks
            return [*lines, self.bookmark(initial_end=True)] if end else lines
        if version == 0 or version > self._reached:
            return []
        self._reached = version
        lines = [line for change in self._shelf.since(version) if (line := self._told(change))]
        self._reached = self._store.version
        return lines

    async def lines(self) -> AsyncIterator[bytes]:
        """Chunks of events, until the watcher is closed."""
        if self._first:
            yield b"".join(self._first)
        while not self.watcher.closed:
            await self._woken()
            changes = self.watcher.changes
            told = []
            while changes:
                change = changes.popleft()
                self._reached = change.version
                if change.version > self._silent and (line := self._told(change)):
                    told.append(line)
            if self.watcher.marked and self._options.bookmarks:
                told.append(self.bookmark())
            self.watcher.marked = False
            if told:
                yield b"".join(told)

    async def _woken(self) -> None:
        """Wait for changes; without any, now and then for the time of a bookmark."""
        try:
            async with asyncio.timeout(_BOOKMARK_SECONDS if self._options.bookmarks else None):
                await self.watcher.wake.wait()
        except TimeoutError:
            self.watcher.marked = True
        self.watcher.wake.clear()

    def _told(self, change: Change) -> bytes:
        """The event that this watcher sees: an object that matches no more is deleted to it, one that does now is new."""
        takes = self._options.selection.takes
        before = change.previous is not None and takes(change.previous)
        after = not change.deleted and takes(change.record)
        if after:
            return self._line(b"MODIFIED" if before else b"ADDED", self._view(change.record))
        if not before or change.previous is None:
            return b""
        if change.deleted:
            return self._line(b"DELETED", self._view(change.record))
        last = change.previous
        stamped = Record(last.key, change.version, encode(last.object(), change.version), last.uid, last.labels, last.owners)
        return self._line(b"DELETED", self._view(stamped))

    def bookmark(self, *, initial_end: bool = False) -> bytes:
        """How far the watcher is, without an object."""
        annotations = {"annotations": {"k8s.io/initial-events-end": "true"}} if initial_end else {}
        meta = {"resourceVersion": str(max(self._reached, self._settled())), "creationTimestamp": None, **annotations}
        content = {"kind": self._resource.kind, "apiVersion": self._resource.api_version, "metadata": meta}
        return self._line(b"BOOKMARK", orjson.dumps(content))

    def _settled(self) -> int:
        """A watcher without waiting changes has seen everything up to now."""
        return 0 if self.watcher.changes else self._store.version

    @staticmethod
    def _line(kind: bytes, content: bytes) -> bytes:
        return b'{"type":"' + kind + b'","object":' + content + b"}\n"
