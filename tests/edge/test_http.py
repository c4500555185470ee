"""Plain HTTP on the port: who may ask, where the routes are, what a browser is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from flyte_unified.core.errors import NotFound
from flyte_unified.core.http import Request, Response, Route
from flyte_unified.rpc.edge import Patience
from flyte_unified.rpc.listener import PREFACE
from tests.edge.service import GET_PROJECT, TOKEN, Service, curl, http1, serving

VERSIONS = ["--http1.1", "--http2-prior-knowledge"]
JSON = ("-H", "content-type: application/json", "-d", '{"id": "p"}')


async def echo(request: Request) -> Response:
    body = b"".join([chunk async for chunk in request.body])
    seen = {"path": request.path, "match": dict(request.match), "query": dict(request.query), "size": len(body)}
    return Response(headers=(("content-type", "application/json"), ("X-Seen", "1")), body=json.dumps(seen).encode())


async def stream(request: Request) -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        for number in range(3):
            yield f"{number}\n".encode()

    return Response(headers=(("content-type", "text/plain"),), body=chunks())


async def ready(request: Request) -> Response:
    return Response(body=b"ready")


async def missing(request: Request) -> Response:
    raise NotFound("no such blob")


async def broken(request: Request) -> Response:
    raise KeyError("a secret of the inside")


ROUTES = [
    Route("GET", "/", echo),
    Route("GET", "/runs/{run}/logs", echo),
    Route("PUT", "/data/{key:.*}", echo),
    Route("GET", "/data/{key:.*}", echo),
    Route("GET", "/count/{size:[0-9]{2}}", echo),
    Route("GET", "/stream", stream),
    Route("GET", "/readyz", ready),
    Route("GET", "/metrics", ready),
    Route("GET", "/missing", missing),
    Route("GET", "/broken", broken),
]


@pytest.fixture
async def served() -> AsyncIterator[Service]:
    async with serving(
        routes=ROUTES, cors_origins=["https://console.example.org"], allowed_hosts=["flyte.example.org", "*.svc.local"]
    ) as service:
        yield service


@pytest.mark.parametrize("version", VERSIONS)
async def test_routes(served: Service, version: str) -> None:
    """A placeholder takes one decoded segment, or what its expression says; other methods are refused by name."""
    status, head, body = await curl(version, served.url + "/runs/a%20b/logs?follow=1&x=")
    assert status == 200
    assert json.loads(body) == {
        "path": "/runs/a b/logs",
        "match": {"run": "a b"},
        "query": {"follow": "1", "x": ""},
        "size": 0,
    }
    assert "x-seen: 1" in head
    _, _, body = await curl(version, served.url + "/data/a/b/c")
    assert json.loads(body)["match"] == {"key": "a/b/c"}
    assert (await curl(version, served.url + "/count/12"))[0] == 200
    assert (await curl(version, served.url + "/count/123"))[0] == 404
    assert (await curl(version, served.url + "/runs/a/b/logs"))[0] == 404
    status, head, _ = await curl(version, "-X", "DELETE", served.url + "/data/a")
    assert status == 405
    assert "allow: get, put" in head


@pytest.mark.parametrize("version", VERSIONS)
async def test_upload(served: Service, version: str, tmp_path: Path) -> None:
    """A large body reaches its route; a client that asks first (Expect: 100-continue) is not kept waiting."""
    file = tmp_path / "large"
    file.write_bytes(b"x" * 5_000_000)
    status, _, body = await curl(
        version, "--expect100-timeout", "15", "-H", "expect: 100-continue", "-T", str(file), served.url + "/data/large"
    )
    assert status == 200
    assert json.loads(body)["size"] == 5_000_000


@pytest.mark.parametrize("version", VERSIONS)
async def test_streamed_and_head(served: Service, version: str) -> None:
    """A streamed body arrives whole; HEAD gets the head of GET and no body."""
    status, _, body = await curl(version, served.url + "/stream")
    assert (status, body) == (200, b"0\n1\n2\n")
    status, head, body = await curl(version, "--head", served.url + "/")
    assert (status, body) == (200, b"")
    assert "content-length: " in head
    assert "content-length: 0" not in head
    assert (await curl(version, "--head", served.url + "/stream"))[::2] == (200, b"")


@pytest.mark.parametrize(("length", "whole"), [("6", True), ("", False)])
async def test_stop_and_streamed_bodies(length: str, whole: bool) -> None:
    """A stop lets a body of known length end, and cuts an endless one so that it is not taken for whole."""
    began, go_on = asyncio.Event(), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        began.set()
        await go_on.wait()
        yield b"two"

    async def answer(request: Request) -> Response:
        return Response(headers=(("content-length", length),) if length else (), body=body())

    async with serving(routes=[Route("GET", "/body", answer)]) as service:
        reading = asyncio.create_task(http1(service.port, b"GET /body HTTP/1.1\r\nhost: localhost\r\n\r\n"))
        await began.wait()
        stopping = asyncio.create_task(service.edge.stop(5.0))
        await asyncio.sleep(0)
        go_on.set()
        assert (b"two" in await reading) is whole
        await stopping


@pytest.mark.parametrize("version", VERSIONS)
async def test_route_errors(served: Service, version: str) -> None:
    """An error of ours has its HTTP status and a JSON body; anything else is 500 and tells nothing."""
    status, _, body = await curl(version, served.url + "/missing")
    assert status == 404
    assert json.loads(body) == {"code": "not_found", "message": "no such blob"}
    status, _, body = await curl(version, served.url + "/broken")
    assert status == 500
    assert b"secret" not in body


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8090", 200),
        ("app.localhost:8090", 200),
        ("127.0.0.1:1", 200),
        ("127.9.9.9", 200),
        ("[::1]:8090", 200),
        ("flyte.example.org", 200),
        ("flyte.example.org:443", 200),
        ("a.svc.local", 200),
        ("evil.example.org", 421),
        ("localhost.example.org", 421),
        ("notsvc.local", 421),
        ("192.168.1.1", 421),
        ("127.0.0.1.example.org", 421),
    ],
)
async def test_host(served: Service, version: str, host: str, status: int) -> None:
    """Only a host name that is loopback or configured reaches a service; a probe reaches /healthz and /readyz by any, and
    Prometheus /metrics by any address, as it scrapes pods."""
    assert (await curl(version, "-H", f"host: {host}", *JSON, served.url + GET_PROJECT))[0] == status
    assert (await curl(version, "-H", f"host: {host}", served.url + "/healthz"))[::2] == (200, b"OK")
    assert (await curl(version, "-H", f"host: {host}", served.url + "/readyz"))[::2] == (200, b"ready")
    scraped = 200 if host == "192.168.1.1" else status
    assert (await curl(version, "-H", f"host: {host}", served.url + "/metrics"))[0] == scraped


@pytest.mark.parametrize("version", VERSIONS)
async def test_cross_origin(served: Service, version: str) -> None:
    """A page may read the answers if its origin is ours or configured; a preflight is answered without a body."""
    for origin in ("https://console.example.org", served.url):
        status, head, _ = await curl(version, "-H", f"origin: {origin}", *JSON, served.url + GET_PROJECT)
        assert status == 200
        assert f"access-control-allow-origin: {origin}\r\n" in head
        assert "access-control-allow-credentials: true" in head
        assert "grpc-status" in head.partition("access-control-expose-headers:")[2]
        status, head, body = await curl(version, "-X", "OPTIONS", "-H", f"origin: {origin}", served.url + GET_PROJECT)
        assert (status, body) == (204, b"")
        assert "connect-protocol-version" in head.partition("access-control-allow-headers:")[2]
        assert "access-control-max-age: 86400" in head
    for origin in ("https://evil.example.org", "http://localhost:1", "null"):
        _, head, _ = await curl(version, "-H", f"origin: {origin}", *JSON, served.url + GET_PROJECT)
        assert "access-control" not in head
        assert "vary: origin" in head
        status, head, _ = await curl(version, "-X", "OPTIONS", "-H", f"origin: {origin}", served.url + GET_PROJECT)
        assert status == 204
        assert "access-control" not in head


@pytest.mark.parametrize("version", VERSIONS)
async def test_run_token(served: Service, version: str) -> None:
    """A token in the path is the caller's identity and leads to the same service; a wrong one leads nowhere."""
    assert (await curl(version, *JSON, f"{served.url}/t/{TOKEN}{GET_PROJECT}"))[0] == 200
    assert served.projects.context is not None
    assert served.projects.context.identity.subject == "run"
    assert served.projects.context.procedure == GET_PROJECT
    status, _, body = await curl(version, *JSON, f"{served.url}/t/wrong{GET_PROJECT}")
    assert status == 403
    assert json.loads(body)["code"] == "permission_denied"
    status, _, body = await curl(version, f"{served.url}/t/{TOKEN}/data/x")
    assert (status, json.loads(body)["path"]) == (200, "/data/x")
    assert (await curl(version, f"{served.url}/t/wrong/data/x"))[0] == 403
    assert (await curl(version, f"{served.url}/t/{TOKEN}"))[0] == 404
    crash = ("-H", "content-type: application/json", "-d", '{"id": "crash"}')
    assert (await curl(version, *crash, f"{served.url}/t/{TOKEN}{GET_PROJECT}"))[0] == 500
    assert served.logged
    assert TOKEN not in repr(served.logged)


@pytest.mark.parametrize("version", VERSIONS)
async def test_request_id_and_base_url(served: Service, version: str) -> None:
    """The caller's request id comes back; links begin with the address that the caller used, TLS of a proxy included."""
    arguments = ("-H", "x-request-id: abc", "-H", "host: flyte.example.org", "-H", "x-forwarded-proto: https")
    _, head, _ = await curl(version, *arguments, *JSON, served.url + GET_PROJECT)
    assert "x-request-id: abc" in head
    assert served.projects.context is not None
    assert served.projects.context.request_id == "abc"
    assert served.projects.context.base_url == "https://flyte.example.org"


@pytest.mark.parametrize("version", VERSIONS)
async def test_wrong_requests(served: Service, version: str) -> None:
    """What is no call of the RPC is refused by HTTP's own words."""
    url = served.url + GET_PROJECT
    status, head, _ = await curl(version, "-H", "content-type: text/plain", "-d", "x", url)
    assert status == 415
    assert "application/proto" in head.partition("accept-post:")[2]
    assert (await curl(version, "-H", "content-type: application/connect+proto", "-d", "x", url))[0] == 415
    status, head, _ = await curl(version, "-X", "PUT", *JSON, url)
    assert status == 405
    assert "allow: get, post" in head
    assert (await curl(version, url))[0] == 400  # GET without a message
    status, _, body = await curl(version, "-H", "content-encoding: br", *JSON, url)
    assert (status, json.loads(body)["code"]) == (501, "unimplemented")
    status, _, body = await curl(version, "-H", "content-encoding: gzip", *JSON, url)
    assert (status, json.loads(body)["code"]) == (400, "invalid_argument")
    status, _, body = await curl(version, "-H", "connect-timeout-ms: soon", *JSON, url)
    assert (status, json.loads(body)["code"]) == (400, "invalid_argument")
    status, _, body = await curl(version, "-H", "content-type: application/json", "-d", '{"id": 1}', url)
    assert (status, json.loads(body)["code"]) == (400, "invalid_argument")


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01 no http\r\n\r\n",
        PREFACE + b"no frames at all, but more than nine bytes",
        PREFACE + b"\0\0\5\4\0\0\0\0\0short",
        b"POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_garbage(data: bytes) -> None:
    """Bytes that are no HTTP end their connection, quietly, and the next client is served."""
    async with serving(patience=Patience(idle=0.2)) as service:
        await http1(service.port, data)
        assert (await curl(service.url + "/healthz"))[0] == 200


async def test_a_body_that_breaks_off_into_garbage(caplog: pytest.LogCaptureFixture) -> None:
    """Its call fails at once, and the connection ends, quietly."""
    async with serving() as service, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        head = f"POST {GET_PROJECT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}transfer-encoding: chunked\r\nexpect: 100-continue\r\n\r\n".encode())
        await reader.readuntil(b" 100 Continue\r\n\r\n")
        writer.write(b"3\r\nabc\r\nno chunk\r\n")
        said = await reader.read()
        writer.close()
    assert said.startswith(b"HTTP/1.1 400 ")
    assert said.count(b"HTTP/1.1") == 1
    assert b"malformed" in said
    assert not caplog.records


async def test_grpc_needs_http2(service: Service) -> None:
    """gRPC over HTTP/1.1 cannot end properly and is refused at once."""
    assert (await curl("-H", "content-type: application/grpc", "-d", "", service.url + GET_PROJECT))[0] == 505


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("content_type", "status"),
    [("application/json", 429), ("application/connect+json", 200), ("application/grpc-web+json", 200)],
)
async def test_message_limit(version: str, content_type: str, status: int, tmp_path: Path) -> None:
    """A message beyond the limit is RESOURCE_EXHAUSTED in each protocol, and the server goes on."""
    path = "/flyteidl2.workflow.RunService/WatchRunDetails" if "connect" in content_type else GET_PROJECT
    file = tmp_path / "body"
    framed = b"" if content_type == "application/json" else b"\0" + (60_000).to_bytes(4, "big")
    file.write_bytes(framed + b" " * 60_000)
    async with serving(max_message_bytes=50_000) as service:
        answer = await curl(version, "-H", f"content-type: {content_type}", "--data-binary", f"@{file}", service.url + path)
        assert answer[0] == status
        assert b"resource_exhausted" in answer[2] or b"grpc-status: 8" in answer[2]
        assert service.outcomes == ["resource_exhausted"]
        assert (await curl(version, *JSON, service.url + GET_PROJECT))[0] == 200


@pytest.mark.parametrize("version", VERSIONS)
async def test_response_gzip(service: Service, version: str) -> None:
    """A large response is compressed for who asks for it, and only then."""
    arguments = ("-H", "content-type: application/json", "-d", json.dumps({"id": "x" * 100_000}))
    _, head, body = await curl(version, *arguments, "-H", "accept-encoding: gzip", service.url + GET_PROJECT)
    assert "content-encoding: gzip" in head
    assert len(body) < 2000
    _, head, body = await curl(version, *arguments, "-H", "accept-encoding: gzip;q=0", service.url + GET_PROJECT)
    assert "content-encoding" not in head
    assert len(body) > 200_000


async def test_metrics(service: Service) -> None:
    """Each call is observed once with its protocol and outcome; what is no RPC of ours makes no label."""
    await curl(*JSON, service.url + GET_PROJECT)
    await curl(*JSON, service.url + "/acme.Service/Do")
    await curl("-H", "content-type: application/json", "-d", '{"id": "wrong"}', service.url + GET_PROJECT)
    assert service.observed == [(GET_PROJECT, "connect", "ok"), (GET_PROJECT, "connect", "failed_precondition")]
    assert service.in_flight == 0
