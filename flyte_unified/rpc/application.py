"""From a request's first line to the one who answers: checks, routes, protocols.

One application serves HTTP/1.1 and HTTP/2 alike. It always answers: what nobody foresaw becomes a logged 500.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import structlog
from structlog.typing import FilteringBoundLogger

from flyte_unified.core.context import Headers
from flyte_unified.core.errors import FlyteUnifiedError, Unimplemented
from flyte_unified.core.http import Response, Route
from flyte_unified.core.sites import Sites
from flyte_unified.rpc.calls import Calls, Policy
from flyte_unified.rpc.connect import ConnectGet, ConnectStream, ConnectUnary
from flyte_unified.rpc.errors import HTTP_STATUS, connect_error_json
from flyte_unified.rpc.exchange import Disconnected, Exchange
from flyte_unified.rpc.grpcweb import Grpc, GrpcWeb, GrpcWebText
from flyte_unified.rpc.registry import JSON, PROTO, Kind, Method, Registry
from flyte_unified.rpc.relay.relay import Relay
from flyte_unified.rpc.web import Cors, Router, decoded, host_check, is_address, request
from flyte_unified.rpc.wire import Wire

_TEXT = (("content-type", "text/plain; charset=utf-8"),)
_JSON = (("content-type", "application/json"),)
_TOKEN_PREFIX = "/t/"
_LONGEST_ID = 256

_UNARY, _STREAM, _GET = ConnectUnary(), ConnectStream(), ConnectGet()
_GRPC, _WEB, _WEB_TEXT = Grpc(), GrpcWeb(), GrpcWebText()

_WIRES: dict[str, tuple[Wire, str]] = {
    "application/proto": (_UNARY, PROTO),
    "application/json": (_UNARY, JSON),
    "application/connect+proto": (_STREAM, PROTO),
    "application/connect+json": (_STREAM, JSON),
} | {
    f"{wire.content_type}{suffix}": (wire, codec)
    for wire in (_GRPC, _WEB, _WEB_TEXT)
    for suffix, codec in (("", PROTO), ("+proto", PROTO), ("+json", JSON))
}
_ACCEPT_POST = ", ".join(_WIRES)


class Application:
    """Call it with an exchange; it returns when the exchange is answered."""

    def __init__(
        self,
        *,
        registry: Registry,
        routes: Sequence[Route],
        policy: Policy,
        allowed_hosts: Sequence[str],
        cors_origins: Sequence[str],
        sites: Sites | None = None,
        logger: FilteringBoundLogger | None = None,
    ) -> None:
        self.calls = Calls(policy, logger=logger)
        self.relay = Relay(self.calls)
        self._sites = sites
        self._registry = registry
        self._router = Router(routes)
        self._known_host = host_check(allowed_hosts)
        self._cors = Cors(cors_origins)
        self._log: FilteringBoundLogger = logger or structlog.get_logger("flyte_unified.rpc")

    async def __call__(self, exchange: Exchange) -> None:
        """Raises only CancelledError."""
        try:
            await self._answer(exchange)
        except Disconnected:
            exchange.abort()
        except Exception:
            self._log.exception("a request failed", method=exchange.method)
            await self._last_resort(exchange)

    async def _answer(self, exchange: Exchange) -> None:
        if self._sites is not None and (site := self._sites.at(exchange.host)) is not None:
            # Before anything else: nothing of ours is to be had under an app's name.
            await self.relay.serve(exchange, site)
            return
        if exchange.path == "/healthz":
            # A probe asks by address, whatever the Host; there is nothing to read here.
            await exchange.respond(200, _TEXT, b"OK")
            return
        if not (self._known_host(exchange.host) or _is_of_an_instance(exchange)):
            await exchange.respond(421, _TEXT, b"this server is not known by that host name (server.allowed_hosts)\n")
            return
        content_type = self._read_headers(exchange)
        if exchange.method == "OPTIONS":
            await exchange.respond(204, Cors.preflight(exchange.reply_headers))
            return
        if exchange.path.startswith(_TOKEN_PREFIX):
            exchange.token, slash, rest = exchange.path[len(_TOKEN_PREFIX) :].partition("/")
            exchange.path = slash + rest
        method = self._registry.find(exchange.path)
        if method is not None:
            await self._call(exchange, method, content_type)
        else:
            await self._route(exchange, content_type)

    def _read_headers(self, exchange: Exchange) -> str:
        """The content type; on the way, what the reply's headers and links must say."""
        content_type = ""
        for name, value in exchange.headers:
            if name == "content-type":
                content_type = value
            elif name == "x-request-id" and value.isascii() and len(value) <= _LONGEST_ID:
                exchange.reply_headers = (*exchange.reply_headers, (name, value))
            elif name == "origin":
                exchange.reply_headers = (*exchange.reply_headers, *self._cors.headers(exchange, value))
            elif name == "x-forwarded-proto" and value == "https":
                exchange.base_url = f"https://{exchange.host}"
        return content_type

    async def _call(self, exchange: Exchange, method: Method, content_type: str) -> None:
        unary = method.kind is Kind.UNARY
        gets = method.idempotent and unary
        if exchange.method == "GET" and gets:
            await self.calls.serve(exchange, method, _GET, PROTO)
            return
        if exchange.method != "POST":
            await exchange.respond(405, (*_TEXT, ("allow", "GET, POST" if gets else "POST")), b"method not allowed\n")
            return
        wire, codec = _wire(content_type)
        if wire is None or wire is (_STREAM if unary else _UNARY):
            await exchange.respond(415, (*_TEXT, ("accept-post", _ACCEPT_POST)), b"unsupported media type\n")
        elif wire is _GRPC and exchange.http_version != "2":
            await exchange.respond(505, _TEXT, b"gRPC needs HTTP/2\n")
        else:
            await self.calls.serve(exchange, method, wire, codec)

    async def _route(self, exchange: Exchange, content_type: str) -> None:
        if self._sites is not None and (found := self._sites.below(exchange.path)) is not None:
            site, exchange.path = found
            await self.relay.serve_programs(exchange, site)
            return
        path = decoded(exchange.path)
        routes = self._router.find(path)
        if routes is None:
            await self._not_found(exchange, content_type)
            return
        methods, match = routes
        route = methods.get(exchange.method)
        if route is None and exchange.method == "HEAD":
            route = methods.get("GET")
        if route is None:
            await exchange.respond(405, (*_TEXT, ("allow", ", ".join(sorted(methods)))), b"method not allowed\n")
            return
        try:
            with self.calls.tracked(streams=False):
                if exchange.token is not None:
                    await self.calls.identify(exchange)
                response = await route.handler(request(exchange, path, match))
        except FlyteUnifiedError as error:
            await exchange.respond(HTTP_STATUS[error.code], _JSON, connect_error_json(error))
            return
        await self._send(exchange, response)

    async def _not_found(self, exchange: Exchange, content_type: str) -> None:
        wire, codec = _wire(content_type)
        service, slash, rpc = exchange.path[1:].partition("/")
        if exchange.method != "POST" or wire is None or not slash or "/" in rpc:
            await exchange.respond(404, _TEXT, b"not found\n")
            return
        error = Unimplemented(f"{service}/{rpc} is no RPC of this server")
        if wire in (_UNARY, _STREAM):
            await exchange.respond(404, _JSON, connect_error_json(error))
        else:
            method = Method(service, rpc, Kind.UNARY, None, {}, {})
            await self.calls.refuse(exchange, method, wire, codec, error)

    async def _send(self, exchange: Exchange, response: Response) -> None:
        body = response.body
        if isinstance(body, bytes):
            await exchange.respond(response.status, response.headers, body)
        else:
            await self._stream(exchange, response.status, response.headers, body)

    async def _stream(self, exchange: Exchange, status: int, headers: Headers, body: AsyncIterator[bytes]) -> None:
        # Of known length it will end by itself and may, like a call, when the server stops.
        endless = all(name.lower() != "content-length" for name, _ in headers)
        try:
            with self.calls.tracked(streams=endless):
                await exchange.start(status, headers)
                if exchange.method != "HEAD":
                    async for chunk in body:
                        await exchange.write(chunk)
                await exchange.end()
        finally:
            if (close := getattr(body, "aclose", None)) is not None:
                await close()

    async def _last_resort(self, exchange: Exchange) -> None:
        if exchange.started:
            exchange.abort()
            return
        try:
            await exchange.respond(500, _JSON, b'{"code":"internal"}')
        except Disconnected:
            exchange.abort()


def _is_of_an_instance(exchange: Exchange) -> bool:
    """What probes and Prometheus ask of each replica by its own address.

    A page that had its name rebound to ours sends that name: so it reads whether we are ready, and no counts.
    """
    return exchange.path == "/readyz" or (exchange.path == "/metrics" and is_address(exchange.host))


def _wire(content_type: str) -> tuple[Wire | None, str]:
    found = _WIRES.get(content_type)
    if found is None:
        found = _WIRES.get(content_type.partition(";")[0].strip().lower())
    return found or (None, PROTO)
