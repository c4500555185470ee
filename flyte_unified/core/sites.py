"""Programs that are served under host names of their own, as the edge sees them: whoever runs them needs to know no HTTP."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """Where a program answers."""

    host: str
    port: int
    http2: bool = False
    """It speaks HTTP/2 alone, without TLS and without being asked first (h2c with prior knowledge)."""
    patience: float
    """Seconds that it may take to begin an answer."""
    authority: str = ""
    """The Host that it is asked by, where that is not what the visitor asked for."""


class Site(Protocol):
    """One program."""

    def visit(self) -> AbstractAsyncContextManager[Upstream]:
        """For as long as one request takes. May wait until it is there.

        Raises NotFound where there is no such program, else Unavailable, in words for the visitor.
        """


class Sites(Protocol):
    """All of them."""

    def at(self, host: str) -> Site | None:
        """What a Host header (with or without a port) names; None where that is the server's own."""

    def below(self, path: str) -> tuple[Site, str] | None:
        """What a path of the server's own host leads to, and the path there.

        For programs on machines where no name below ``localhost`` can be looked up: never for browsers, for which whatever has
        one host shares its secrets.
        """
