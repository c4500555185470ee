"""Files between a directory and wherever an address points: what the containers beside a task do.

Other than ``DataStore`` this has no roots: a task's inputs may lie in any bucket that its credentials open. They come from the
environment under the names that Flyte's SDK reads (FLYTE_AWS_*), else as obstore finds them. Files are streamed, never whole in
memory. A bare path is a file.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore import store

from flyte_unified.core.errors import NotFound
from flyte_unified.storage.addresses import parted
from flyte_unified.storage.remote import wrapped

_PIECE = 8 << 20
_AT_ONCE = 8
_RETRIES: Any = {"max_retries": 8, "retry_timeout": timedelta(minutes=5)}


class Transfer:
    """``environ`` says how stores are reached. Methods raise NotFound, PermissionDenied, Unavailable."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._stores: dict[str, Any] = {}
        self._at_once = asyncio.Semaphore(_AT_ONCE)

    async def get(self, uri: str) -> bytes:
        """An object that is small."""
        with wrapped(uri):
            if _is_path(uri):
                return await asyncio.to_thread(Path(uri).read_bytes)
            bucket, key = self._located(uri)
            return bytes(await (await obstore.get_async(bucket, key)).bytes_async())

    async def put(self, uri: str, data: bytes) -> None:
        with wrapped(uri):
            if _is_path(uri):
                await asyncio.to_thread(_write, Path(uri), data)
            else:
                await obstore.put_async(*self._located(uri), data, use_multipart=False)

    async def exists(self, uri: str) -> bool:
        try:
            with wrapped(uri):
                if _is_path(uri):
                    return Path(uri).exists()  # noqa: ASYNC240  # a look at a local disk
                await obstore.head_async(*self._located(uri))
        except NotFound:
            return False
        return True

    async def download(self, uri: str, to: Path) -> None:
        """One object into a file; its directory is made."""
        async with self._at_once:
            with wrapped(uri):
                await asyncio.to_thread(to.parent.mkdir, parents=True, exist_ok=True)
                if _is_path(uri):
                    await asyncio.to_thread(shutil.copyfile, uri, to)
                    return
                found = await obstore.get_async(*self._located(uri))
                with to.open("wb") as file:  # as quick as the page cache
                    async for piece in found.stream(_PIECE):
                        await asyncio.to_thread(file.write, piece)

    async def download_all(self, uri: str, to: Path) -> None:
        """Every object below ``uri`` into a directory, which is made even for none."""
        await asyncio.to_thread(to.mkdir, parents=True, exist_ok=True)
        names = [name async for name in self._below(uri)]
        await asyncio.gather(*(self.download(f"{uri.rstrip('/')}/{name}", to / name) for name in names))

    async def upload(self, path: Path, uri: str) -> None:
        """One file into an object."""
        async with self._at_once:
            with wrapped(uri):
                if _is_path(uri):
                    await asyncio.to_thread(_copy, path, Path(uri))
                else:
                    await obstore.put_async(*self._located(uri), path, chunk_size=_PIECE)

    async def upload_all(self, directory: Path, uri: str) -> None:
        """Every file below ``directory``."""
        files = await asyncio.to_thread(lambda: sorted(path for path in directory.rglob("*") if path.is_file()))
        await asyncio.gather(*(self.upload(path, f"{uri}/{path.relative_to(directory).as_posix()}") for path in files))

    async def _below(self, uri: str) -> AsyncIterator[str]:
        if _is_path(uri):
            for path in await asyncio.to_thread(lambda: sorted(Path(uri).rglob("*"))):
                if path.is_file():
                    yield path.relative_to(uri).as_posix()
            return
        bucket, key = self._located(uri)
        prefix = f"{key.rstrip('/')}/"
        with wrapped(uri):
            async for page in obstore.list(bucket, prefix):
                for found in page:
                    if name := str(found["path"]).removeprefix(prefix):
                        yield name

    def _located(self, uri: str) -> tuple[Any, str]:
        name, key = parted(uri)
        address = f"{uri.partition('://')[0]}://{name}"
        if address not in self._stores:
            self._stores[address] = store.from_url(address, **self._options(address))
        return self._stores[address], key

    def _options(self, address: str) -> dict[str, Any]:
        client: dict[str, Any] = {"timeout": "300s", "connect_timeout": "10s", "allow_http": True}
        options: dict[str, Any] = {"client_options": client, "retry_config": _RETRIES}
        if not address.startswith("s3://"):
            return options
        said = {name: self._environ.get(variable, "") for name, variable in _S3.items()}
        virtual = self._environ.get("FLYTE_AWS_S3_ADDRESSING_STYLE", "") == "virtual"
        options["config"] = {name: value for name, value in said.items() if value} | {"virtual_hosted_style_request": virtual}
        return options


_S3 = {
    "endpoint": "FLYTE_AWS_ENDPOINT",
    "access_key_id": "FLYTE_AWS_ACCESS_KEY_ID",
    "secret_access_key": "FLYTE_AWS_SECRET_ACCESS_KEY",
    "region": "AWS_REGION",
}


def _is_path(uri: str) -> bool:
    return "://" not in uri


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data)
    part.replace(path)


def _copy(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, to)
