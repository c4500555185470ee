"""The port to objects: inputs, outputs, reports, code bundles.

The server itself moves little data: it stores inputs, reads inputs and outputs back, and signs URLs with which clients send
and fetch the rest. An address (``uri``) is whatever the task's own SDK opens: a bare absolute path on the laptop, ``s3://``
in a cluster. Nothing is written in place: an object is whole or absent.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from mimetypes import MimeTypes
from typing import Protocol

from flyte_unified.core.clock import Micros
from flyte_unified.core.errors import InvalidArgument

_TYPES = MimeTypes(filenames=())
"""Python's own table: the machine's would make the answer depend on the machine."""
_ODD = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
"""Control characters and lone surrogates"""
_MAX_NAME_BYTES = 255
_MAX_PATH_BYTES = 1024


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What is known of an object without reading it. ``size`` in bytes; ``etag`` changes whenever the content does."""

    uri: str
    size: int
    etag: str
    modified: Micros


@dataclass(frozen=True, slots=True)
class SignedUrl:
    """A URL that lets whoever has it do one thing until ``expires_at``, if it sends ``headers`` along."""

    url: str
    expires_at: Micros
    headers: Mapping[str, str] = field(default_factory=dict)


class DataStore(Protocol):
    """One place for objects.

    Every method raises PermissionDenied for an address outside of the store, NotFound for an object that is not there, and
    ResourceExhausted when there is no room.
    """

    async def start(self) -> None:
        """Makes the store ready, once and first. Raises what would keep it from working at all."""

    async def stop(self) -> None:
        """Gives back what it holds."""

    def base(self, root: str) -> str:
        """The address of a root by its name, without a trailing slash."""

    def owns(self, uri: str) -> bool:
        """Whether ``uri`` lies in this store, symbolic links resolved. Says nothing about existence."""

    async def get(self, uri: str, *, limit: int | None = None) -> bytes:
        """The whole object; ResourceExhausted if it has more than ``limit`` bytes."""

    def read(self, uri: str, *, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """The object, or ``length`` bytes from ``start``, piece by piece and never whole in memory."""

    async def put(self, uri: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Stores ``data``. With ``if_absent`` an object that is there stays as it is, and the answer is False."""

    async def head(self, uri: str) -> ObjectInfo | None:
        """What is known of the object, or None if there is none."""

    async def md5(self, uri: str) -> bytes:
        """The MD5 digest of the content, 16 bytes."""

    async def delete(self, uri: str) -> None:
        """Removes the object if it is there."""

    async def check_room(self) -> None:
        """Raises ResourceExhausted, naming the setting, when so little room is left that new work must be refused."""

    async def sign_upload(
        self, uri: str, *, md5: bytes, max_length: int, expires_in: float, base_url: str, replace: bool = False
    ) -> SignedUrl:
        """A URL to PUT content with this MD5 and at most ``max_length`` bytes to ``uri`` within ``expires_in`` seconds.

        Content that is there already stays unless ``replace``, where the store can do that (S3 cannot, nor bound the
        length). ``base_url`` is the scheme and authority under which the
        caller reaches this server, for stores that serve their own URLs.
        """

    async def sign_download(self, uri: str, *, expires_in: float, base_url: str) -> SignedUrl:
        """A URL to GET ``uri`` within ``expires_in`` seconds. NotFound if there is no such object."""


def join(base: str, *names: str, field: str = "path") -> str:
    """``base`` extended by relative paths, each checked by ``checked_path``."""
    return "/".join((base.rstrip("/"), *(checked_path(name, field=field) for name in names)))


def checked_path(path: str, *, field: str) -> str:
    """``path`` if it is relative, stays where it begins and fits a file system; else InvalidArgument naming ``field``."""
    parts = path.split("/")
    encoded = path.encode("utf-8", "surrogatepass")
    if any(part in ("", ".", "..") for part in parts):
        raise InvalidArgument(f"{field}: {path[:128]!r} must be a relative path without empty, '.' or '..' parts")
    if _ODD.search(path):
        raise InvalidArgument(f"{field}: {path[:128]!r} holds a control character or a lone surrogate")
    if len(encoded) > _MAX_PATH_BYTES or any(len(part.encode("utf-8")) > _MAX_NAME_BYTES for part in parts):
        raise InvalidArgument(
            f"{field} has {len(encoded)} bytes; at most {_MAX_PATH_BYTES} are allowed, {_MAX_NAME_BYTES} between two '/'"
        )
    return path


def content_type(uri: str) -> str:
    """What an object is by its name, as a Content-Type."""
    kind, encoding = _TYPES.guess_type(uri)
    if kind is None or encoding is not None:
        return "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind
