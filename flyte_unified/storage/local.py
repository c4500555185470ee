"""The laptop's store: files below a few directories, at addresses that the task's process opens itself.

Everything is written to a temporary file beside its root and moved into place, so a reader sees all of an object or none, and
a crash leaves at most a temporary file, which ``start`` removes. Symbolic links are resolved before the comparison with the
roots: nothing a task leaves behind can point the server elsewhere. File calls run in threads, a megabyte at a time.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from math import ceil
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from flyte_unified.core.clock import SECOND, Clock, Micros
from flyte_unified.core.errors import (
    AlreadyExists,
    FlyteUnifiedError,
    Internal,
    InvalidArgument,
    NotFound,
    OutOfRange,
    PermissionDenied,
    ResourceExhausted,
)
from flyte_unified.storage.api import ObjectInfo, SignedUrl, checked_path
from flyte_unified.storage.signing import Grant, Signer

T = TypeVar("T")

PIECE = 1 << 20
"""Bytes read or written at once."""

_SMALL = 64 << 10
"""Bytes that are read at once on the event loop: a thread would cost five times the read."""
_REMEMBERED = 1024
_TEMPORARY = ".incoming"
_ABANDONED = 24 * 3600
"""Seconds after which a temporary file has no writer any more."""

_ERRORS: dict[int, type[FlyteUnifiedError]] = {
    errno.ENOENT: NotFound,
    errno.ENOTDIR: NotFound,
    errno.EISDIR: NotFound,
    errno.ELOOP: NotFound,
    errno.ENXIO: NotFound,
    errno.EACCES: PermissionDenied,
    errno.EPERM: PermissionDenied,
    errno.ENAMETOOLONG: InvalidArgument,
    errno.ENOSPC: ResourceExhausted,
    errno.EDQUOT: ResourceExhausted,
}


class LocalStore:
    """``roots`` by name; the name is what stands for the directory in a signed URL. Makes the directories, mode 0700.

    ``min_free_bytes`` is the room on each root's disk below which new uploads and runs are refused; 0 for no such bound.
    """

    def __init__(self, roots: Mapping[str, Path], *, signer: Signer, clock: Clock, min_free_bytes: int = 0) -> None:
        self._roots: dict[str, Path] = {}
        for name, directory in roots.items():
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._roots[name] = directory.resolve()
        self._signer = signer
        self._clock = clock
        self._min_free_bytes = min_free_bytes
        self._inside: set[str] = set()
        """Directories seen to be roots or to lie in one: every child asks for its run's. Opening a file looks again."""

    async def start(self) -> None:
        """Removes temporary files whose writer died."""
        await asyncio.to_thread(self._sweep)

    async def stop(self) -> None:
        """Nothing is held."""

    def base(self, root: str) -> str:
        return str(self._roots[root])

    def owns(self, uri: str) -> bool:
        parent = uri.rpartition("/")[0]
        above = parent.rpartition("/")[0]
        if above in self._inside and ".." not in uri and not (_is_link(parent) or _is_link(uri)):
            return True
        place = self._place(uri)
        # Where no link is on the way, what is above is as it is written.
        if place is not None and str(place[1]) == uri and Path(above).is_relative_to(self._roots[place[0]]):
            if len(self._inside) >= _REMEMBERED:
                self._inside.clear()
            self._inside.add(above)
        return place is not None

    async def get(self, uri: str, *, limit: int | None = None) -> bytes:
        file, info = self._open(uri)
        with file, _wrapped(uri):
            if limit is not None and info.size > limit:
                raise ResourceExhausted(f"{uri} has {info.size} bytes, more than the {limit} that may be read at once")
            if info.size <= _SMALL:
                return file.read()
            return await _finished(lambda: b"".join(iter(lambda: file.read(PIECE), b"")))

    async def read(self, uri: str, *, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        file, info = self._open(uri)
        with file, _wrapped(uri):
            left = max(0, info.size - start) if length is None else length
            file.seek(start)
            while left > 0 and (piece := await _finished(file.read, min(PIECE, left))):
                left -= len(piece)
                yield piece

    async def put(self, uri: str, data: bytes, *, if_absent: bool = False) -> bool:
        return await asyncio.to_thread(self._put, uri, data, if_absent)

    async def head(self, uri: str) -> ObjectInfo | None:
        try:
            file, info = self._open(uri)
        except NotFound:
            return None
        file.close()
        return info

    async def md5(self, uri: str) -> bytes:
        digest = hashlib.md5(usedforsecurity=False)
        async for piece in self.read(uri):
            await asyncio.to_thread(digest.update, piece)
        return digest.digest()

    async def delete(self, uri: str) -> None:
        with _wrapped(uri), suppress(FileNotFoundError):
            await asyncio.to_thread(self._located(uri)[1].unlink)

    async def check_room(self) -> None:
        for root in self._roots.values():
            free = shutil.disk_usage(root).free  # a few microseconds; a thread would cost a hundred
            if free < self._min_free_bytes:
                raise ResourceExhausted(
                    f"the disk of {root} has {free >> 20} MiB left, less than storage.min_free_bytes "
                    f"({self._min_free_bytes >> 20} MiB): free some space or lower that setting"
                )

    async def sign_upload(
        self, uri: str, *, md5: bytes, max_length: int, expires_in: float, base_url: str, replace: bool = False
    ) -> SignedUrl:
        root, path = self._located(uri)
        key = checked_path(f"{root}/{path.relative_to(self._roots[root]).as_posix()}", field="uri")
        expires = self._expiry(expires_in)
        grant = Grant("PUT", key, expires, md5=md5.hex(), max_length=max_length, replace=replace)
        return SignedUrl(self._signer.url(grant, base_url), Micros(expires * SECOND))

    async def sign_download(self, uri: str, *, expires_in: float, base_url: str) -> SignedUrl:
        if await self.head(uri) is None:
            raise NotFound(f"{uri} does not exist")
        root, path = self._located(uri)
        expires = self._expiry(expires_in)
        grant = Grant("GET", f"{root}/{path.relative_to(self._roots[root]).as_posix()}", expires)
        return SignedUrl(self._signer.url(grant, base_url), Micros(expires * SECOND))

    def granted(self, key: str, query: Mapping[str, str]) -> tuple[str, Grant]:
        """The address and the grant that a signed URL stands for. Raises PermissionDenied if it grants nothing (more)."""
        grant = self._signer.grant(key, query, self._clock.now())
        root, _, rest = key.partition("/")
        if root not in self._roots:
            raise NotFound(f"there is no storage root {root!r} any more")
        return f"{self._roots[root]}/{checked_path(rest, field='path')}", grant

    async def receive(self, uri: str, body: AsyncIterator[bytes], grant: Grant) -> None:
        """Stores a streamed body as ``grant`` allows; the same content once more is fine.

        Raises OutOfRange for a body that is too long, InvalidArgument for one with another MD5 and AlreadyExists where
        other content must stay. Nothing of a refused body remains.
        """
        root, _ = self._located(uri)
        with _wrapped(uri):
            handle, name = self._temporary(root)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb", buffering=0) as file:
                digest = await _copy(body, file, max_length=grant.max_length, uri=uri)
            if digest != grant.md5:
                raise InvalidArgument(f"Content-MD5: the body's MD5 is {digest}, {grant.md5} was agreed; nothing was stored")
            moved = await _finished(self._commit, temporary, uri, not grant.replace)
            if not moved and (await self.md5(uri)).hex() != grant.md5:
                raise AlreadyExists(f"{uri} exists with other content, which stays as it is")
        finally:
            _discard(temporary)

    def _expiry(self, expires_in: float) -> int:
        return ceil(self._clock.now() / SECOND + expires_in)

    def _place(self, uri: str) -> tuple[str, Path] | None:
        if not uri.startswith("/") or "\0" in uri:
            return None
        path = Path(os.path.realpath(uri))
        for name, root in self._roots.items():
            if path != root and path.is_relative_to(root):
                return name, path
        return None

    def _located(self, uri: str) -> tuple[str, Path]:
        place = self._place(uri)
        if place is None:
            raise self._outside(uri)
        return place

    def _check(self, uri: str, location: str) -> None:
        """One look at where an open file is costs less than resolving its path part by part, and nobody can come between."""
        if not any(location.startswith(f"{root}/") for root in self._roots.values()):
            raise self._outside(uri)

    def _outside(self, uri: str) -> PermissionDenied:
        roots = ", ".join(map(str, self._roots.values()))
        return PermissionDenied(f"{uri!r} lies outside of the storage roots ({roots}); symbolic links are resolved")

    def _open(self, uri: str) -> tuple[BinaryIO, ObjectInfo]:
        """Opens a regular file. A pipe or a device would block the thread, so it is none to us."""
        if not any(uri.startswith(f"{root}/") for root in self._roots.values()):
            uri = str(self._located(uri)[1])
        with _wrapped(uri):
            handle = os.open(uri, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            file = os.fdopen(handle, "rb", buffering=0)
            try:
                self._check(uri, _location(handle))
                status = os.fstat(handle)
                if not stat.S_ISREG(status.st_mode):
                    raise NotFound(f"{uri} is no regular file")
            except BaseException:
                file.close()
                raise
        etag = f'"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"'
        return file, ObjectInfo(uri, status.st_size, etag, Micros(status.st_mtime_ns // 1000))

    def _put(self, uri: str, data: bytes, if_absent: bool) -> bool:
        root, _ = self._located(uri)
        with _wrapped(uri):
            handle, name = self._temporary(root)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(handle)
                return self._commit(Path(name), uri, if_absent)
            finally:
                _discard(Path(name))

    def _temporary(self, root: str) -> tuple[int, str]:
        directory = self._roots[root] / _TEMPORARY
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return tempfile.mkstemp(dir=directory)

    def _commit(self, temporary: Path, uri: str, if_absent: bool) -> bool:
        """Moves a complete file into place; the directory's own sync makes the move survive a power cut."""
        _, path = self._located(uri)
        with _wrapped(uri):
            try:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                if if_absent:
                    os.link(temporary, path)
                else:
                    temporary.replace(path)
            except FileExistsError:
                if not path.is_file():
                    raise AlreadyExists(f"{uri} cannot be made: a directory or a part of its path is in the way") from None
                return False
            except NotADirectoryError:
                raise AlreadyExists(f"{uri} cannot be made: a part of its path is a file") from None
            _sync_directory(path.parent)
        return True

    def _sweep(self) -> None:
        before = time.time() - _ABANDONED
        for root in self._roots.values():
            for file in (root / _TEMPORARY).glob("*"):
                with suppress(FileNotFoundError):
                    if file.stat().st_mtime < before:
                        file.unlink()


async def _finished(call: Callable[..., T], *args: Any) -> T:
    """``call`` in a thread. A cancelled caller waits for its end: the file it works on must not be closed under it."""
    running = asyncio.get_running_loop().run_in_executor(None, call, *args)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait((running,))
        if not running.cancelled():
            running.exception()
        raise


async def _copy(body: AsyncIterator[bytes], file: BinaryIO, *, max_length: int, uri: str) -> str:
    """Writes ``body`` to the disk a piece at a time and answers its MD5 in hexadecimal."""
    digest = hashlib.md5(usedforsecurity=False)
    pending = bytearray()
    length = 0

    def flush() -> None:
        digest.update(pending)
        with _wrapped(uri):
            view = memoryview(pending)
            while view:
                view = view[file.write(view) :]

    def finish() -> None:
        flush()
        with _wrapped(uri):
            os.fsync(file.fileno())

    async for chunk in body:
        length += len(chunk)
        if length > max_length:
            raise OutOfRange(f"the body has more than the {max_length} bytes that this URL allows")
        pending += chunk
        if len(pending) >= PIECE:
            await _finished(flush)
            pending = bytearray()
    await _finished(finish)
    return digest.hexdigest()


def _discard(temporary: Path) -> None:
    temporary.unlink(missing_ok=True)


def _location(handle: int) -> str:
    """Where an open file is, symbolic links resolved."""
    if sys.platform == "darwin":
        return fcntl.fcntl(handle, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0").decode()
    return os.readlink(f"/proc/self/fd/{handle}")  # noqa: PTH115  # a Path would cost as much again


def _is_link(path: str) -> bool:
    return os.path.islink(path)  # noqa: PTH114  # every child asks, and a Path would cost five times as much


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _wrapped(uri: str) -> Iterator[None]:
    """The operating system's errors as ours."""
    try:
        yield
    except OSError as error:
        kind = _ERRORS.get(error.errno or 0, Internal)
        raise kind(f"{uri}: {error.strerror or error}") from error
