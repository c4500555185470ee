"""Which headers go on, and which are between two neighbours only (RFC 9110, 7.6.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from flyte_unified.core.context import Headers
from flyte_unified.core.sites import Upstream
from flyte_unified.rpc.exchange import Exchange

_HOP_BY_HOP = frozenset(
    {
        "connection",
        "expect",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_FOR = "x-forwarded-for"
_COOKIE_DOMAIN = re.compile(r";\s*domain=[^;]*", re.IGNORECASE)


def wants_websocket(exchange: Exchange) -> bool:
    """Whether the client asks for another protocol on its connection."""
    return (
        exchange.http_version == "1.1"
        and exchange.header("upgrade").lower() == "websocket"
        and "upgrade" in _options(exchange.headers)
    )


def is_grpc(exchange: Exchange) -> bool:
    content_type = exchange.header("content-type")
    return content_type == "application/grpc" or content_type.startswith(("application/grpc+", "application/grpc;"))


def onward(exchange: Exchange, upstream: Upstream) -> list[tuple[str, str]]:
    """The request's headers for the program, which has to know by what name it was called: its own Host comes first.

    What proxies say goes for us, not for the client, which may only have come to us through others.
    """
    hops = [value for name, value in exchange.headers if name == _FOR]
    told = [
        (_FOR, ", ".join(filter(None, (*hops, exchange.peer)))),
        ("x-forwarded-host", exchange.host),
        ("x-forwarded-proto", "https" if exchange.header("x-forwarded-proto") == "https" else "http"),
    ]
    # Programs that are told by CGI's rules, as WSGI's are, see no difference between the two letters.
    ours = {"host", *(name for name, _ in told)}
    kept = [pair for pair in _end_to_end(exchange.headers) if pair[0].replace("_", "-") not in ours]
    return [("host", upstream.authority or exchange.host), *kept, *told]


def back(headers: Headers) -> Headers:
    """The answer's headers for the client. A cookie is for the program's own host, whatever it says: others are near."""
    if any(name.lower() == "transfer-encoding" for name, _ in headers):  # which goes before a length (RFC 9112, 6.3)
        headers = tuple([pair for pair in headers if pair[0].lower() != "content-length"])
    return tuple(
        [
            (name, _COOKIE_DOMAIN.sub("", value) if name.lower() == "set-cookie" else value)
            for name, value in _end_to_end(headers)
        ]
    )


def _end_to_end(headers: Headers) -> Iterable[tuple[str, str]]:
    dropped = _HOP_BY_HOP | _options(headers)
    return (pair for pair in headers if pair[0].lower() not in dropped)


def _options(headers: Headers) -> set[str]:
    """What a Connection header names."""
    return {option.strip().lower() for name, value in headers if name.lower() == "connection" for option in value.split(",")}
