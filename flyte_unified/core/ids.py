"""Identities of runs and actions.

The organisation is no part of a key: clients guess it from the host name, so any value means the one tenant there is.
It is echoed by the handlers. Limits are the IDL's (flyteidl2/common/identifier.proto).
"""

from __future__ import annotations

import re
import secrets
from typing import NamedTuple

from flyteidl2.common import identifier_pb2

from flyte_unified.core.errors import InvalidArgument

ROOT_ACTION = "a0"
"""The name of every run's root action; the SDK's runtime relies on it."""

_MAX_SCOPE = 63
_MAX_NAME = 30
_MAX_PRINTABLE = 255
_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_NAME = re.compile(r"[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?")
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


class RunKey(NamedTuple):
    """One run. Unique within its project and domain."""

    project: str
    domain: str
    run: str

    def action(self, name: str) -> ActionKey:
        return ActionKey(self.project, self.domain, self.run, name)

    def idl(self, org: str = "") -> identifier_pb2.RunIdentifier:
        return identifier_pb2.RunIdentifier(org=org, project=self.project, domain=self.domain, name=self.run)

    def __str__(self) -> str:
        return f"{self.project}/{self.domain}/{self.run}"


class ActionKey(NamedTuple):
    """One action of a run. The same action name recurs in other runs: never use the name alone as a key."""

    project: str
    domain: str
    run: str
    name: str

    @property
    def run_key(self) -> RunKey:
        return RunKey(self.project, self.domain, self.run)

    def sibling(self, name: str) -> ActionKey:
        return ActionKey(self.project, self.domain, self.run, name)

    def idl(self, org: str = "") -> identifier_pb2.ActionIdentifier:
        return identifier_pb2.ActionIdentifier(run=self.run_key.idl(org), name=self.name)

    def __str__(self) -> str:
        return f"{self.project}/{self.domain}/{self.run}/{self.name}"


def run_key(message: identifier_pb2.RunIdentifier, *, field: str = "run_id") -> RunKey:
    """The key in ``message``. Raises InvalidArgument naming the part of ``field`` that is wrong."""
    return RunKey(
        scope_part(message.project, field=f"{field}.project"),
        scope_part(message.domain, field=f"{field}.domain"),
        _name(message.name, field=f"{field}.name"),
    )


def action_key(message: identifier_pb2.ActionIdentifier, *, field: str = "action_id") -> ActionKey:
    """The key in ``message``. Raises InvalidArgument naming the part of ``field`` that is wrong."""
    run = run_key(message.run, field=f"{field}.run")
    return run.action(_name(message.name, field=f"{field}.name"))


def scope_part(value: str, *, field: str) -> str:
    """A project's or a domain's name as it may stand in a key and in a path."""
    return _checked(value, field=field, limit=_MAX_SCOPE)


def printable(value: str, *, field: str, limit: int = _MAX_PRINTABLE, told: str = "it") -> str:
    """The name of a task, say, which may be of any script. Raises InvalidArgument naming ``field``."""
    if not value:
        raise InvalidArgument(f"{field} is empty")
    if len(value) > limit:
        raise InvalidArgument(f"{field} has {len(value)} characters; at most {limit} are allowed")
    if not value.isprintable():
        raise InvalidArgument(f"{field}: {value!r}: {told} may hold printable characters only")
    return value


def new_run_name() -> str:
    """A fresh run name: ``r`` and 19 random characters without vowels, as Flyte's own."""
    return "r" + "".join(secrets.choice(_ALPHABET) for _ in range(19))


def chosen_run_name(value: str, *, field: str = "run_id.name") -> str:
    """A run name chosen by the user: a DNS label (RFC 1035) of at most 30 characters."""
    if not value or len(value) > _MAX_NAME or not _LABEL.fullmatch(value):
        raise InvalidArgument(
            f"{field}: {value[:64]!r} is no run name: lower-case letters, digits and '-', "
            f"a letter first, at most {_MAX_NAME} characters"
        )
    return value


def _name(value: str, *, field: str) -> str:
    return _checked(value, field=field, limit=_MAX_NAME)


def _checked(value: str, *, field: str, limit: int) -> str:
    if not value:
        raise InvalidArgument(f"{field} is empty")
    if len(value) > limit:
        raise InvalidArgument(f"{field} has {len(value)} characters; at most {limit} are allowed")
    if not _NAME.fullmatch(value):
        raise InvalidArgument(f"{field}: {value!r} may hold letters, digits, '-', '_' and '.', a letter or digit at its ends")
    return value
