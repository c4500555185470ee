"""A run's token: what tells the calls of its tasks from anybody else's.

It stands in the path of the address that a task is given, because the SDK sends no header of its own to an insecure endpoint.
Stateless: the run's key and its keyed hash, so that it outlives a restart and needs no look-up.
"""

from __future__ import annotations

import base64
import getpass
import hashlib
import hmac
from functools import lru_cache

from flyte_unified.core.context import Headers, Identity
from flyte_unified.core.errors import PermissionDenied
from flyte_unified.core.ids import RunKey

_HASH_BYTES = 16
_REMEMBERED = 512


class RunTokens:
    """``key`` is the server's secret; ``subject`` whom a call without a token is taken for."""

    def __init__(self, key: bytes, *, subject: str = "") -> None:
        self._key = hashlib.sha256(b"run token" + key).digest()
        self._subject = subject or getpass.getuser()
        self.token = lru_cache(_REMEMBERED)(self._token)
        """Of a run, fit for one segment of a path. Each of its children has it, and each of their calls brings it."""

    def _token(self, run: RunKey) -> str:
        text = ",".join(run).encode()
        return _encode(self._hash(text) + text)

    def identify(self, token: str | None, headers: Headers) -> Identity:
        """Who calls. Raises PermissionDenied on a token that this server did not give."""
        if token is None:
            return Identity(subject=self._subject)
        try:
            raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
            run = RunKey._make(raw[_HASH_BYTES:].decode().split(","))
        except (ValueError, TypeError) as error:
            raise PermissionDenied("the run token in the path is malformed") from error
        # Compared as text: Python's decoder passes over characters that are none of base64's.
        if not hmac.compare_digest(token.encode(), self.token(run).encode()):
            raise PermissionDenied("the run token in the path is not one of this server")
        return Identity(subject=self._subject, run=run)

    def _hash(self, text: bytes) -> bytes:
        return hmac.new(self._key, text, hashlib.sha256).digest()[:_HASH_BYTES]


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
