"""A plain HTTP exchange as values, so that rooms can answer a URL without knowing the server under them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from flyte_unified.core.context import Headers


@dataclass(slots=True)
class Request:
    """One request. ``body`` yields the raw bytes as they arrive; it can be read once."""

    method: str
    path: str
    """Percent-decoded, without the query."""
    query: Mapping[str, str]
    headers: Headers
    body: AsyncIterator[bytes]
    base_url: str = ""
    """Scheme and authority that the caller used."""
    match: Mapping[str, str] = field(default_factory=dict)
    """The route's ``{placeholders}``."""

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key == name), "")


@dataclass(slots=True)
class Response:
    """The answer. A ``bytes`` body goes out whole; an iterator is streamed, each item flushed."""

    status: int = 200
    headers: Headers = ()
    body: bytes | AsyncIterator[bytes] = b""


@dataclass(frozen=True, slots=True)
class Route:
    """``path`` as in ``/data/{key:.*}``: a placeholder matches one segment, or what its expression says."""

    method: str
    path: str
    handler: Callable[[Request], Awaitable[Response]]
