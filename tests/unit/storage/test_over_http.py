"""Signed URLs through the real port, with the client that the SDK uses."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from flyte_unified.core.clock import SystemClock
from flyte_unified.core.context import Headers, Identity
from flyte_unified.rpc.edge import Edge
from flyte_unified.rpc.registry import Registry
from flyte_unified.storage.local import LocalStore
from flyte_unified.storage.routes import data_routes
from flyte_unified.storage.signing import Signer

_LARGE = 20 << 20


async def _anyone(token: str | None, headers: Headers) -> Identity:
    return Identity()


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore({"objects": tmp_path / "objects"}, signer=Signer(b"k" * 32), clock=SystemClock())


@pytest.fixture
async def base_url(store: LocalStore) -> AsyncIterator[str]:
    edge = Edge(registry=Registry(), identify=_anyone, routes=data_routes(store), max_message_bytes=1 << 20)
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    await edge.start([listening])
    yield f"http://127.0.0.1:{edge.port}"
    await edge.stop(1)


def _headers(content: bytes) -> dict[str, str]:
    digest = base64.b64encode(hashlib.md5(content).digest()).decode()
    return {"Content-MD5": digest, "Content-Length": str(len(content))}


async def test_twenty_megabytes_there_and_back(store: LocalStore, base_url: str) -> None:
    """A large file goes through a signed PUT, beyond the bound on messages, and comes back whole and in parts."""
    content = os.urandom(_LARGE)
    uri = f"{store.base('objects')}/up/with space & +%é.bin"
    put = await store.sign_upload(uri, md5=hashlib.md5(content).digest(), max_length=_LARGE, expires_in=60, base_url=base_url)
    async with httpx.AsyncClient() as client:
        assert (await client.put(put.url, content=content, headers=_headers(content))).status_code == 200
        get = await store.sign_download(uri, expires_in=60, base_url=base_url)
        answer = await client.get(get.url)
        assert answer.status_code == 200
        assert answer.content == content
        assert answer.headers["content-length"] == str(_LARGE)
        part = await client.get(get.url, headers={"Range": "bytes=5-9"})
        assert (part.status_code, part.content) == (206, content[5:10])
        assert part.headers["content-range"] == f"bytes 5-9/{_LARGE}"
        head = await client.head(get.url)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(_LARGE)
        again = await client.get(get.url, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


async def test_refusals(store: LocalStore, base_url: str) -> None:
    """Altered, wrong and too long are refused with a status and a text that a client can show."""
    content = b"content"
    uri = f"{store.base('objects')}/name"
    put = await store.sign_upload(uri, md5=hashlib.md5(content).digest(), max_length=7, expires_in=60, base_url=base_url)
    async with httpx.AsyncClient() as client:
        altered = await client.put(put.url.replace("max=7", "max=8"), content=content, headers=_headers(content))
        assert (altered.status_code, "altered" in altered.text) == (403, True)
        wrong = await client.put(put.url, content=b"CONTENT", headers={"Content-MD5": _headers(content)["Content-MD5"]})
        assert (wrong.status_code, "Content-MD5" in wrong.text) == (400, True)
        long = await client.put(
            put.url, content=b"content+", headers=_headers(b"content+") | _headers(content) | {"Content-Length": "8"}
        )
        assert long.status_code == 413
        assert (await client.get(f"{base_url}/data/objects/../../etc/passwd")).status_code in (403, 404)
        assert (await client.get(f"{base_url}/data/objects/%2e%2e/%2e%2e/etc/passwd")).status_code == 403
        assert (await client.post(put.url, content=content)).status_code == 405
    assert await store.head(uri) is None
