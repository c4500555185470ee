"""Signed PUT and GET, as a client meets them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import shutil
import tracemalloc
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest

from flyte_unified.core.clock import SECOND, Micros
from flyte_unified.core.errors import NotFound, PermissionDenied, ResourceExhausted
from flyte_unified.core.http import Request, Response
from flyte_unified.storage.api import SignedUrl
from flyte_unified.storage.local import LocalStore
from flyte_unified.storage.routes import data_routes
from flyte_unified.storage.signing import Signer


class _Clock:
    def __init__(self) -> None:
        self.at = 1_700_000_000.0

    def now(self) -> Micros:
        return Micros(round(self.at * SECOND))

    def monotonic(self) -> float:
        return self.at


class _Server:
    """A store and its routes without a socket."""

    def __init__(self, directory: Path, **options: int) -> None:
        self.clock = _Clock()
        self.root = directory / "objects"
        self.store = LocalStore({"objects": self.root}, signer=Signer(b"k" * 32), clock=self.clock, **options)
        self._routes = {route.method: route for route in data_routes(self.store)}

    def uri(self, name: str) -> str:
        return f"{self.store.base('objects')}/{name}"

    async def upload(self, name: str, content: bytes, *, max_length: int = 1 << 30, replace: bool = False) -> SignedUrl:
        digest = hashlib.md5(content).digest()
        return await self.store.sign_upload(
            self.uri(name), md5=digest, max_length=max_length, expires_in=60, base_url="http://localhost", replace=replace
        )

    async def send(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, body: AsyncIterator[bytes] | None = None
    ) -> Response:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        lines = tuple((headers or {}).items())
        request = Request(method, unquote(parts.path), query, lines, body or _pieces(b""))
        return await self._routes[method].handler(request)

    async def put(self, signed: SignedUrl, content: bytes, *, md5: bytes | None = None) -> Response:
        digest = base64.b64encode(md5 if md5 is not None else hashlib.md5(content).digest()).decode()
        headers = {"content-md5": digest, "content-length": str(len(content))}
        return await self.send("PUT", signed.url, headers=headers, body=_pieces(content))

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file())


async def _pieces(content: bytes, size: int = 65_536) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def _body(response: Response) -> bytes:
    if isinstance(response.body, bytes):
        return response.body
    return b"".join([piece async for piece in response.body])


@pytest.fixture
def server(tmp_path: Path) -> _Server:
    return _Server(tmp_path)


async def test_put_then_get(server: _Server) -> None:
    """What is sent to a signed PUT comes back from a signed GET, and lies at the address that the task opens."""
    content = os.urandom(3_000_000)
    response = await server.put(await server.upload("a b/c+d.bin", content), content)
    assert response.status == 200
    assert Path(server.uri("a b/c+d.bin")).read_bytes() == content
    signed = await server.store.sign_download(server.uri("a b/c+d.bin"), expires_in=60, base_url="http://localhost")
    answer = await server.send("GET", signed.url)
    assert answer.status == 200
    assert await _body(answer) == content
    assert dict(answer.headers)["content-length"] == "3000000"


async def test_the_same_content_again_is_fine(server: _Server) -> None:
    """A client that lost the answer repeats its PUT; other content under the same name is refused and changes nothing."""
    assert (await server.put(await server.upload("name", b"one"), b"one")).status == 200
    assert (await server.put(await server.upload("name", b"one"), b"one")).status == 200
    refused = await server.put(await server.upload("name", b"two"), b"two")
    assert refused.status == 409
    assert b"other content" in await _body(refused)
    assert await server.store.get(server.uri("name")) == b"one"


async def test_replace_is_granted_by_the_url(server: _Server) -> None:
    """Where the URL allows it, later content takes the place of earlier."""
    await server.put(await server.upload("report.html", b"one"), b"one")
    assert (await server.put(await server.upload("report.html", b"two", replace=True), b"two")).status == 200
    assert await server.store.get(server.uri("report.html")) == b"two"


@pytest.mark.parametrize(
    ("sent", "claimed"),
    [(b"forged!!", hashlib.md5(b"honest!!").digest()), (b"forged!!", None), (b"honest!!", b"\0" * 16), (b"honest!!", b"")],
    ids=["other content", "other content and header", "other header", "no header"],
)
async def test_wrong_content_is_not_stored(server: _Server, sent: bytes, claimed: bytes | None) -> None:
    """The header must be the MD5 that was signed, and the content must have it; else 400 and nothing remains."""
    signed = await server.upload("name", b"honest!!")
    response = await server.put(signed, sent, md5=claimed)
    assert response.status == 400
    assert b"Content-MD5" in await _body(response)
    assert server.files() == []


async def test_too_long_is_not_stored(server: _Server) -> None:
    """A body beyond the signed length is refused by its header, or where it passes the bound."""
    signed = await server.upload("name", b"12345678", max_length=7)
    assert (await server.put(signed, b"12345678")).status == 413
    headers = {"content-md5": base64.b64encode(hashlib.md5(b"12345678").digest()).decode()}
    assert (await server.send("PUT", signed.url, headers=headers, body=_pieces(b"12345678"))).status == 413
    assert server.files() == []


async def test_a_broken_upload_leaves_nothing(server: _Server) -> None:
    """A client that goes away in the middle leaves no object and no temporary file."""

    async def breaks() -> AsyncIterator[bytes]:
        yield b"x" * 2_000_000
        raise ConnectionResetError

    signed = await server.upload("name", b"whole")
    headers = {"content-md5": base64.b64encode(hashlib.md5(b"whole").digest()).decode()}
    with pytest.raises(ConnectionResetError):
        await server.send("PUT", signed.url, headers=headers, body=breaks())
    assert server.files() == []


async def test_a_cancelled_upload_leaves_nothing(server: _Server) -> None:
    """A handler that is cancelled while it waits for the body leaves no object and no temporary file."""
    waiting = asyncio.Event()

    async def stalls() -> AsyncIterator[bytes]:
        yield b"x" * 2_000_000
        waiting.set()
        await asyncio.Event().wait()

    signed = await server.upload("name", b"whole")
    headers = {"content-md5": base64.b64encode(hashlib.md5(b"whole").digest()).decode()}
    upload = asyncio.create_task(server.send("PUT", signed.url, headers=headers, body=stalls()))
    await waiting.wait()
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert server.files() == []


async def test_expired_and_altered(server: _Server) -> None:
    """403, in words that name the reason; the expired one in the words by which the SDK knows it."""
    signed = await server.upload("name", b"x")
    altered = await server.send("PUT", signed.url.replace("objects/name", "objects/nome"))
    assert altered.status == 403
    assert b"altered" in await _body(altered)
    server.clock.at += 61
    expired = await server.put(signed, b"x")
    assert expired.status == 403
    assert b"request has expired" in (await _body(expired)).lower()
    assert server.files() == []


async def test_a_url_is_for_one_method(server: _Server) -> None:
    """A URL to fetch does not store, and one to store does not fetch; one to fetch also answers HEAD."""
    await server.store.put(server.uri("name"), b"x")
    put = await server.upload("name", b"x")
    get = await server.store.sign_download(server.uri("name"), expires_in=60, base_url="http://localhost")
    assert (await server.send("GET", put.url)).status == 403
    assert (await server.send("HEAD", put.url)).status == 403
    assert (await server.put(get, b"x")).status == 403
    head = await server.send("HEAD", get.url)
    assert (head.status, head.body, dict(head.headers)["content-length"]) == (200, b"", "1")


async def test_user_content_is_fenced(server: _Server) -> None:
    """A report is HTML, but in a sandbox without the API's origin, and no type is guessed."""
    await server.store.put(server.uri("report.html"), b"<script></script>")
    await server.store.put(server.uri("unknown"), b"<script></script>")
    types = {}
    for name in ("report.html", "unknown"):
        signed = await server.store.sign_download(server.uri(name), expires_in=60, base_url="http://localhost")
        answer = await server.send("GET", signed.url)
        headers = dict(answer.headers)
        assert headers["content-security-policy"].split()[0] == "sandbox"
        assert "allow-same-origin" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        types[name] = headers["content-type"]
    assert types == {"report.html": "text/html; charset=utf-8", "unknown": "application/octet-stream"}
    refused = dict((await server.send("GET", signed.url + "0")).headers)
    assert refused["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("asked", "status", "content", "told"),
    [
        ("bytes=0-3", 206, b"0123", "bytes 0-3/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=7-99", 206, b"789", "bytes 7-9/10"),
        ("bytes=-4", 206, b"6789", "bytes 6-9/10"),
        ("bytes=-99", 200, b"0123456789", None),
        ("bytes=0-", 200, b"0123456789", None),
        ("bytes=10-", 416, b"", "bytes */10"),
        ("bytes=-0", 416, b"", "bytes */10"),
        ("bytes=5-4", 200, b"0123456789", None),
        ("bytes=0-1,3-4", 200, b"0123456789", None),
        ("bytes=-", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
    ],
)
async def test_ranges(server: _Server, asked: str, status: int, content: bytes, told: str | None) -> None:
    """One range of bytes is served as RFC 9110 says; what is no such range is the whole object."""
    await server.store.put(server.uri("digits"), b"0123456789")
    signed = await server.store.sign_download(server.uri("digits"), expires_in=60, base_url="http://localhost")
    answer = await server.send("GET", signed.url, headers={"range": asked})
    assert (answer.status, await _body(answer)) == (status, content)
    assert dict(answer.headers).get("content-range") == told


async def test_etags(server: _Server) -> None:
    """What the client has already is not sent again, and a range of an older version is the whole new one."""
    await server.store.put(server.uri("object"), b"first")
    signed = await server.store.sign_download(server.uri("object"), expires_in=60, base_url="http://localhost")
    etag = dict((await server.send("GET", signed.url)).headers)["etag"]
    assert (await server.send("GET", signed.url, headers={"if-none-match": f'"x", W/{etag}'})).status == 304
    part = {"range": "bytes=0-1", "if-range": etag}
    assert (await server.send("GET", signed.url, headers=part)).status == 206
    await server.store.put(server.uri("object"), b"second")
    assert (await server.send("GET", signed.url, headers={"if-none-match": etag})).status == 200
    assert await _body(await server.send("GET", signed.url, headers=part)) == b"second"


async def test_what_is_gone_is_404(server: _Server) -> None:
    """A URL outlives its object; then it says so."""
    await server.store.put(server.uri("object"), b"x")
    signed = await server.store.sign_download(server.uri("object"), expires_in=60, base_url="http://localhost")
    await server.store.delete(server.uri("object"))
    assert (await server.send("GET", signed.url)).status == 404


async def test_links_do_not_lead_out(server: _Server, tmp_path: Path) -> None:
    """A symbolic link that a task leaves below the root opens nothing outside of it, at signing and at serving."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    (server.root / "link").symlink_to(secret)
    (server.root / "up").symlink_to(tmp_path)
    for name in ("link", "up/secret"):
        assert not server.store.owns(server.uri(name))
        with pytest.raises(PermissionDenied):
            await server.store.get(server.uri(name))
        with pytest.raises(PermissionDenied):
            await server.upload(name, b"x")
    await server.store.put(server.uri("object"), b"x")
    signed = await server.store.sign_download(server.uri("object"), expires_in=60, base_url="http://localhost")
    await server.store.delete(server.uri("object"))
    (server.root / "object").symlink_to(secret)
    assert (await server.send("GET", signed.url)).status == 403


async def test_links_inside_are_followed(server: _Server) -> None:
    """A link from one place below the root to another is an ordinary object."""
    await server.store.put(server.uri("object"), b"x")
    (server.root / "alias").symlink_to(server.root / "object")
    assert await server.store.get(server.uri("alias")) == b"x"


async def test_what_is_no_file_is_not_found(server: _Server) -> None:
    """A pipe, which would block its reader for good, and a directory are no objects."""
    os.mkfifo(server.root / "pipe")
    (server.root / "directory").mkdir()
    for name in ("pipe", "directory"):
        with pytest.raises(NotFound):
            await server.store.get(server.uri(name))
        assert await server.store.head(server.uri(name)) is None


async def test_a_file_in_the_way(server: _Server) -> None:
    """A name below something that is a file cannot be made; the answer is a conflict, not a fault."""
    await server.put(await server.upload("a", b"x"), b"x")
    assert (await server.put(await server.upload("a/b", b"x"), b"x")).status == 409
    (server.root / "directory").mkdir()
    assert (await server.put(await server.upload("directory", b"x"), b"x")).status == 409
    assert server.files() == ["a"]


async def test_a_full_disk_refuses_clearly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With less room than the setting asks for, the refusal names the directory, what is left, and the setting."""
    server = _Server(tmp_path, min_free_bytes=1 << 30)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 29))
    with pytest.raises(ResourceExhausted, match=r"512 MiB left.*storage\.min_free_bytes \(1024 MiB\)"):
        await server.store.check_room()
    response = await server.put(await server.upload("name", b"x"), b"x")
    assert response.status == 507
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 31))
    assert (await server.put(await server.upload("name", b"x"), b"x")).status == 200


async def test_a_large_upload_stays_out_of_memory(server: _Server) -> None:
    """Of 200 MB that pass through, less than 8 MB are held at any time."""
    piece = os.urandom(1 << 16)
    count = 3200
    digest = hashlib.md5()
    for _ in range(count):
        digest.update(piece)

    async def body() -> AsyncIterator[bytes]:
        for _ in range(count):
            yield piece

    signed = await server.store.sign_upload(
        server.uri("large"), md5=digest.digest(), max_length=1 << 30, expires_in=60, base_url="http://localhost"
    )
    headers = {"content-md5": base64.b64encode(digest.digest()).decode()}
    tracemalloc.start()
    try:
        assert (await server.send("PUT", signed.url, headers=headers, body=body())).status == 200
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


async def test_files_belong_to_their_owner(server: _Server) -> None:
    """Directories are 0700 and files 0600: nobody else on the machine reads a task's inputs."""
    await server.put(await server.upload("a/b", b"x"), b"x")
    await server.store.put(server.uri("c"), b"x")
    assert server.root.stat().st_mode & 0o777 == 0o700
    assert {(server.root / name).stat().st_mode & 0o777 for name in ("a/b", "c")} == {0o600}


async def test_a_start_removes_what_a_crash_left(server: _Server) -> None:
    """A temporary file a day old is removed; a younger one may have a writer, in another server of the same bundles."""
    await server.store.put(server.uri("kept"), b"x")
    incoming = server.root / ".incoming"
    for name, age in (("old", 25 * 3600), ("young", 60)):
        (incoming / name).write_bytes(b"")
        at = (incoming / name).stat().st_mtime - age
        os.utime(incoming / name, (at, at))
    await server.store.start()
    assert server.files() == [".incoming/young", "kept"]
