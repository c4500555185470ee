"""What an informer knows of the objects, and what of it is news. Pure.

Versions are compared as numbers, as Kubernetes lets clients do since 1.35 and as they were before; where they are none, they
are only equal or not (https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple, TypeAlias

from flyte_unified.kube.kinds import Object, key_of

Key: TypeAlias = tuple[str, str]
"""Namespace and name."""
News: TypeAlias = tuple[str, Object]
"""ADDED, MODIFIED or DELETED, and the object."""
Trim: TypeAlias = Callable[[Object], Object]
"""Gives the parts of an object that are worth their memory."""


class _Held(NamedTuple):
    version: str
    uid: str
    obj: Object


class Cache:
    """Keeps what ``trim`` gives, without ``managedFields`` in any case: nobody reads them, and they are a third of a pod."""

    def __init__(self, trim: Trim | None) -> None:
        self._trim = trim
        self._held: dict[Key, _Held] = {}

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Object]:
        return iter([held.obj for held in self._held.values()])

    def get(self, key: Key) -> Object | None:
        held = self._held.get(key)
        return None if held is None else held.obj

    def listed(self, obj: Object) -> Iterator[News]:
        """What a list says is true, be it older: the server's database may have been restored from a copy."""
        held = self._held.get(key_of(obj))
        if held is None or held.version != obj["metadata"]["resourceVersion"]:
            yield from self._keep(obj)

    def absent(self, listed: Collection[Key]) -> Iterator[News]:
        """The end, in their last known states, of those that a whole list did not have."""
        for key in [key for key in self._held if key not in listed]:
            yield "DELETED", self._held.pop(key).obj

    def watched(self, change: str, obj: Object) -> Iterator[News]:
        """What a watch says, unless it is known already or was overtaken."""
        key = key_of(obj)
        held = self._held.get(key)
        version = obj["metadata"]["resourceVersion"]
        if change == "DELETED":
            if held is not None and not _older(version, held.version):
                del self._held[key]
                yield "DELETED", self._kept(obj)
        elif held is None or (version != held.version and not _older(version, held.version)):
            yield from self._keep(obj)

    def _keep(self, obj: Object) -> Iterator[News]:
        metadata = obj["metadata"]
        key = key_of(obj)
        before = self._held.get(key)
        held = _Held(metadata["resourceVersion"], metadata.get("uid", ""), self._kept(obj))
        self._held[key] = held
        replaced = before is not None and before.uid != held.uid
        if before is not None and replaced:
            yield "DELETED", before.obj
        yield ("ADDED" if before is None or replaced else "MODIFIED"), held.obj

    def _kept(self, obj: Object) -> Object:
        obj["metadata"].pop("managedFields", None)
        return obj if self._trim is None else self._trim(obj)


def _older(version: str, than: str) -> bool:
    return version.isdecimal() and than.isdecimal() and int(version) < int(than)
