"""Who a caller is, where nobody has to sign in: the person who runs the server."""

from __future__ import annotations

import getpass
import os
from dataclasses import dataclass

from flyteidl2.common import identifier_pb2, identity_pb2

from flyte_unified.core.context import CallContext


@dataclass(frozen=True, slots=True)
class Person:
    """``subject`` is never empty: clients filter by it."""

    subject: str
    name: str
    email: str = ""


class Identities:
    """``name`` and ``email`` describe the server's owner; without a name it is the login name of the server's user."""

    def __init__(self, *, name: str = "", email: str = "") -> None:
        login = _login()
        self.owner = Person(login, name or login, email)

    def of(self, ctx: CallContext) -> Person:
        """The caller; the owner where the call names nobody."""
        return self.person(ctx.identity.subject)

    def person(self, subject: str) -> Person:
        """What is known of ``subject``."""
        return self.owner if subject in ("", self.owner.subject) else Person(subject, subject)

    def enriched(self, subject: str) -> identity_pb2.EnrichedIdentity:
        """``subject`` as replies show it."""
        person = self.person(subject)
        return identity_pb2.EnrichedIdentity(
            user=identity_pb2.User(
                id=identifier_pb2.UserIdentifier(subject=person.subject),
                spec=identity_pb2.UserSpec(first_name=person.name, email=person.email, user_handle=person.subject),
            )
        )


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container may run as a user without a name
        return f"uid-{os.getuid()}"
