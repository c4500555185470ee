"""Plain HTTP beside the RPCs: who may ask (Host, Origin), and the routes of other rooms.

The Host check is what keeps a web page from reaching a server on loopback under a name of its own (DNS rebinding).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import parse_qsl, unquote

from flyte_unified.core.context import Headers
from flyte_unified.core.http import Request, Route
from flyte_unified.rpc.exchange import Exchange

_ALLOWED = (
    "Accept, Authorization, Content-Type, Connect-Protocol-Version, Connect-Timeout-Ms, Grpc-Timeout, X-Grpc-Web, "
    "X-User-Agent, X-Request-Id"
)
_EXPOSED = "Grpc-Status, Grpc-Message, Grpc-Status-Details-Bin, X-Request-Id"
_PREFLIGHT_SECONDS = "86400"
_PLACEHOLDER = re.compile(r"\{(\w+)(?::((?:[^{}]|\{[^{}]*\})+))?\}")


def host_check(allowed: Iterable[str]) -> Callable[[str], bool]:
    """Whether a Host header names this server: loopback, ``*.localhost``, or one of ``allowed``.

    An allowed name is compared without its port; ``*`` allows any, ``*.example.org`` any below it.
    """
    names = {name.lower() for name in allowed}
    suffixes = tuple(name[1:] for name in names if name.startswith("*."))

    @lru_cache(maxsize=1024)
    def check(host: str) -> bool:
        name = _without_port(host.lower())
        if name == "localhost" or name.endswith(".localhost") or "*" in names or name in names:
            return True
        if suffixes and name.endswith(suffixes):
            return True
        address = _address(name)
        return address is not None and address.is_loopback

    return check


def is_address(host: str) -> bool:
    """Whether a Host header is an address and no name."""
    return _address(_without_port(host)) is not None


def _address(name: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(name)
    except ValueError:
        return None


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


class Cors:
    """Which pages of other origins may read our answers: those of ``origins``, and our own."""

    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = frozenset(origin.rstrip("/") for origin in origins)

    def headers(self, exchange: Exchange, origin: str) -> Headers:
        """What to add to the response for a page of ``origin``."""
        if origin not in self._origins and origin.partition("://")[2] != exchange.host:
            return (("vary", "Origin"),)
        return (
            ("vary", "Origin"),
            ("access-control-allow-origin", origin),
            ("access-control-allow-credentials", "true"),
            ("access-control-expose-headers", _EXPOSED),
        )

    @staticmethod
    def preflight(granted: Headers) -> Headers:
        """What a preflight gets beside ``granted``, the reply's headers so far."""
        if "access-control-allow-origin" not in dict(granted):
            return ()
        return (
            ("access-control-allow-methods", "GET, POST, PUT, DELETE, OPTIONS"),
            ("access-control-allow-headers", _ALLOWED),
            ("access-control-max-age", _PREFLIGHT_SECONDS),
        )


class Router:
    """Routes by path, then method."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._exact: dict[str, dict[str, Route]] = {}
        self._patterns: dict[str, tuple[re.Pattern[str], dict[str, Route]]] = {}
        for route in routes:
            if "{" in route.path:
                _, methods = self._patterns.setdefault(route.path, (_pattern(route.path), {}))
            else:
                methods = self._exact.setdefault(route.path, {})
            if route.method in methods:
                raise ValueError(f"two routes answer {route.method} {route.path}")
            methods[route.method] = route

    def find(self, path: str) -> tuple[dict[str, Route], dict[str, str]] | None:
        """The routes at ``path`` (percent-decoded) by method, and what its placeholders match."""
        if (exact := self._exact.get(path)) is not None:
            return exact, {}
        for pattern, methods in self._patterns.values():
            if (match := pattern.fullmatch(path)) is not None:
                return methods, match.groupdict()
        return None


def _pattern(path: str) -> re.Pattern[str]:
    parts: list[str] = []
    end = 0
    for match in _PLACEHOLDER.finditer(path):
        parts += [re.escape(path[end : match.start()]), f"(?P<{match[1]}>{match[2] or '[^/]+'})"]
        end = match.end()
    return re.compile("".join((*parts, re.escape(path[end:]))), re.DOTALL)


class _Body:
    """A request's body as the iterator that routes take."""

    def __init__(self, exchange: Exchange) -> None:
        self._receive = exchange.receive

    def __aiter__(self) -> _Body:
        return self

    async def __anext__(self) -> bytes:
        if chunk := await self._receive():
            return chunk
        raise StopAsyncIteration


def request(exchange: Exchange, path: str, match: dict[str, str]) -> Request:
    """``exchange`` as a route's handler sees it; ``path`` is percent-decoded."""
    return Request(
        method=exchange.method,
        path=path,
        query=dict(parse_qsl(exchange.query, keep_blank_values=True)),
        headers=exchange.headers,
        body=_Body(exchange),
        base_url=exchange.base_url,
        match=match,
    )


def decoded(path: str) -> str:
    return unquote(path) if "%" in path else path
