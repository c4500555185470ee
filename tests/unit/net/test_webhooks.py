"""Webhooks against a server that answers what it likes: what is worth another try, and what nobody is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from email.utils import formatdate

import pytest

from flyte_unified.core.errors import FailedPrecondition, Unavailable
from flyte_unified.net.webhooks import Call, Later, Webhooks


class Answering:
    """Answers each request with the status that its path names; ``/silence`` with none."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.address = ""
        self.retry_after = ""
        self.left = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                headers = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(headers.partition("content-length: ")[2].partition("\r\n")[0] or 0)
                body = await reader.readexactly(length)
                self.asked.append(line.decode().rsplit(" ", 1)[0] + " " + body.decode())
                path = line.split(b" ")[1].decode()
                if path == "/silence":
                    return
                if path == "/patience":
                    await reader.read()  # until its client has had enough
                    return
                if path == "/flood":
                    writer.write(b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n")
                    with suppress(ConnectionError):
                        while True:
                            writer.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")
                            await writer.drain()
                    self.left.set()
                    return
                later = f"retry-after: {self.retry_after}\r\n" if self.retry_after else ""
                writer.write(f"HTTP/1.1 {path[1:]} X\r\nlocation: /200\r\n{later}content-length: 0\r\n\r\n".encode())
        finally:
            writer.close()


@pytest.fixture
async def server() -> AsyncIterator[Answering]:
    answering = Answering()
    async with await asyncio.start_server(answering.serve, "127.0.0.1", 0) as listening:
        answering.address = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        yield answering


@pytest.fixture
async def webhooks() -> AsyncIterator[Webhooks]:
    webhooks = Webhooks(timeout=0.2)
    yield webhooks
    await webhooks.close()


def call(url: str, method: str = "POST") -> Call:
    return Call(method=method, url=url, headers={"X": "secret"}, body=b"{}" if method == "POST" else b"")


async def test_a_yes_ends_it(server: Answering, webhooks: Webhooks) -> None:
    """Any of 2xx, by any method."""
    await webhooks.send(call(f"{server.address}/204"))
    await webhooks.send(call(f"{server.address}/200", "GET"))
    assert server.asked == ["POST /204 {}", "GET /200 "]


@pytest.mark.parametrize("path", ["500", "503", "408", "429", "silence", "patience"])
async def test_what_another_try_may_mend(server: Answering, webhooks: Webhooks, path: str) -> None:
    """Errors of the server, no answer, and no server."""
    with pytest.raises(Unavailable, match=r"^127\.0\.0\.1 "):
        await webhooks.send(call(f"{server.address}/{path}"))


@pytest.mark.parametrize(
    ("retry_after", "least", "most"),
    [
        ("120", 120, 120),
        ("0", 0, 0),
        ("9" * 5000, 3600, 3600),
        ("-1", 0, 0),
        ("nan", 0, 0),
        ("soon", 0, 0),
        (formatdate(4_000_000_000, usegmt=True), 3600, 3600),
        (formatdate(1_000_000_000, usegmt=True), 0, 0),
        (600.0, 400, 600),
        ("Sun, 99 Nov 2026 08:49:37 GMT", 0, 0),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_a_receiver_may_say_when_to_try_again(
    server: Answering, webhooks: Webhooks, status: int, retry_after: str | float, least: float, most: float
) -> None:
    """In seconds or as a time (RFC 9110, 10.2.3); an hour is the most, and what is neither says nothing."""
    if isinstance(retry_after, float):  # from now on, which is long after the tests were collected
        retry_after = formatdate(time.time() + retry_after, usegmt=True)
    server.retry_after = retry_after
    with pytest.raises(Later) as raised:
        await webhooks.send(call(f"{server.address}/{status}"))
    assert least <= raised.value.seconds <= most


async def test_nothing_of_an_answer_is_read_but_its_status(server: Answering, webhooks: Webhooks) -> None:
    """However long it is."""
    await webhooks.send(call(f"{server.address}/flood"))
    await server.left.wait()


@pytest.mark.parametrize("path", ["302", "307", "400", "401", "404", "410"])
async def test_what_another_try_would_not_mend(server: Answering, webhooks: Webhooks, path: str) -> None:
    """A redirect is not followed: who may be called is for the server's operator to say."""
    with pytest.raises(FailedPrecondition, match=f"answered {path}"):
        await webhooks.send(call(f"{server.address}/{path}"))
    assert server.asked == [f"POST /{path} {{}}"]


@pytest.mark.parametrize("url", ["", "nowhere", "file:///etc/passwd", "http://", "http://h:port/", "http://[::1/"])
async def test_what_is_no_address(webhooks: Webhooks, url: str) -> None:
    """Refused without a try."""
    with pytest.raises(FailedPrecondition, match="address"):
        await webhooks.send(call(url))


async def test_an_error_names_the_host_alone(webhooks: Webhooks) -> None:
    """Of addresses such as Slack's, the path is the secret."""
    with pytest.raises(Unavailable) as raised:
        await webhooks.send(call("http://user:pass@127.0.0.1:1/services/T0/SECRET?token=SECRET"))
    assert raised.value.message == "127.0.0.1 could not be called: Connection refused"
    assert "SECRET" not in repr(call("http://h/SECRET"))


async def test_only_named_hosts_are_called(server: Answering) -> None:
    """Themselves, or all below a domain."""
    for hosts, allowed in (
        (("127.0.0.1",), True),
        (("*.0.0.1",), True),
        (("*.127.0.0.1",), False),
        (("example.com", "*.example.com"), False),
    ):
        webhooks = Webhooks(timeout=1, hosts=hosts)
        try:
            if allowed:
                await webhooks.send(call(f"{server.address}/200"))
            else:
                with pytest.raises(FailedPrecondition, match=r"notifications\.hosts does not allow 127"):
                    await webhooks.send(call(f"{server.address}/200"))
        finally:
            await webhooks.close()
    assert len(server.asked) == 2
