"""How values are kept at rest: AES-256-GCM, each bound to the secret that it is of, so that rows can't be exchanged.

The key is derived (HKDF, RFC 5869) from the server's, which stands in a file of mode 0600 beside the database or in a setting:
who has the database alone, or a backup of it, has no secret. ``cryptography`` takes 40 ms to import, and so waits for a secret.
"""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING

from flyte_unified.core.errors import FailedPrecondition
from flyte_unified.secrets.model import SecretId

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_PURPOSE = b"flyte-unified secrets, AES-256-GCM"
_NONCE = 12
"""Random, as few values are ever sealed with one key (NIST SP 800-38D allows 2**32)."""


class Cipher:
    """``key`` is the server's secret key, from which this one's is derived."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def seal(self, key: SecretId, value: bytes) -> bytes:
        """What may be stored: the nonce, then the encrypted value with its tag."""
        nonce = os.urandom(_NONCE)
        return nonce + self._aead.encrypt(nonce, value, _bound(key))

    def open(self, key: SecretId, sealed: bytes) -> bytes:
        """The value. Raises FailedPrecondition where it was sealed with another key, or altered."""
        from cryptography.exceptions import InvalidTag

        try:
            return self._aead.decrypt(sealed[:_NONCE], sealed[_NONCE:], _bound(key))
        except (InvalidTag, ValueError):
            raise FailedPrecondition(
                f"secret {key.name!r} of {key.scope} can't be read: the server's key is another than the one it was stored "
                "with (`key` in the data directory, or server.key); delete the secret and create it again"
            ) from None

    @cached_property
    def _aead(self) -> AESGCM:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        return AESGCM(HKDF(algorithm=SHA256(), length=32, salt=None, info=_PURPOSE).derive(self._key))


def _bound(key: SecretId) -> bytes:
    return "/".join(key).encode()
