"""What goes through the relay byte by byte: clients and programs that no library speaks for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import grpc
import h2.events
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from hyperframe.frame import GoAwayFrame

from tests.edge.service import serving
from tests.edge.sites import Program, Programs

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

HOST = b"Host: app.localhost:1\r\n"
TOLD = b"x-forwarded-for: 127.0.0.1\r\nx-forwarded-host: app.localhost:1\r\nx-forwarded-proto: http\r\nconnection: close\r\n"
EOL = "\r\n"
CHUNKED = "Transfer-Encoding: chunked"
ABC = "3\r\nabc\r\n0\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, *pieces: bytes) -> tuple[bytes, list[bytes], bytes]:
        """Status line, headers but those of the edge's own making, and the body until the connection ends."""
        self.writer.writelines(pieces)
        first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[:-2]
        own = (b"Date:", b"Connection: close")
        return first, [line for line in lines if not line.startswith(own)], await self.reader.read()


@asynccontextmanager
async def between(program: Serve, *, http2: bool = False, patience: float = 20.0) -> AsyncIterator[Client]:
    """A client, the edge, and ``program``, whose connection is closed when it returns."""
    ended: set[asyncio.Task[None]] = set()

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def run() -> None:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await program(reader, writer)
            writer.close()

        ended.add(asyncio.create_task(run()))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    site = Program(server.sockets[0].getsockname()[1], http2=http2, patience=patience)
    async with server, serving(sites=Programs(app=site)) as service, asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        try:
            yield Client(reader, writer)
        finally:
            writer.transport.abort()
            await asyncio.gather(*ended)


def answering(answer: bytes, seen: bytearray | None = None, *, until: bytes = b"\r\n\r\n") -> Serve:
    async def program(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(until)
        if seen is not None:
            seen.extend(request)
        writer.write(answer)

    return program


@pytest.mark.parametrize(
    ("line", "headers", "body", "line_there", "headers_there", "body_there"),
    [
        ("GET /x?", "", "", "GET /x?", "", ""),
        ("GET //a/../%2F%2e;b?c?d#e", "", "", "GET //a/../%2F%2e;b?c?d#e", "", ""),
        ("GET http://app.localhost:1?x", "", "", "GET /?x", "", ""),
        ("OPTIONS *", "", "", "OPTIONS *", "", ""),
        ("GET /", "X-A: 1\r\nx-b: 2\r\nX-A: \xe4\xc3\xa4", "", "GET /", "x-a: 1\r\nx-b: 2\r\nx-a: \xe4\xc3\xa4", ""),
        ("GET /", "Cookie: a=1; b=\"2\"\r\nConnection: x-c\r\nX-C: 1\r\nTE: gzip", "", "GET /", 'cookie: a=1; b="2"', ""),
        ("PUT /", "Content-Length: 3", "abc", "PUT /", "content-length: 3", "abc"),
        ("POST /", "Content-Length: 0", "", "POST /", "content-length: 0", ""),
        ("DELETE /", "", "", "DELETE /", "", ""),
        ("PUT /", "Transfer-Encoding: chunked", "3;x=y\r\nabc\r\n0\r\nX-T: 1\r\n\r\n", "PUT /", "chunked", ABC),
        ("PUT /", "Transfer-Encoding: Chunked", "0\r\n\r\n", "PUT /", "chunked", "0\r\n\r\n"),
    ],
)  # fmt: skip
async def test_a_request_is_told_as_it_is(
    line: str, headers: str, body: str, line_there: str, headers_there: str, body_there: str
) -> None:
    """Its target, its headers in their order, the way its body is sent; nothing is added but what proxies say."""
    seen = bytearray()
    chunked = b"transfer-encoding: chunked\r\n" if headers_there == "chunked" else b""
    before = f"{headers_there}\r\n".encode("latin-1") if headers_there and not chunked else b""
    there = f"{line_there} HTTP/1.1\r\nhost: app.localhost:1\r\n".encode() + before + TOLD + chunked + b"\r\n"
    there += body_there.encode()
    async with between(answering(OK, seen, until=there[-7:])) as client:
        given = f"{headers}\r\n".encode("latin-1") if headers else b""
        first, _, said = await client.ask(
            f"{line} HTTP/1.1\r\n".encode(), HOST, given, b"Connection: close\r\n\r\n", body.encode()
        )
    assert (first, said) == (b"HTTP/1.1 200 OK", b"ok")
    assert bytes(seen) == there


async def test_what_proxies_say_is_ours_to_say() -> None:
    """Who is asking is added to what the client says; a header that CGI's rules would take for one of ours stays behind."""
    seen = bytearray()
    async with between(answering(OK, seen)) as client:
        await client.ask(
            b"GET / HTTP/1.1\r\n"
            + HOST
            + b"X-Forwarded-Host: evil\r\nX_Forwarded_Proto: https\r\nX-Forwarded-For: 10.0.0.1\r\n",
            b"X-Forwarded-Proto: ftp\r\nX-Forwarded-For: 10.0.0.2\r\nConnection: close, x-forwarded-host\r\n\r\n",
        )
    assert bytes(seen).endswith(b"localhost:1\r\n" + TOLD.replace(b"127.", b"10.0.0.1, 10.0.0.2, 127.") + b"\r\n")


@pytest.mark.parametrize(
    ("method", "answer", "head", "body"),
    [
        ("GET", "200 OK|Content-Length: 3||abcHTTP/1.1 200 OK||", "Content-Length: 3", "abc"),
        ("GET", "200 OK|X-A: 1|x-b: 2|X-A: \xc3\xa4||abc", f"X-A: 1|x-b: 2|X-A: \xc3\xa4|{CHUNKED}", ABC),
        ("GET", f"200 OK|{CHUNKED}|Content-Length: 9||{ABC}", CHUNKED, ABC),
        ("HEAD", "200 OK|Content-Length: 9||", "Content-Length: 9", ""),
        ("HEAD", f"200 OK|{CHUNKED}||", "", ""),
        ("GET", "204 No Content|X-A: 1||abc", "X-A: 1", ""),
        ("GET", '304 Not Modified|ETag: "a"||', 'ETag: "a"', ""),
        ("GET", f"103 Early Hints|Link: <a>||HTTP/1.1 302 Found|Location: /?|{CHUNKED}||{ABC}", f"Location: /?|{CHUNKED}", ABC),
        ("GET", "200 OK|Content-Encoding: gzip|Content-Length: 3||abc", "Content-Encoding: gzip|Content-Length: 3", "abc"),
    ],
)  # fmt: skip
async def test_an_answer_is_told_as_it_is(method: str, answer: str, head: str, body: str) -> None:
    """Its headers, none of which is made up, and its body's end by length, by chunks or by the connection's."""
    async with between(answering(f"HTTP/1.1 {answer.replace('|', EOL)}".encode("latin-1"))) as client:
        _, lines, said = await client.ask(f"{method} / HTTP/1.1\r\n".encode(), HOST, b"Connection: close\r\n\r\n")
    assert [line.decode("latin-1") for line in lines] == [line for line in head.split("|") if line]
    assert said == body.encode()


@pytest.mark.parametrize(
    "answer", ["200 OK\r\nContent-Length: 9\r\n\r\nhalf", "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"]
)
async def test_half_an_answer_is_no_answer(answer: str) -> None:
    """What the program breaks off does not end well for the client, over either HTTP."""
    async with between(answering(f"HTTP/1.1 {answer}".encode())) as client:
        client.writer.write(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        said = b""
        with suppress(ConnectionError):
            while piece := await client.reader.read(1 << 16):
                said += piece
        assert not said.endswith(b"0\r\n\r\n")
        assert said.count(b"half") < 2
    async with between(answering(f"HTTP/1.1 {answer}".encode())) as client:
        assert isinstance((await _http2(client))[-1], h2.events.StreamReset)


@pytest.mark.parametrize(
    ("version", "headers"),
    [
        ("1.1", "Transfer-Encoding: gzip, chunked"),
        ("1.1", "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked"),
        ("1.0", "Transfer-Encoding: chunked"),
        ("1.1", "Transfer-Encoding: chunked\r\nContent-Length: 5"),
        ("1.1", "Content-Length: 5\r\nContent-Length: 6"),
        ("1.1", "Transfer-Encoding : chunked"),
        ("1.1", "X: a\rTransfer-Encoding: chunked"),
        ("1.1", "X: a\r\n b"),
        ("1.1", "X: a\0b"),
    ],
)
async def test_a_request_with_two_meanings_is_refused(version: str, headers: str) -> None:
    """What one reader may take for one request, and another for two, reaches no program."""
    seen = bytearray()
    async with between(answering(OK, seen)) as client:
        head = f"POST / HTTP/{version}\r\n{HOST.decode()}{headers}\r\n\r\n".encode()
        first, _, _ = await client.ask(head, b"0\r\n\r\n")
    assert b" 400 " in first
    assert not seen


async def test_a_program_may_answer_before_it_has_heard_all() -> None:
    """A conversation in one request; the time that it has to begin is no bound on what follows."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(4):
            writer.write(await reader.readexactly(6))
        writer.write(await reader.readexactly(5))

    async with between(echo) as client:
        client.writer.write(b"POST / HTTP/1.1\r\n" + HOST + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
        await client.reader.readuntil(b"\r\n\r\n")
        for piece in (b"1\r\na\r\n", b"1\r\nb\r\n", b"1\r\nc\r\n", b"1\r\nd\r\n"):
            client.writer.write(piece)
            assert await client.reader.readexactly(6) == piece
        client.writer.write(b"0\r\n\r\n")
        assert await client.reader.read() == b"0\r\n\r\n"


@pytest.mark.parametrize("loses_the_thread", [False, True])
async def test_half_a_question_is_no_question(loses_the_thread: bool) -> None:
    """Where the client leaves in mid-body, or sends no HTTP there, the program sees no end of it, and is not waited for."""
    told: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    begun = asyncio.Event()

    async def program(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"abc\r\n")
        begun.set()
        rest = b""
        with suppress(ConnectionError):
            rest = await reader.read()
        told.set_result(rest)

    async with between(program) as client:
        client.writer.write(b"PUT / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await begun.wait()
        if loses_the_thread:
            first, _, said = await client.ask(b"no chunk\r\n")
            assert (b" 400 " in first, said.count(b"HTTP/1.")) == (True, 0)
        else:
            client.writer.close()
        assert await told == b""


async def test_an_upload_waits_for_the_program() -> None:
    """What the sockets on the way hold is all that a client gets rid of; the program's late refusal arrives nevertheless."""
    full = asyncio.Event()

    async def program(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await full.wait()
        writer.write(b"HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno")

    async with between(program) as client:
        client.writer.write(b"PUT / HTTP/1.1\r\n" + HOST + b"Content-Length: 1000000000\r\n\r\n")
        sent = 0
        with suppress(TimeoutError):
            while sent < 64_000_000:
                client.writer.write(b"x" * 100_000)
                async with asyncio.timeout(0.5):
                    await client.writer.drain()
                sent += 100_000
        assert sent < 64_000_000
        full.set()
        assert b" 413 " in await client.reader.readline()


async def test_a_websockets_bytes_are_nobodys_business() -> None:
    """Subprotocol, extensions and keys reach the other side, and so does whatever follows, however it is cut."""
    seen = bytearray()

    async def program(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.extend(await reader.readuntil(b"\r\n\r\n"))
        agreed = b"Upgrade: WebSocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: b\r\nSec-WebSocket-Accept: k\r\n"
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\n" + agreed + b"\r\n\xc1at once")
        seen.extend(await reader.readuntil(b"end"))
        writer.write(b"\x88\x02\x03\xe8")

    asked = b"Sec-WebSocket-Key: K\r\nSec-WebSocket-Protocol: a, b\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"
    async with between(program) as client:
        head = (
            b"GET /chat? HTTP/1.1\r\n" + HOST + b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n" + asked + b"\r\n"
        )
        client.writer.write(head)
        first, *lines = (await client.reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
        assert b" 101 " in first
        assert {b"upgrade: websocket", b"connection: upgrade", b"sec-websocket-protocol: b", b"sec-websocket-accept: k"} <= {
            *lines
        }
        assert await client.reader.readexactly(8) == b"\xc1at once"
        client.writer.write(b"\x81\x80\0\1")
        client.writer.write(b"\2\3end")
        assert await client.reader.read() == b"\x88\x02\x03\xe8"
    kept = asked.replace(b"Sec-WebSocket-", b"sec-websocket-").replace(b"-Key", b"-key")
    assert kept.lower() in bytes(seen).lower()
    assert bytes(seen).endswith(b"\x81\x80\0\1\2\3end")


async def _http2(client: Client, *more: tuple[bytes, bytes], method: str = "GET") -> list[h2.events.Event]:
    """What a client of HTTP/2 hears of a request without a body."""
    told = H2Connection(H2Configuration(header_encoding="latin-1", validate_outbound_headers=False))
    told.initiate_connection()
    target = [(":method", method), (":scheme", "http"), (":authority", "app.localhost:1"), (":path", "/x?")]
    told.send_headers(1, [*target, *more], end_stream=True)
    client.writer.write(told.data_to_send())
    heard: list[h2.events.Event] = []
    ends = (h2.events.StreamEnded, h2.events.StreamReset)
    while not (heard and isinstance(heard[-1], ends)) and (data := await client.reader.read(1 << 16)):
        for event in told.receive_data(data):
            heard.append(event)
            if isinstance(event, ends):
                break
    return heard


async def test_http2_is_told_to_http1_and_back() -> None:
    """A request without a body has none there; headers are the same bytes; an answer's trailers arrive."""
    seen = bytearray()
    answer = b"HTTP/1.1 200 OK\r\nX-A: \xc3\xa4\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-T: 1\r\n\r\n"
    async with between(answering(answer, seen)) as client:
        heard = await _http2(client, (b"x-a", b"\xc3\xa4"), method="DELETE")
    assert bytes(seen) == b"DELETE /x? HTTP/1.1\r\nhost: app.localhost:1\r\nx-a: \xc3\xa4\r\n" + TOLD + b"\r\n"
    heads = [event.headers for event in heard if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived)]
    assert heads == [[(":status", "200"), ("x-a", "\xc3\xa4")], [("x-t", "1")]]


async def test_http1_is_told_to_http2_and_back() -> None:
    """The same bytes in headers; a HEAD's answer has no length but its own; a goodbye is no end of what has begun."""
    seen: list[list[tuple[str, str]]] = []

    async def program(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told = H2Connection(H2Configuration(client_side=False, header_encoding="latin-1"))
        told.initiate_connection()
        while data := await reader.read(1 << 16):
            for event in told.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    seen.append([(str(name), str(value)) for name, value in event.headers])
                    head = dict(seen[-1])[":method"] == "HEAD"
                    told.send_headers(1, [(":status", "200"), (b"x-a", b"\xc3\xa4")], end_stream=head)
                    writer.write(told.data_to_send() + GoAwayFrame(0, last_stream_id=1).serialize())
                    if not head:
                        told.send_data(1, b"abc", end_stream=True)
            writer.write(told.data_to_send())

    for method, status, lines, body in (
        ("GET", b"HTTP/1.1 200 OK", [b"x-a: \xc3\xa4", b"Transfer-Encoding: chunked"], b"3\r\nabc\r\n0\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK", [b"x-a: \xc3\xa4"], b""),
    ):
        async with between(program, http2=True) as client:
            asked = f"{method} /x? HTTP/1.1\r\n".encode() + HOST + b"X-A: \xe2\x82\xac\r\nConnection: close\r\n\r\n"
            assert await client.ask(asked) == (status, lines, body)
        assert (dict(seen[-1])[":path"], dict(seen[-1])["x-a"]) == ("/x?", "\xe2\x82\xac")


async def test_a_grpc_call_that_is_cancelled_is_cancelled_there() -> None:
    """The program stops its work for it."""
    begun, ended = asyncio.Event(), asyncio.Event()

    class Waits(grpc.GenericRpcHandler):
        def service(self, details: object) -> object:
            return grpc.unary_unary_rpc_method_handler(wait)

    async def wait(request: bytes, context: object) -> bytes:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return request

    server = grpc.aio.server(handlers=(Waits(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with serving(sites=Programs(app=Program(port))) as service, asyncio.timeout(30):
            options = [("grpc.default_authority", "app.localhost:1")]
            async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}", options=options) as channel:
                call = channel.unary_unary("/t.Waits/Wait")(b"")
                await begun.wait()
                call.cancel()
                await ended.wait()
    finally:
        await server.stop(None)
