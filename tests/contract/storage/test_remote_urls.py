"""Signed URLs of stores that serve them themselves: any HTTP client can use one."""

from __future__ import annotations

import asyncio
import hashlib

import urllib3

from flyte_unified.storage.api import DataStore, join


async def test_what_was_put_by_url_is_fetched_by_url(remote: DataStore) -> None:
    """One URL stores, another one fetches, and the store itself has the same bytes."""
    content = bytes(range(256)) * 300
    uri = join(remote.base("objects"), "with space", "données+%2e.bin")
    signed = await remote.sign_upload(
        uri, md5=hashlib.md5(content).digest(), max_length=len(content), expires_in=60, base_url="http://unused"
    )
    put = await asyncio.to_thread(urllib3.request, "PUT", signed.url, body=content, headers=dict(signed.headers))
    assert put.status == 200
    assert await remote.get(uri) == content
    signed = await remote.sign_download(uri, expires_in=60, base_url="http://unused")
    assert (await asyncio.to_thread(urllib3.request, "GET", signed.url)).data == content
