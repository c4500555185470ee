"""Addresses of objects in buckets: ``s3://bucket/prefix/name``.

A bucket has no directories and resolves nothing, so an address is inside a root exactly if it is spelled so. Parts that some
client or proxy might resolve (``.``, ``..``, an empty one) are refused rather than interpreted.
"""

from __future__ import annotations

from collections.abc import Mapping

from flyte_unified.core.errors import InvalidArgument, PermissionDenied
from flyte_unified.storage.api import checked_path


class Addresses:
    """``roots`` by name, each a bucket or a prefix in one."""

    def __init__(self, roots: Mapping[str, str]) -> None:
        self._roots = {name: uri.rstrip("/") for name, uri in roots.items()}

    @property
    def buckets(self) -> list[str]:
        """``scheme://bucket`` of each root, once."""
        return sorted({"/".join(uri.split("/")[:3]) for uri in self._roots.values()})

    def base(self, root: str) -> str:
        """The address of a root."""
        return self._roots[root]

    def owns(self, uri: str) -> bool:
        """Whether ``uri`` is of an object below a root."""
        for root in self._roots.values():
            if uri.startswith(f"{root}/"):
                try:
                    checked_path(uri[len(root) + 1 :], field="uri")
                except InvalidArgument:
                    return False
                return True
        return False

    def check(self, uri: str) -> None:
        """Raises PermissionDenied for an address that is not owned."""
        if not self.owns(uri):
            raise PermissionDenied(f"{uri[:1024]!r} lies outside of the storage ({', '.join(self._roots.values())})")


def parted(uri: str) -> tuple[str, str]:
    """Bucket and key; the key of a bucket itself is empty."""
    bucket, _, key = uri.partition("://")[2].partition("/")
    return bucket, key
