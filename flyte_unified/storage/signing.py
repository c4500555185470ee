"""Signed URLs of the local store: a grant to do one thing, carried by the URL itself.

The signature covers everything that the grant says, as the very text that stands in the URL, so no two URLs mean the same.
Nothing is kept on the server: a URL works after a restart, and ends with its expiry or with the key file.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, urlencode

from flyte_unified.core.clock import SECOND, Micros
from flyte_unified.core.errors import FailedPrecondition, PermissionDenied

PREFIX = "/data/"
_KEY_BYTES = 32
_FIELDS = ("method", "expires", "md5", "max", "replace")


@dataclass(frozen=True, slots=True)
class Grant:
    """What a URL allows: ``method`` on ``key`` until ``expires`` (seconds since the epoch).

    For a PUT also the content: ``md5`` in hexadecimal, at most ``max_length`` bytes, and whether it may take the place of
    other content.
    """

    method: str
    key: str
    expires: int
    md5: str = ""
    max_length: int = 0
    replace: bool = False

    def query(self) -> dict[str, str]:
        """The grant as the URL tells it, the key apart."""
        return {
            "method": self.method,
            "expires": str(self.expires),
            "md5": self.md5,
            "max": str(self.max_length),
            "replace": str(int(self.replace)),
        }


class Signer:
    """Makes and reads signed URLs with one secret key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def url(self, grant: Grant, base_url: str) -> str:
        """The URL under ``base_url`` (scheme and authority) that carries ``grant``."""
        query = grant.query()
        query["signature"] = self._signature(grant.key, query)
        return f"{base_url.rstrip('/')}{PREFIX}{quote(grant.key, safe='/')}?{urlencode(query)}"

    def grant(self, key: str, query: Mapping[str, str], now: Micros) -> Grant:
        """The grant in a URL's path and query. Raises PermissionDenied if they were altered or have expired."""
        told = {name: query.get(name, "") for name in _FIELDS}
        signature = query.get("signature", "")
        if not hmac.compare_digest(signature.encode(errors="replace"), self._signature(key, told).encode()):
            raise PermissionDenied("the signature does not match this URL: it was altered, or the server's key was replaced")
        grant = Grant(
            method=told["method"],
            key=key,
            expires=int(told["expires"]),
            md5=told["md5"],
            max_length=int(told["max"]),
            replace=told["replace"] == "1",
        )
        if now >= grant.expires * SECOND:
            raise PermissionDenied(f"Request has expired: this URL was valid until {_utc(grant.expires)}; ask for a new one")
        return grant

    def _signature(self, key: str, query: Mapping[str, str]) -> str:
        told = json.dumps([key, *(query[name] for name in _FIELDS)]).encode()
        return hmac.new(self._key, told, hashlib.sha256).hexdigest()


def load_key(path: Path) -> bytes:
    """The key in ``path``, made with mode 0600 if there is none; two servers that start together end with the same one."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".key-")
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(temporary, path)
        Path(temporary).unlink()
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise FailedPrecondition(
            f"{path} is no signing key: {len(key)} bytes instead of {_KEY_BYTES}; remove it and start again"
        )
    path.chmod(0o600)
    return key


def read_key(text: str) -> bytes:
    """The key that a setting holds in base64. Raises FailedPrecondition."""
    try:
        key = base64.b64decode(text, validate=True)
    except ValueError:
        key = b""
    if len(key) < _KEY_BYTES:
        raise FailedPrecondition(
            f"server.key: {_KEY_BYTES} bytes or more in base64 are expected, as from: openssl rand -base64 32"
        )
    return key


def _utc(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
