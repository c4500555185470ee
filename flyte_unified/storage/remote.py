"""Objects in Google's and Azure's stores, through obstore: the library with which the SDK reads and writes them.

Credentials and endpoints are obstore's own, from the environment (``GOOGLE_*``, ``AZURE_*``), the machine's identity or the
cloud's command line. Imported only where a root is of these: it costs a start its time.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from math import ceil
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import obstore
from obstore import exceptions, store

from flyte_unified.core.clock import SECOND, Clock, Micros
from flyte_unified.core.errors import (
    FailedPrecondition,
    FlyteUnifiedError,
    Internal,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from flyte_unified.storage.addresses import Addresses, parted
from flyte_unified.storage.api import ObjectInfo, SignedUrl

PIECE = 1 << 20
"""Bytes read at once."""

_PROBE = "_probe"
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")
"""What the stores say of a bucket that is not there; an object is another matter."""

_LONGEST = 7 * 24 * 3600
"""Seconds that Google lets a URL live; Azure has no bound that is shorter."""

_ERRORS: tuple[tuple[type[BaseException], type[FlyteUnifiedError]], ...] = (
    (exceptions.NotFoundError, NotFound),
    (FileNotFoundError, NotFound),
    (exceptions.PermissionDeniedError, PermissionDenied),
    (exceptions.UnauthenticatedError, PermissionDenied),
    (exceptions.InvalidPathError, InvalidArgument),
    (exceptions.GenericError, Unavailable),
    (exceptions.BaseError, Internal),
)


def opened(bucket: str) -> Any:
    """The store of ``scheme://bucket``."""
    return store.from_url(bucket, client_options=_CLIENT, retry_config=_RETRIES)


_CLIENT: Any = {"timeout": "60s", "connect_timeout": "5s", "allow_http": True}  # as the SDK: an endpoint may be of any scheme
_RETRIES: Any = {"max_retries": 4, "retry_timeout": timedelta(seconds=30)}


class ObstoreStore:
    """``roots`` by name, each a bucket or a prefix in one; ``open_bucket`` gives obstore's own object for one.

    A signed URL binds neither length nor MD5 here: obstore signs no headers. The SDK sends the MD5 along, and the store
    refuses a body that differs from it. Azure's are of plain names only: obstore signs the name as the URL spells it, where
    Azure reads it decoded.
    """

    def __init__(self, roots: Mapping[str, str], *, clock: Clock, open_bucket: Callable[[str], Any] = opened) -> None:
        self._addresses = Addresses(roots)
        self._clock = clock
        self._buckets = {parted(bucket)[0]: open_bucket(bucket) for bucket in self._addresses.buckets}

    async def start(self) -> None:
        """Raises what would keep every call from success: an unknown bucket, refused credentials, a store that is away."""
        for bucket in self._addresses.buckets:
            with wrapped(bucket):
                try:
                    await obstore.get_async(self._buckets[parted(bucket)[0]], _PROBE)
                except FileNotFoundError as error:
                    if any(code in str(error) for code in _NO_BUCKET):
                        raise FailedPrecondition(f"there is no bucket {bucket}: make it, or set storage.root") from error

    async def stop(self) -> None:
        """obstore has threads of its own, which end with the process."""

    def base(self, root: str) -> str:
        return self._addresses.base(root)

    def owns(self, uri: str) -> bool:
        return self._addresses.owns(uri)

    async def get(self, uri: str, *, limit: int | None = None) -> bytes:
        bucket, key = self._located(uri)
        with wrapped(uri):
            found = await obstore.get_async(bucket, key)
            size = found.meta["size"]
            if limit is not None and size > limit:
                raise ResourceExhausted(f"{uri} has {size} bytes, more than the {limit} that may be read at once")
            return bytes(await found.bytes_async())

    async def read(self, uri: str, *, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        bucket, key = self._located(uri)
        size = (await self._info(uri)).size
        end = size if length is None else min(size, start + length)
        if start >= end:
            return
        with wrapped(uri):
            found = await obstore.get_async(bucket, key, options={"range": (start, end)})
            async for piece in found.stream(PIECE):
                yield bytes(piece)

    async def put(self, uri: str, data: bytes, *, if_absent: bool = False) -> bool:
        bucket, key = self._located(uri)
        with wrapped(uri):
            try:
                await obstore.put_async(bucket, key, data, mode="create" if if_absent else "overwrite", use_multipart=False)
            except exceptions.AlreadyExistsError:
                return False
        return True

    async def head(self, uri: str) -> ObjectInfo | None:
        self._located(uri)
        try:
            return await self._info(uri)
        except NotFound:
            return None

    async def md5(self, uri: str) -> bytes:
        digest = hashlib.md5(usedforsecurity=False)
        async for piece in self.read(uri):
            digest.update(piece)
        return digest.digest()

    async def delete(self, uri: str) -> None:
        bucket, key = self._located(uri)
        with suppress(NotFound), wrapped(uri):
            await obstore.delete_async(bucket, key)

    async def check_room(self) -> None:
        """A bucket has no end; a quota answers to the write itself."""

    async def sign_upload(
        self, uri: str, *, md5: bytes, max_length: int, expires_in: float, base_url: str, replace: bool = False
    ) -> SignedUrl:
        headers = {"Content-MD5": b64encode(md5).decode()}
        if uri.startswith("abfs://"):
            headers["x-ms-blob-type"] = "BlockBlob"
        return await self._signed("PUT", uri, expires_in, headers)

    async def sign_download(self, uri: str, *, expires_in: float, base_url: str) -> SignedUrl:
        if await self.head(uri) is None:
            raise NotFound(f"{uri} does not exist")
        return await self._signed("GET", uri, expires_in, {})

    async def _signed(self, method: Any, uri: str, expires_in: float, headers: Mapping[str, str]) -> SignedUrl:
        bucket, key = self._located(uri)
        expires = min(max(1, ceil(expires_in)), _LONGEST)
        until = Micros((self._clock.now() // SECOND + expires) * SECOND)
        for spelled in (key, quote(key)):  # obstore encodes the names of some stores, and not of others
            with wrapped(uri):
                url = await obstore.sign_async(bucket, method, spelled, timedelta(seconds=expires))
            path = urlsplit(url).path
            if unquote(path).endswith(f"/{key}") and not ("%" in path and uri.startswith("abfs://")):
                return SignedUrl(url, until, headers)
        raise InvalidArgument(f"{uri}: no URL can be signed for an object of this name; letters, digits and -_.+ are plain")

    async def _info(self, uri: str) -> ObjectInfo:
        bucket, key = parted(uri)
        with wrapped(uri):
            found = await obstore.head_async(self._buckets[bucket], key)
        modified = Micros(int(found["last_modified"].timestamp()) * SECOND)
        return ObjectInfo(uri, found["size"], found["e_tag"] or "", modified)

    def _located(self, uri: str) -> tuple[Any, str]:
        self._addresses.check(uri)
        bucket, key = parted(uri)
        return self._buckets[bucket], key


@contextmanager
def wrapped(uri: str) -> Iterator[None]:
    """obstore's errors as ours. What it says may be long: an HTTP answer, a chain of causes."""
    try:
        yield
    except (exceptions.BaseError, FileNotFoundError) as error:
        kind = next(ours for theirs, ours in _ERRORS if isinstance(error, theirs))
        said = " ".join(str(error).split())
        raise kind(f"{uri} does not exist" if kind is NotFound else f"{uri}: {said[:512]}") from error
