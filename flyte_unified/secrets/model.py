"""What a secret is to those who may not know its value, and the port to where values are kept.

A secret belongs to every project, to a domain, or to a project in a domain; a task gets the one of the most specific scope.
Nothing that is read through the port holds a value: only an adapter knows it, for as long as it takes to hand it on.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from flyte_unified.core.clock import Micros
from flyte_unified.core.paging import Listing


class SecretId(NamedTuple):
    """``project`` is empty for one of a domain, ``domain`` too for one of every project."""

    project: str
    domain: str
    name: str

    @property
    def scope(self) -> str:
        """For people."""
        parts = (f"project {self.project!r}" if self.project else "", f"domain {self.domain!r}" if self.domain else "")
        return ", ".join(filter(None, parts)) or "every project"


class SecretKind(enum.IntEnum):
    """Numbers as in flyteidl2.secret.SecretType."""

    GENERIC = 0
    IMAGE_PULL = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """A secret without its value."""

    id: SecretId
    kind: SecretKind
    created_at: Micros


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A secret on its way in. ``value`` is never shown."""

    secret: Secret
    value: bytes = field(repr=False)


class Vault(Protocol):
    """Where secrets are kept. Each method can raise FailedPrecondition where this one can't keep secrets of such a scope."""

    async def add(self, new: Sealed) -> bool:
        """False when there is one of that id."""

    async def change(self, new: Sealed) -> bool:
        """Replaces value and kind. False when there is none of that id."""

    async def get(self, key: SecretId) -> Secret | None: ...

    async def remove(self, key: SecretId) -> bool:
        """False when there is none of that id."""

    async def page(self, listing: Listing, *, project: str, domain: str) -> tuple[list[Secret], str]:
        """Those of a scope and of the narrower ones within it, by id, and the token of the next page."""


def lookups(project: str, domain: str, name: str) -> tuple[SecretId, ...]:
    """What a task's secret may be, the most specific first."""
    return SecretId(project, domain, name), SecretId("", domain, name), SecretId("", "", name)
