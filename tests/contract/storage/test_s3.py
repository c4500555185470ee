"""What S3 adds to the contract: who may, under which address, and what happens when the store is ill."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import urllib3

from flyte_unified.core.clock import SECOND, Clock, Micros, SystemClock
from flyte_unified.core.errors import FailedPrecondition, PermissionDenied, ResourceExhausted, Unavailable
from flyte_unified.storage import s3
from flyte_unified.storage.s3 import Access, S3Store
from tests import s3_servers
from tests.s3_servers import BUCKET, KEY, REGION, SECRET, Server

ROOT = f"s3://{BUCKET}/root"
NAMES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY", "AWS_SECRET_KEY", "AWS_SESSION_TOKEN")


@pytest.fixture
def rclone(servers: dict[str, Server]) -> Server:
    """The server that checks signatures and digests."""
    if "rclone" not in servers:
        pytest.skip("there is no rclone")
    return servers["rclone"]


@asynccontextmanager
async def opened(access: Access, *, clock: Clock | None = None, root: str = ROOT) -> AsyncIterator[S3Store]:
    store = S3Store({"objects": root}, access=access, clock=clock or SystemClock())
    try:
        yield store
    finally:
        await store.stop()


def keys(endpoint: str) -> Access:
    return Access(endpoint=endpoint, region=REGION, access_key=KEY, secret_key=SECRET)


async def sent(method: str, url: str, body: bytes = b"", headers: Any = None) -> urllib3.BaseHTTPResponse:
    """An HTTP client that knows nothing of S3."""
    return await asyncio.to_thread(urllib3.request, method, url, body=body, headers=headers, retries=False)


# Signed URLs


async def test_a_signed_upload_takes_the_agreed_content_alone(rclone: Server) -> None:
    """With its headers a URL stores the content it was made for, again and again; nothing else, and not without them."""
    content, other = b"agreed", b"others"
    uri = f"{ROOT}/signed/ü b+c.bin"
    async with opened(keys(rclone.endpoint)) as store:
        signed = await store.sign_upload(
            uri, md5=hashlib.md5(content).digest(), max_length=6, expires_in=60, base_url="http://unused"
        )
        assert (await sent("PUT", signed.url, other, signed.headers)).status == 400
        md5 = {"Content-MD5": base64.b64encode(hashlib.md5(other).digest()).decode()}
        assert (await sent("PUT", signed.url, other, md5)).status == 403
        assert (await sent("PUT", signed.url, content)).status == 403
        assert await store.head(uri) is None
        for _ in range(2):
            assert (await sent("PUT", signed.url, content, signed.headers)).status == 200
        assert await store.get(uri) == content


async def test_a_signed_download_is_of_one_object(rclone: Server) -> None:
    """A URL fetches its object, with the type that its name tells; with another path its signature is wrong."""
    async with opened(keys(rclone.endpoint)) as store:
        await store.put(f"{ROOT}/report.html", b"<h1>")
        await store.put(f"{ROOT}/other.html", b"no")
        signed = await store.sign_download(f"{ROOT}/report.html", expires_in=60, base_url="http://unused")
        answer = await sent("GET", signed.url)
        assert (answer.status, answer.data) == (200, b"<h1>")
        assert "response-content-type=text%2Fhtml%3B%20charset%3Dutf-8" in signed.url
        assert (await sent("GET", signed.url.replace("report", "other"))).status == 403
        assert (await sent("PUT", signed.url, b"x")).status == 403


async def test_a_signed_url_ends(rclone: Server) -> None:
    """After its time a URL is refused, and the time that is told is the one that is signed."""

    class Yesterday(SystemClock):
        def now(self) -> Micros:
            return Micros(super().now() - 24 * 3600 * SECOND)

    async with opened(keys(rclone.endpoint), clock=Yesterday()) as store:
        await store.put(f"{ROOT}/old", b"old")
        signed = await store.sign_download(f"{ROOT}/old", expires_in=60, base_url="http://unused")
        assert (await sent("GET", signed.url)).status >= 400
        assert signed.expires_at == Yesterday().now() // SECOND * SECOND + 60 * SECOND


async def test_clients_get_an_address_of_their_own(rclone: Server) -> None:
    """URLs are signed for the public endpoint, while the server itself keeps to the other one."""
    public = rclone.endpoint.replace("127.0.0.1", "localhost")
    async with opened(replace(keys(rclone.endpoint), public_endpoint=public)) as store:
        await store.put(f"{ROOT}/public", b"here")
        signed = await store.sign_download(f"{ROOT}/public", expires_in=60, base_url="http://unused")
        assert signed.url.startswith(f"{public}/{BUCKET}/root/public?")
        assert (await sent("GET", signed.url)).data == b"here"


async def test_a_bucket_may_be_a_host(rclone: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In virtual-host style the bucket is part of the name, for the server's own calls and for signed URLs."""
    resolve = socket.getaddrinfo

    def resolved(host: Any, *rest: Any, **more: Any) -> Any:
        return resolve("127.0.0.1" if str(host).endswith("s3.example") else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    with s3_servers.rclone(tmp_path / "buckets", "--force-path-style=false") as server:
        endpoint = server.endpoint.replace("127.0.0.1", "s3.example")
        async with opened(replace(keys(endpoint), virtual_host=True)) as store:
            await store.start()
            await store.put(f"{ROOT}/a", b"here")
            signed = await store.sign_download(f"{ROOT}/a", expires_in=60, base_url="http://unused")
            assert signed.url.startswith(f"{endpoint.replace('s3.example', f'{BUCKET}.s3.example')}/root/a?")
            assert (await sent("GET", signed.url)).data == b"here"


async def test_aws_needs_no_endpoint() -> None:
    """Without an endpoint the address is AWS's own of the region, bucket first."""
    async with opened(replace(keys(""), region="eu-central-1")) as store:
        signed = await store.sign_upload(f"{ROOT}/x", md5=b"0" * 16, max_length=1, expires_in=10**7, base_url="http://unused")
        assert signed.url.startswith(f"https://{BUCKET}.s3.eu-central-1.amazonaws.com/root/x?")
        assert "X-Amz-Expires=604800&" in signed.url


# Who may


async def test_keys_of_the_environment(rclone: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without keys in the settings those of AWS's variables are used."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    async with opened(Access(endpoint=rclone.endpoint, region=REGION)) as store:
        await store.start()
        assert await store.put(f"{ROOT}/from-environment", b"")


async def test_keys_of_a_role(rclone: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The temporary keys that a machine's role gives are used with their token, in calls and in URLs."""
    role = {"AccessKeyId": KEY, "SecretAccessKey": SECRET, "Token": "a-token", "Expiration": "2099-01-01T00:00:00Z"}
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    async with Scripted.serving(answer(200, json.dumps(role).encode())) as machine:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", machine.endpoint)
        async with opened(Access(endpoint=rclone.endpoint, region=REGION)) as store:
            await store.start()
            await store.put(f"{ROOT}/from-role", b"here")
            signed = await store.sign_download(f"{ROOT}/from-role", expires_in=60, base_url="http://unused")
            assert "X-Amz-Security-Token=a-token" in signed.url
            assert (await sent("GET", signed.url)).data == b"here"
    assert len(machine.requests) == 1


async def test_no_keys_anywhere(rclone: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A server without credentials does not start, and says where they may come from."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    async with Scripted.serving(answer(403, b"no"), answer(403, b"no")) as machine:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", machine.endpoint)
        async with opened(Access(endpoint=rclone.endpoint, region=REGION)) as store:
            with pytest.raises(Unavailable, match=r"set storage\.s3_access_key"):
                await store.start()


async def test_refused_keys_are_told_at_the_start(rclone: Server) -> None:
    """A wrong secret is the store's refusal, told with the setting to look at."""
    async with opened(replace(keys(rclone.endpoint), secret_key="wrong")) as store:
        with pytest.raises(PermissionDenied, match=r"storage\.s3_access_key"):
            await store.start()
        with pytest.raises(PermissionDenied, match="SignatureDoesNotMatch"):
            await store.get(f"{ROOT}/x")


async def test_an_unknown_bucket_is_told_at_the_start(rclone: Server) -> None:
    """A bucket is not made by the way; who forgot it is told."""
    async with opened(keys(rclone.endpoint), root="s3://nowhere/x") as store:
        with pytest.raises(FailedPrecondition, match="no bucket s3://nowhere"):
            await store.start()


def test_an_endpoint_that_is_none() -> None:
    """An endpoint with a path cannot be signed for."""
    with pytest.raises(FailedPrecondition, match="cannot be addressed"):
        S3Store({"objects": ROOT}, access=keys("http://localhost:1/path"), clock=SystemClock())


# An ill store


def answer(status: int, body: bytes = b"", *, length: int | None = None, **headers: str) -> bytes:
    told = {"Content-Length": str(len(body) if length is None else length), "Connection": "close", **headers}
    lines = [f"HTTP/1.1 {status} Said", *(f"{name}: {value}" for name, value in told.items()), "", ""]
    return "\r\n".join(lines).encode() + body


@dataclass
class Scripted:
    """A server that answers what it was told to, one answer a request, the last one for ever; empty: not until ``go``."""

    answers: list[bytes]
    requests: list[str] = field(default_factory=list)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    endpoint: str = ""

    @classmethod
    @asynccontextmanager
    async def serving(cls, *answers: bytes) -> AsyncIterator[Scripted]:
        scripted = cls(list(answers))
        server = await asyncio.start_server(scripted._answer, "127.0.0.1", 0)
        scripted.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            yield scripted

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(
            (line.partition(": ")[2] for line in head.split("\r\n") if line.lower().startswith("content-length")), "0"
        )
        await reader.readexactly(int(length))
        self.requests.append(head)
        said = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if not said:
            await self.go.wait()
        writer.write(said or answer(404))
        await writer.drain()
        writer.close()


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits between two tries."""
    monkeypatch.setattr(s3, "_RETRIES", s3._RETRIES.new(backoff_factor=0))
    monkeypatch.setattr(s3, "_CREDENTIALS_RETRIES", s3._CREDENTIALS_RETRIES.new(backoff_factor=0))


SLOW = answer(503, b"<Error><Code>SlowDown</Code><Message>Not so fast</Message></Error>")


async def test_a_busy_store_is_asked_again() -> None:
    """Two refusals for a moment are not seen by the caller."""
    async with Scripted.serving(SLOW, SLOW, answer(200, b"here")) as server, opened(keys(server.endpoint)) as store:
        assert await store.get(f"{ROOT}/x") == b"here"
        assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("said", "told"),
    [(SLOW, "SlowDown: Not so fast"), (answer(502, b"<html>proxy"), "status 502"), (b"nonsense\r\n\r\n", "does not answer")],
)
async def test_a_store_that_stays_ill_is_unavailable(said: bytes, told: str) -> None:
    """After a few tries the caller is told to come again, with what the store said."""
    async with Scripted.serving(said) as server, opened(keys(server.endpoint)) as store:
        with pytest.raises(Unavailable, match=told):
            await store.get(f"{ROOT}/x")
        assert len(server.requests) == 5


async def test_a_store_that_is_away_is_unavailable() -> None:
    """Nobody listens: the endpoint is named."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        async with opened(keys(endpoint)) as store:
            with pytest.raises(Unavailable, match=endpoint):
                await store.start()


async def test_a_torn_answer_is_no_object() -> None:
    """A body that ends early is an error, not a shorter object."""
    torn = answer(200, b"half", length=8)
    async with Scripted.serving(torn) as server, opened(keys(server.endpoint)) as store:
        with pytest.raises(Unavailable):
            await store.get(f"{ROOT}/x")
        with pytest.raises(Unavailable):
            [piece async for piece in store.read(f"{ROOT}/x")]


async def test_a_full_store_says_so() -> None:
    """A quota is no failure to try again."""
    full = answer(507, b"<Error><Code>StorageFull</Code></Error>")
    async with Scripted.serving(full) as server, opened(keys(server.endpoint)) as store:
        with pytest.raises(ResourceExhausted, match="StorageFull"):
            await store.put(f"{ROOT}/x", b"x")


async def test_another_writer_was_first() -> None:
    """The condition decides, not the look before it; a write under way is waited for."""
    answers = answer(404), answer(409), answer(412)
    async with Scripted.serving(*answers) as server, opened(keys(server.endpoint)) as store:
        assert not await store.put(f"{ROOT}/x", b"x", if_absent=True)
        assert [request.partition(" ")[0] for request in server.requests] == ["HEAD", "PUT", "PUT"]
        assert "if-none-match: *" in server.requests[-1].lower()


async def test_a_store_without_conditions() -> None:
    """Where a conditional write is not known the look before it has to do."""
    async with Scripted.serving(answer(404), answer(501), answer(200)) as server, opened(keys(server.endpoint)) as store:
        assert await store.put(f"{ROOT}/x", b"x", if_absent=True)
        assert "if-none-match" not in server.requests[-1].lower()


async def test_an_etag_of_an_encrypted_object_is_no_md5() -> None:
    """With KMS the ETag looks like an MD5 and is none: the content is read."""
    headers = {"ETag": f'"{"0" * 32}"', "x-amz-server-side-encryption": "aws:kms"}
    async with Scripted.serving(answer(200, **headers), answer(200, b"here")) as server, opened(keys(server.endpoint)) as store:
        assert await store.md5(f"{ROOT}/x") == hashlib.md5(b"here").digest()


async def test_a_slow_store_keeps_nobody_else_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls wait in threads, a bounded number of them; one that is given up is given up at once."""
    monkeypatch.setattr(s3, "_WAITING", 1)
    async with Scripted.serving(b"") as server, opened(keys(server.endpoint)) as store:
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(store.head(f"{ROOT}/x"))
            await asyncio.sleep(0)
            with pytest.raises(ResourceExhausted, match="1 calls wait"):
                await store.head(f"{ROOT}/x")
            waiting.cancel()
        server.go.set()


async def test_a_reader_may_leave_early(rclone: Server) -> None:
    """Who has read enough holds neither a thread nor a connection."""
    async with opened(keys(rclone.endpoint)) as store:
        await store.put(f"{ROOT}/large", bytes(3 << 20))
        pieces = store.read(f"{ROOT}/large")
        assert len(await anext(pieces)) == s3.PIECE
        await pieces.aclose()
        assert await store.head(f"{ROOT}/large") is not None


def test_secrets_are_not_shown() -> None:
    """How a store is reached may be logged."""
    assert SECRET not in repr(keys("http://localhost"))
