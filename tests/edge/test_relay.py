"""Programs under host names of their own, on the server's one port."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import grpc
import h2.events
import pytest
import structlog
from aiohttp import web
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes

from flyte_unified.core.errors import Unavailable
from flyte_unified.core.sites import Upstream
from tests.edge.service import Service, serving
from tests.edge.sites import Program, Programs, Refusing

BIG = 9_000_000
DEATHS = web.AppKey("deaths", list)
FULL = web.AppKey("full", asyncio.Future)


async def told(request: web.Request) -> web.Response:
    """What the program saw."""
    body = await request.read()
    seen = {
        "method": request.method,
        "path": request.raw_path,
        "headers": [[name.lower(), value] for name, value in request.headers.items()],
        "body": hashlib.sha256(body).hexdigest(),
    }
    response = web.json_response(seen, headers={"x-program": "1", "Connection": "x-private", "x-private": "1"})
    response.headers.add("Set-Cookie", "a=1; Domain=localhost; Path=/")
    response.headers.add("Set-Cookie", "b=2; Path=/")
    return response


async def big(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-encoding": "br", "content-type": "application/x-thing"})
    await response.prepare(request)
    for _ in range(BIG // 100_000):
        await response.write(b"x" * 100_000)
    return response


async def torn(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-length": "1000"})
    await response.prepare(request)
    await response.write(b"half")
    assert request.transport is not None
    request.transport.abort()
    return response


async def dies(request: web.Request) -> web.Response:
    request.app[DEATHS].append(request.path)
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def events(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    await asyncio.Event().wait()
    return response


async def endless(request: web.Request) -> web.StreamResponse:
    """Writes until nobody takes it, and says how much that was."""
    response = web.StreamResponse()
    await response.prepare(request)
    written = 0
    while True:
        try:
            async with asyncio.timeout(0.5):
                await response.write(b"x" * 100_000)
        except TimeoutError:
            request.app[FULL].set_result(written)
            return response
        written += 100_000


async def silent(request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError


async def chat(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        if message.data == "bye":
            await socket.close(code=4001)
        elif message.type is aiohttp.WSMsgType.TEXT:
            await socket.send_str(message.data.upper())
        else:
            await socket.send_bytes(message.data)
    return socket


@pytest.fixture
def deaths() -> list[str]:
    """What programs were asked for when they died."""
    return []


@pytest.fixture
async def full() -> asyncio.Future[int]:
    """How much a program could write that nobody read."""
    return asyncio.get_running_loop().create_future()


@pytest.fixture
async def web_port(deaths: list[str], full: asyncio.Future[int]) -> AsyncIterator[int]:
    program = web.Application(client_max_size=1 << 30)
    program.router.add_get("/big", big)
    program.router.add_get("/torn", torn)
    program.router.add_get("/dies", dies)
    program.router.add_get("/events", events)
    program.router.add_get("/endless", endless)
    program[FULL] = full
    program[DEATHS] = deaths
    program.router.add_get("/silent", silent)
    program.router.add_get("/chat", chat)
    program.router.add_route("*", "/{rest:.*}", told)
    runner = web.AppRunner(program, auto_decompress=False, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield runner.addresses[0][1]
    await runner.cleanup()


@asynccontextmanager
async def asking(service: Service, app: str = "app") -> AsyncIterator[aiohttp.ClientSession]:
    base = f"http://127.0.0.1:{service.edge.port}"
    async with aiohttp.ClientSession(base, headers={"Host": f"{app}.localhost:1"}, auto_decompress=False) as session:
        yield session


async def test_a_request_reaches_the_program_as_it_was_sent(web_port: int) -> None:
    """Method, path, query, headers and body are the client's own; only what is between neighbours stays behind."""
    async with serving(sites=Programs(app=Program(web_port))) as service, asking(service) as client:
        body = os.urandom(1_000_000)

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(body), 70_000):
                yield body[start : start + 70_000]

        headers = {"X-Mine": "ä", "Connection": "x-hop", "x-hop": "1", "content-encoding": "gzip"}
        for data in (body, pieces()):
            async with client.put("/a%2Fb//c?q=%20&q=2", data=data, headers=headers) as response:
                seen = await response.json()
                got = dict(seen["headers"])
                assert (seen["method"], seen["path"]) == ("PUT", "/a%2Fb//c?q=%20&q=2")
                assert seen["body"] == hashlib.sha256(body).hexdigest()
                assert got["host"] == got["x-forwarded-host"] == "app.localhost:1"
                assert (got["content-encoding"], got["x-mine"]) == ("gzip", "ä")
                assert "x-hop" not in got
                assert response.headers["x-program"] == "1"
                assert "x-private" not in response.headers


async def test_a_cookie_is_for_the_programs_own_host(web_port: int) -> None:
    """A Domain that would show it to the API and to other programs is taken away."""
    async with serving(sites=Programs(app=Program(web_port))) as service, asking(service) as client:
        response = await client.get("/")
        async with response:
            assert response.headers.getall("set-cookie") == ["a=1; Path=/", "b=2; Path=/"]


async def test_an_answer_comes_as_the_program_wrote_it(web_port: int) -> None:
    """Piece by piece, with its own encoding; what breaks off does so for the client too; HEAD and h2c have the same."""
    async with serving(sites=Programs(app=Program(web_port))) as service, asking(service) as client:
        async with client.get("/big") as response:
            assert response.headers["content-encoding"] == "br"
            assert response.headers["content-type"] == "application/x-thing"
            assert len(await response.read()) == BIG
        async with client.head("/x") as response:
            assert response.headers["x-program"] == "1"
        with pytest.raises(aiohttp.ClientPayloadError):
            async with client.get("/torn") as response:
                await response.read()
        command = ("curl", "-s", "--http2-prior-knowledge", "-H", "Host: app.localhost", "-d", "body", "-w", "%{http_version}")
        process = await asyncio.create_subprocess_exec(
            *command, f"http://127.0.0.1:{service.edge.port}/x", stdout=asyncio.subprocess.PIPE
        )
        said, _ = await process.communicate()
        assert hashlib.sha256(b"body").hexdigest().encode() in said
        assert said.endswith(b"2")


async def test_a_program_that_does_not_answer_is_told_about(web_port: int) -> None:
    """503 where nobody listens or the app is not to be had, 504 where it takes too long, 404 where there is none."""
    nobody = Program(1)
    slow = Program(web_port, patience=0.05)
    stopped = Refusing(Unavailable("app 'x' is stopped"))
    async with serving(sites=Programs(nobody=nobody, slow=slow, stopped=stopped)) as service:
        for app, path, status, words in (
            ("nobody", "/", 503, "did not answer"),
            ("slow", "/silent", 504, "within 0.05 s"),
            ("stopped", "/", 503, "app 'x' is stopped"),
            ("unknown", "/healthz", 404, "there is no app 'unknown'"),
        ):
            async with asking(service, app) as client, client.get(path) as response:
                assert (response.status, words in await response.text()) == (status, True)
        assert nobody.visitors == slow.visitors == 0


async def test_an_answer_begins_before_its_first_byte(web_port: int) -> None:
    """As server-sent events do, which may have nothing to say for hours."""
    async with serving(sites=Programs(app=Program(web_port))) as service, asking(service) as client:
        response = await client.get("/events")
        assert response.headers["content-type"] == "text/event-stream"
        response.close()


async def test_a_client_that_does_not_read_holds_the_program_up(web_port: int, full: asyncio.Future[int]) -> None:
    """What the sockets on the way hold is all that is ever sent for it; the server keeps nothing."""
    async with serving(sites=Programs(app=Program(web_port))) as service:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.edge.port, limit=1 << 16)
        writer.write(b"GET /endless HTTP/1.1\r\nHost: app.localhost\r\n\r\n")
        assert await full < 64_000_000
        writer.close()
        await writer.wait_closed()
        del reader


async def test_a_request_is_sent_once(web_port: int, deaths: list[str]) -> None:
    """A program that ended over it may have done what it was asked: whether to ask again is for the client to judge."""
    async with serving(sites=Programs(app=Program(web_port))) as service, asking(service) as client:
        for data in (None, b"body"):
            async with client.get("/dies", data=data) as response:
                assert response.status == 503
        assert deaths == ["/dies", "/dies"]


async def test_a_program_that_takes_no_connection_is_visited_again(web_port: int) -> None:
    """It ended just now, and those who run it are about to hear of it: the next visit leads to another process."""

    class Moved(Program):
        @asynccontextmanager
        async def visit(self) -> AsyncIterator[Upstream]:
            self.visitors += 1
            yield Upstream(host="127.0.0.1", port=web_port if self.visitors > 2 else 1, patience=20)

    moved = Moved(1)
    async with serving(sites=Programs(app=moved)) as service, asking(service) as client:
        response = await client.put("/x", data=b"body")
        assert (await response.json())["body"] == hashlib.sha256(b"body").hexdigest()
    assert moved.visitors == 3


async def test_a_client_that_leaves_is_told_to_the_program(web_port: int) -> None:
    """The program's connection ends with the client's, and the visit is over."""
    program = Program(web_port)
    async with serving(sites=Programs(app=program)) as service, asking(service) as client:
        with pytest.raises(TimeoutError):
            await client.get("/silent", timeout=aiohttp.ClientTimeout(total=0.1))
        await program.left.wait()


async def test_nothing_of_the_server_is_under_an_apps_name(web_port: int) -> None:
    """The API's paths lead to the program there, and the API's own host to the API."""
    async with serving(sites=Programs(app=Program(web_port))) as service, asking(service) as client:
        async with client.get("/healthz") as response:
            assert (await response.json())["path"] == "/healthz"
        async with aiohttp.ClientSession() as plain, plain.get(f"http://127.0.0.1:{service.edge.port}/healthz") as response:
            assert await response.text() == "OK"


async def test_programs_find_it_below_a_path_too_and_browsers_do_not(web_port: int) -> None:
    """Where names below localhost can't be looked up; a browser would give the app what belongs to the API's origin."""
    async with serving(sites=Programs(app=Program(web_port))) as service:
        base = f"http://127.0.0.1:{service.edge.port}/apps/app"
        async with aiohttp.ClientSession() as client:
            async with client.get(f"{base}/deep/er?x=1") as response:
                assert (await response.json())["path"] == "/deep/er?x=1"
                assert response.headers["content-security-policy"] == "sandbox"
            for header in ("Origin", "Sec-Fetch-Site"):
                async with client.get(f"{base}/", headers={header: "x"}) as response:
                    assert response.status == 403


async def test_a_websocket_passes_both_ways(web_port: int) -> None:
    """Text and large binary messages, and the closing handshake with its code; what is no WebSocket there is answered."""
    program = Program(web_port)
    async with serving(sites=Programs(app=program)) as service, asking(service) as client:
        async with client.ws_connect("/chat", max_msg_size=0) as socket:
            await socket.send_str("hello")
            assert await socket.receive_str() == "HELLO"
            data = os.urandom(2_000_000)
            await socket.send_bytes(data)
            assert await socket.receive_bytes() == data
            await socket.send_str("bye")
            assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
            assert socket.close_code == 4001
        async with client.ws_connect("/chat") as socket:
            await socket.send_str("again")
            assert await socket.receive_str() == "AGAIN"
        with pytest.raises(aiohttp.WSServerHandshakeError, match="200"):
            await client.ws_connect("/nothing")
    assert program.visitors == 0


async def test_open_websockets_end_with_the_server(web_port: int) -> None:
    """A stop does not wait for them."""
    async with serving(sites=Programs(app=Program(web_port))) as service, asking(service) as client:
        socket = await client.ws_connect("/chat")
        await service.edge.stop(5.0)
        assert (await socket.receive()).type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)


class Talk(grpc.GenericRpcHandler):
    """A gRPC service of bytes."""

    def service(self, details: Any) -> Any:
        match details.method.rpartition("/")[2]:
            case "Echo":
                return grpc.unary_unary_rpc_method_handler(_echo)
            case "Count":
                return grpc.unary_stream_rpc_method_handler(_count)
            case "Talk":
                return grpc.stream_stream_rpc_method_handler(_talk)
        return None


async def _echo(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
    if request == b"wrong":
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "100 % wröng")
    await context.send_initial_metadata((("x-head", dict(context.invocation_metadata())["x-mine"]),))
    context.set_trailing_metadata((("x-tail-bin", b"\0\1"),))
    return request


async def _count(request: bytes, context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
    for number in range(int(request)):
        yield str(number).encode() * 1000


async def _talk(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request


async def test_grpc_passes_with_metadata_trailers_and_both_directions() -> None:
    """Whatever the port is called: unary, errors, server streams larger than any window, and a conversation."""
    server = grpc.aio.server(handlers=(Talk(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        sites = Programs(app=Program(port), connector=Program(port, http2=True))
        async with serving(sites=sites) as service:
            for app in ("app", "connector"):
                await _converse(service.edge.port, app)
    finally:
        await server.stop(None)


async def _converse(port: int, app: str) -> None:
    options = [("grpc.default_authority", f"{app}.localhost:1")]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        call = channel.unary_unary("/t.Talk/Echo")(b"x" * 1_000_000, metadata=(("x-mine", "m"),))
        assert await call == b"x" * 1_000_000
        assert ("x-head", "m") in tuple(await call.initial_metadata())
        assert ("x-tail-bin", b"\0\1") in tuple(await call.trailing_metadata())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/t.Talk/Echo")(b"wrong")
        assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "100 % wröng")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/t.Talk/Unknown")(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        counted = [len(piece) async for piece in channel.unary_stream("/t.Talk/Count")(b"2000")]
        assert len(counted) == 2000
        talk = channel.stream_stream("/t.Talk/Talk")()
        for number in range(20):
            await talk.write(str(number).encode())
            assert await talk.read() == str(number).encode()
        await talk.done_writing()
        assert await talk.read() is grpc.aio.EOF
        assert await talk.code() is grpc.StatusCode.OK


async def test_a_get_may_have_a_body_over_http2_too(web_port: int) -> None:
    """The program is not left to wait for what its headers promise."""
    async with serving(sites=Programs(app=Program(web_port))) as service:
        headers, body = await _http2(service.edge.port, "GET", "/x", body=b"body")
        assert headers[":status"] == "200"
        assert hashlib.sha256(b"body").hexdigest().encode() in body


@pytest.mark.parametrize(("method", "path"), [("GET", "/x HTTP/1.1"), ("GET", "/x?a b"), ("GET", "/ä"), ("G T", "/x")])
async def test_what_http1_cannot_say_is_refused(web_port: int, method: str, path: str) -> None:
    """A method or a path of HTTP/2 with a blank would be another request in a program's HTTP/1.1."""
    async with serving(sites=Programs(app=Program(web_port))) as service:
        headers, _ = await _http2(service.edge.port, method, path)
        assert headers[":status"] == "400"


async def _http2(
    port: int, method: str, path: str, *, body: bytes = b"", more: Sequence[tuple[str, str]] = ()
) -> tuple[dict[str, str], bytes]:
    """The answer's head and body. Any request can be sent, well-formed or not."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    client = H2Connection(H2Configuration(header_encoding="utf-8", validate_outbound_headers=False))
    client.initiate_connection()
    length = [("content-length", str(len(body)))] if body else []
    named = [(":method", method), (":scheme", "http"), (":authority", "app.localhost"), (":path", path)]
    client.send_headers(1, [*named, *length, *more], end_stream=not body)
    if body:
        client.send_data(1, body, end_stream=True)
    writer.write(client.data_to_send())
    head: dict[str, str] = {}
    said = b""
    try:
        while data := await reader.read(1 << 16):
            for event in client.receive_data(data):
                match event:
                    case h2.events.ResponseReceived():
                        head = {str(name): str(value) for name, value in event.headers}
                    case h2.events.DataReceived():
                        said += event.data
                    case h2.events.StreamEnded():
                        return head, said
    finally:
        writer.close()
    raise AssertionError("no answer")


@pytest.mark.parametrize(
    ("upgrade", "answer", "status"),
    [
        ("", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: upgrade\r\n\r\n", b"503"),
        ("websocket", b"HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\nhalf", b"403"),
    ],
)
async def test_an_odd_program_is_no_fault_of_the_servers(upgrade: str, answer: bytes, status: bytes) -> None:
    """It goes over to another protocol unasked, which would leave a proxy before us astray; it tears its refusal off."""

    async def odd(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    program = await asyncio.start_server(odd, "127.0.0.1", 0)
    async with program, serving(sites=Programs(app=Program(program.sockets[0].getsockname()[1]))) as service:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.edge.port)
        asked = f"Connection: upgrade\r\nUpgrade: {upgrade}\r\n" if upgrade else "Connection: close\r\n"
        with structlog.testing.capture_logs() as logged:
            writer.write(f"GET / HTTP/1.1\r\nHost: app.localhost\r\n{asked}\r\n".encode())
            with suppress(ConnectionError):
                assert (await reader.readline()).split()[1] == status
                await reader.read()
        writer.close()
        assert not logged


async def test_a_program_that_lets_nobody_connect_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that drops what it is sent says nothing for minutes, to gRPC as to all."""
    connect = asyncio.open_connection

    async def dropping(host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await (connect(host, port) if port != 1 else asyncio.get_running_loop().create_future())

    monkeypatch.setattr(asyncio, "open_connection", dropping)
    async with serving(sites=Programs(app=Program(1, http2=True, patience=0.05))) as service, asyncio.timeout(10):
        for content_type in ("text/plain", "application/grpc"):
            headers, _ = await _http2(service.edge.port, "POST", "/x", more=[("content-type", content_type)])
            assert headers[":status"] == "504"


async def test_what_a_program_pushes_is_no_part_of_its_answer() -> None:
    """It is told that nobody takes it."""
    settings: dict[int, int] = {}

    async def pushing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        program = H2Connection(H2Configuration(client_side=False))
        program.initiate_connection()
        while data := await reader.read(1 << 16):
            for event in program.receive_data(data):
                match event:
                    case h2.events.RemoteSettingsChanged():
                        settings.update({code: change.new_value for code, change in event.changed_settings.items()})
                    case h2.events.RequestReceived():
                        program.send_headers(1, [(":status", "200")])
                        program.send_data(1, b"answer", end_stream=True)
            writer.write(program.data_to_send())
        writer.close()

    program = await asyncio.start_server(pushing, "127.0.0.1", 0)
    port = program.sockets[0].getsockname()[1]
    async with program, serving(sites=Programs(app=Program(port, http2=True))) as service:
        _, body = await _http2(service.edge.port, "GET", "/")
        assert body == b"answer"
    assert settings[SettingCodes.ENABLE_PUSH] == 0


async def test_a_program_may_be_asked_by_another_name(web_port: int) -> None:
    """As what stands before it knows it, over HTTP/1.1 and HTTP/2; the visitor's own name for it goes along."""
    named: list[dict[str, str]] = []

    async def noting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        program = H2Connection(H2Configuration(client_side=False, header_encoding="latin-1"))
        program.initiate_connection()
        while data := await reader.read(1 << 16):
            for event in program.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    named.append({str(name): str(value) for name, value in event.headers})
                    program.send_headers(1, [(":status", "204")], end_stream=True)
            writer.write(program.data_to_send())
        writer.close()

    program = await asyncio.start_server(noting, "127.0.0.1", 0)
    port = program.sockets[0].getsockname()[1]
    sites = Programs(app=Program(web_port, authority="web.svc"), connector=Program(port, http2=True, authority="grpc.svc"))
    async with program, serving(sites=sites) as service:
        async with asking(service) as client, client.get("/") as response:
            named.append(dict((await response.json())["headers"]))
        async with asking(service, "connector") as client, client.get("/") as response:
            assert response.status == 204
    first, second = named
    assert (first["host"], first["x-forwarded-host"]) == ("web.svc", "app.localhost:1")
    assert (second[":authority"], second["x-forwarded-host"]) == ("grpc.svc", "connector.localhost:1")
    assert "host" not in second
