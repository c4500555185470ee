"""Signed URLs of stores that serve them themselves: any HTTP client can use one."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest
import urllib3

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.storage.api import DataStore, SignedUrl, join

CONTENT = bytes(range(256)) * 300


async def sent(method: str, signed: SignedUrl, body: bytes = b"") -> urllib3.BaseHTTPResponse:
    options: Any = {"body": body, "headers": dict(signed.headers), "retries": False}
    return await asyncio.to_thread(urllib3.request, method, signed.url, **options)


async def upload(store: DataStore, uri: str) -> SignedUrl:
    """A URL for ``CONTENT``."""
    md5 = hashlib.md5(CONTENT).digest()
    return await store.sign_upload(uri, md5=md5, max_length=len(CONTENT), expires_in=60, base_url="http://unused")


@pytest.mark.parametrize("name", ["plain-1.0_x+y.bin", "with space/données+%2e?a=b#c.bin"])
async def test_what_was_put_by_url_is_fetched_by_url(remote: DataStore, name: str) -> None:
    """One URL stores, another one fetches, and the store itself has the same bytes; a name may be refused, never mistaken."""
    uri = join(remote.base("objects"), name)
    try:
        signed = await upload(remote, uri)
    except InvalidArgument as error:
        assert uri.startswith("abfs://")
        assert "no URL can be signed" in error.message
        assert not name.startswith("plain")
        return
    assert (await sent("PUT", signed, CONTENT)).status in (200, 201)
    assert await remote.get(uri) == CONTENT
    found = await sent("GET", await remote.sign_download(uri, expires_in=60, base_url="http://unused"))
    assert found.data == CONTENT


async def test_another_body_than_agreed_is_refused(remote: DataStore, request: pytest.FixtureRequest) -> None:
    """With the headers of its URL, no other content is stored."""
    if "moto" in request.node.callspec.params["remote"]:
        pytest.skip("moto takes any body")
    uri = join(remote.base("objects"), "agreed")
    assert (await sent("PUT", await upload(remote, uri), CONTENT[::-1])).status == 400
    assert await remote.head(uri) is None


async def test_a_url_is_for_one_thing(remote: DataStore, request: pytest.FixtureRequest) -> None:
    """One that fetches an object neither fetches another nor stores."""
    if "moto" in request.node.callspec.params["remote"]:
        pytest.skip("moto takes any signature")
    uri = join(remote.base("objects"), "one")
    await remote.put(uri, b"1")
    await remote.put(f"{uri}-2", b"2")
    signed = await remote.sign_download(uri, expires_in=60, base_url="http://unused")
    other = SignedUrl(signed.url.replace("/one?", "/one-2?"), signed.expires_at)
    assert [(await sent("GET", signed)).status, (await sent("GET", other)).status] == [200, 403]
    assert (await sent("PUT", signed, b"3")).status in (400, 403)
    assert await remote.get(uri) == b"1"
