"""The client of webhooks: somebody else's HTTP, which is not trusted to answer, and is told nothing twice if it said yes."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp
from yarl import URL

from flyte_unified.core.errors import FailedPrecondition, Unavailable
from flyte_unified.net.reasons import reason

_LATER = frozenset({408, 425, 429})
"""Client errors that another try may mend, as all server errors"""
_LONGEST = 3600.0
"""Seconds that a receiver may put us off at once"""


class Later(Unavailable):
    """Another try may help, after ``seconds`` at the earliest."""

    def __init__(self, message: str, *, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request. Whoever prints it sees nothing of what may be secret."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes = b""

    def __repr__(self) -> str:
        return f"Call({self.method})"


class Webhooks:
    """``timeout`` in seconds. ``hosts`` are those that may be called (``*.example.com``: all below it); none: any.

    No redirect is followed, which could lead elsewhere. Errors name the host, and nothing else of the address.
    """

    def __init__(self, *, timeout: float, hosts: Collection[str] = ()) -> None:
        self._timeout = timeout
        self._hosts = frozenset(host.lower() for host in hosts)
        self._session: aiohttp.ClientSession | None = None

    async def send(self, call: Call) -> None:
        """Raises Unavailable or Later when another try may help, FailedPrecondition when it won't."""
        try:
            url = URL(call.url)
            host = url.host or ""
        except ValueError:
            raise FailedPrecondition("the address is none") from None
        if url.scheme not in ("http", "https") or not host:
            raise FailedPrecondition("the address is none of http:// or https://")
        if self._hosts and not self._allowed(host):
            raise FailedPrecondition(f"notifications.hosts does not allow {host}")
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._open().request(
                    call.method, url, headers=call.headers, data=call.body or None, allow_redirects=False
                ) as response,
            ):
                status, later = response.status, response.headers.get("Retry-After", "")
        except TimeoutError:
            raise Unavailable(f"{host} did not answer within {self._timeout:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unavailable(f"{host} could not be called: {reason(error)}") from None
        if status >= 500 or status in _LATER:
            raise Later(f"{host} answered {status}", seconds=_seconds(later))
        if status >= 300:
            raise FailedPrecondition(f"{host} answered {status}")

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        return self._session

    def _allowed(self, host: str) -> bool:
        _, *above = host.lower().split(".")
        parents = (".".join(above[at:]) for at in range(len(above)))
        return host.lower() in self._hosts or any(f"*.{parent}" in self._hosts for parent in parents)


def _seconds(retry_after: str) -> float:
    """As many as the header asks for, in seconds or as a time; none where it says neither (RFC 9110, 10.2.3)."""
    if retry_after.isdecimal():
        return min(float(retry_after), _LONGEST)
    try:
        wait = (parsedate_to_datetime(retry_after).astimezone(UTC) - datetime.now(UTC)).total_seconds()
    except (ValueError, OverflowError):
        return 0.0
    return max(0.0, min(wait, _LONGEST))
