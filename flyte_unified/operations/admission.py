"""Who may operate a server: whoever can read its key.

On a laptop the API has no sign-in, and whoever reaches it can run code as its owner: there every call is admitted, as long as
the server listens on loopback and goes by no other name, so that no proxy brings others. Everywhere else a call bears a token
that is derived from the key, which ``flyte-unified`` makes from the key in the settings or in the data directory. A task is
never an operator.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

from flyte_unified.core.context import CallContext
from flyte_unified.core.errors import PermissionDenied
from flyte_unified.settings import LOOPBACK, Settings

_SCHEME = "Bearer "


def token(key: bytes) -> str:
    """What shows that its bearer has ``key``."""
    digest = hmac.new(hashlib.sha256(b"operator token" + key).digest(), b"v1", hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def headers(key: bytes) -> dict[str, str]:
    """What an operator's call says beside its message."""
    return {"authorization": _SCHEME + token(key)}


class Admission:
    """``key`` is the server's."""

    def __init__(self, settings: Settings, *, key: bytes) -> None:
        server = settings.server
        self._open = server.host in LOOPBACK and not server.key and not settings.hosts
        self._token = _SCHEME + token(key)

    def check(self, ctx: CallContext) -> None:
        """Raises PermissionDenied."""
        told = ctx.header("authorization")
        if told.startswith(_SCHEME):
            if not hmac.compare_digest(told.encode(), self._token.encode()):
                raise PermissionDenied("the operator token is not made from this server's key")
        elif not self._open:
            raise PermissionDenied(
                "only an operator may do this: flyte-unified finds the server's key in the data directory (--data-dir), "
                "or in the setting server.key"
            )
        if ctx.identity.run is not None:
            raise PermissionDenied("a task may not do this")
