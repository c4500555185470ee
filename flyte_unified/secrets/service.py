"""Secrets: what may be called how, and what is said when it can't be.

A value goes in and never comes out by a call: no answer holds it, none tells whether a guess is right, so creating the same
secret twice is refused even with the same value.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from flyteidl2.common import list_pb2
from flyteidl2.secret import definition_pb2

from flyte_unified.core.clock import Clock
from flyte_unified.core.errors import AlreadyExists, InvalidArgument, NotFound
from flyte_unified.core.filters import TEXT
from flyte_unified.core.ids import scope_part
from flyte_unified.core.paging import listing
from flyte_unified.secrets.model import Sealed, Secret, SecretId, SecretKind, Vault

MAX_BYTES = 1 << 20
"""Of one value; what Kubernetes takes."""

_NAME = re.compile(r"[-a-zA-Z0-9_]{1,255}")
_MAX_LIMIT = 1000
_KEY = ("project", "domain", "name")


class Secrets:
    """``require_domain``, which is told the field, and ``require_project`` raise NotFound for what does not exist."""

    def __init__(
        self,
        *,
        vault: Vault,
        clock: Clock,
        require_domain: Callable[[str, str], Awaitable[None]],
        require_project: Callable[[str, str], Awaitable[None]],
    ) -> None:
        self._vault = vault
        self._clock = clock
        self._require_domain = require_domain
        self._require_project = require_project

    async def create(self, wanted: definition_pb2.SecretIdentifier, spec: definition_pb2.SecretSpec) -> None:
        """Raises AlreadyExists; NotFound for the scope; InvalidArgument naming the field."""
        new = self._sealed(wanted, spec)
        await self._require(new.secret.id)
        if not await self._vault.add(new):
            raise AlreadyExists(
                f"id.name: there is a secret {new.secret.id.name!r} of {new.secret.id.scope} already; delete it to give it "
                f"another value: {_command('delete', new.secret.id)}"
            )

    async def update(self, wanted: definition_pb2.SecretIdentifier, spec: definition_pb2.SecretSpec) -> None:
        """Tasks that start from now on get the new value. Raises NotFound; InvalidArgument naming the field."""
        new = self._sealed(wanted, spec)
        if not await self._vault.change(new):
            raise _unknown(new.secret.id)

    async def get(self, wanted: definition_pb2.SecretIdentifier) -> Secret:
        """The one of exactly that scope. Raises NotFound; InvalidArgument naming the field."""
        key = _key(wanted)
        found = await self._vault.get(key)
        if found is None:
            raise _unknown(key)
        return found

    async def delete(self, wanted: definition_pb2.SecretIdentifier) -> None:
        """Raises NotFound; InvalidArgument naming the field."""
        key = _key(wanted)
        if not await self._vault.remove(key):
            raise _unknown(key)

    async def page(self, *, project: str, domain: str, limit: int, token: str) -> tuple[list[Secret], str]:
        """Those of a scope and of the narrower ones within it, and the token of the next page. Raises InvalidArgument."""
        _scope(project, domain, field="")
        asked = listing(
            list_pb2.ListRequest(limit=min(max(limit, 0), _MAX_LIMIT), token=token),
            lambda field: TEXT if field in _KEY else None,
            default=[],
            key=_KEY,
            scope=(project, domain),
            max_limit=_MAX_LIMIT,
        )
        return await self._vault.page(asked, project=project, domain=domain)

    async def users(self, domain: str) -> list[str]:
        """What keeps a domain from being deleted."""
        found, _ = await self.page(project="", domain=domain, limit=1, token="")
        return [f"secrets of project {found[0].id.project!r}" if found[0].id.project else "secrets"] if found else []

    async def _require(self, key: SecretId) -> None:
        if key.project:
            await self._require_project(key.project, key.domain)
        elif key.domain:
            await self._require_domain(key.domain, "id.domain")

    def _sealed(self, wanted: definition_pb2.SecretIdentifier, spec: definition_pb2.SecretSpec) -> Sealed:
        key = _key(wanted)
        held = spec.WhichOneof("value")
        if held is None:
            raise InvalidArgument("secret_spec.value: one of string_value and binary_value must be set")
        value = spec.string_value.encode() if held == "string_value" else spec.binary_value
        if len(value) > MAX_BYTES:
            raise InvalidArgument(f"secret_spec.{held} has {len(value)} bytes; at most {MAX_BYTES} are allowed")
        try:
            kind = SecretKind(spec.type)
        except ValueError:
            raise InvalidArgument(f"secret_spec.type: there is no type {spec.type}") from None
        return Sealed(secret=Secret(id=key, kind=kind, created_at=self._clock.now()), value=value)


def missing(key: SecretId) -> NotFound:
    """What a task's author is told of a secret that no scope has."""
    return NotFound(
        f"there is no secret {key.name!r} for project {key.project!r}, domain {key.domain!r}, nor for the domain or every "
        f"project; create it, then run the task again: {_command('create', key)}"
    )


def _unknown(key: SecretId) -> NotFound:
    return NotFound(f"there is no secret {key.name!r} of {key.scope}; {_command('create', key)} makes one")


def _command(verb: str, key: SecretId) -> str:
    options = (f" --project {key.project}" if key.project else "") + (f" --domain {key.domain}" if key.domain else "")
    return f"`flyte {verb} secret {key.name}{options}`"


def _key(wanted: definition_pb2.SecretIdentifier) -> SecretId:
    if not wanted.name:
        raise InvalidArgument("id.name is empty")
    if not _NAME.fullmatch(wanted.name):
        raise InvalidArgument(f"id.name: {wanted.name[:64]!r} may hold letters, digits, '-' and '_', 255 at most")
    _scope(wanted.project, wanted.domain, field="id.")
    return SecretId(wanted.project, wanted.domain, wanted.name)


def _scope(project: str, domain: str, *, field: str) -> None:
    if project and not domain:
        raise InvalidArgument(f"{field}domain is empty: a project's secrets belong to one of its domains")
    if domain:
        scope_part(domain, field=f"{field}domain")
    if project:
        scope_part(project, field=f"{field}project")
