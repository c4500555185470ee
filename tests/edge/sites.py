"""Sites for the relay's tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from flyte_unified.core.errors import NotFound
from flyte_unified.core.sites import Site, Upstream


class Program:
    """A site whose program listens on ``port``."""

    def __init__(self, port: int, *, http2: bool = False, patience: float = 20.0, authority: str = "") -> None:
        self._upstream = Upstream(host="127.0.0.1", port=port, http2=http2, patience=patience, authority=authority)
        self.visitors = 0
        self.left = asyncio.Event()

    @asynccontextmanager
    async def visit(self) -> AsyncIterator[Upstream]:
        self.visitors += 1
        try:
            yield self._upstream
        finally:
            self.visitors -= 1
            self.left.set()


class Refusing:
    def __init__(self, error: Exception) -> None:
        self._error = error

    @asynccontextmanager
    async def visit(self) -> AsyncIterator[Upstream]:
        raise self._error
        yield


class Programs:
    """By the first label of a host below ``localhost``."""

    def __init__(self, **sites: Site) -> None:
        self._sites = sites

    def at(self, host: str) -> Site | None:
        label, dot, rest = host.partition(".")
        if not dot or not rest.startswith("localhost"):
            return None
        return self._sites.get(label) or Refusing(NotFound(f"there is no app {label!r}"))

    def below(self, path: str) -> tuple[Site, str] | None:
        if not path.startswith("/apps/"):
            return None
        label, _, rest = path[len("/apps/") :].partition("/")
        return self._sites[label], f"/{rest}"
