"""Google's object store as a process: moto's S3 behind what Google's XML API has of its own.

    python -m tests.google_storage PUBLIC_KEY.pem

That API is S3's but for who may and for its conditions (moto has the rest: parts, listings, ranges). So this checks what Google
checks, tokens and signed URLs by the account's key, and digests, and hands on what passes. fake-gcs-server does not do: it
stores nothing through the XML API, which is obstore's only one.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

Environ = dict[str, Any]


class GoogleStorage:
    """A WSGI application before another one."""

    def __init__(self, store: Callable[[Environ, Any], Iterable[bytes]], key: RSAPublicKey) -> None:
        self._store = store
        self._key = key

    def __call__(self, environ: Environ, start: Any) -> Iterable[bytes]:
        makes_bucket = environ["REQUEST_METHOD"] == "PUT" and environ["PATH_INFO"].count("/") == 1
        if not (makes_bucket or self._signed(environ) or self._has_token(environ)):
            return _refusal(start, "403 Forbidden", "SignatureDoesNotMatch")
        if "HTTP_CONTENT_MD5" in environ:
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            if base64.b64encode(hashlib.md5(body).digest()).decode() != environ["HTTP_CONTENT_MD5"]:
                return _refusal(start, "400 Bad Request", "BadDigest")
            environ["wsgi.input"] = BytesIO(body)
        if environ.get("HTTP_X_GOOG_IF_GENERATION_MATCH") == "0":
            environ["HTTP_IF_NONE_MATCH"] = "*"
        return self._store(environ, start)

    def _has_token(self, environ: Environ) -> bool:
        """Of a service account that signs its tokens itself."""
        signed, _, signature = environ.get("HTTP_AUTHORIZATION", "").removeprefix("Bearer ").rpartition(".")
        if not signed or not self._verified(_unpadded(signature), signed):
            return False
        claims = json.loads(_unpadded(signed.partition(".")[2]))
        return bool(claims["exp"] > datetime.now(UTC).timestamp())

    def _signed(self, environ: Environ) -> bool:
        """https://cloud.google.com/storage/docs/authentication/canonical-requests; takes off what it verified."""
        query = dict(parse_qsl(environ["QUERY_STRING"], keep_blank_values=True))
        signature = query.pop("X-Goog-Signature", "")
        if query.get("X-Goog-Algorithm") != "GOOG4-RSA-SHA256":
            return False
        names = query["X-Goog-SignedHeaders"].split(";")
        headers = {**environ, "HTTP_HOST": "storage.googleapis.com"}  # obstore signs for Google's, wherever a URL leads
        request = "\n".join(
            (
                environ["REQUEST_METHOD"],
                environ["REQUEST_URI"].partition("?")[0],
                urlencode(sorted(query.items()), quote_via=quote, safe="-_.~"),
                *(f"{name}:{headers['HTTP_' + name.upper().replace('-', '_')].strip()}" for name in names),
                "",
                ";".join(names),
                "UNSIGNED-PAYLOAD",
            )
        )
        scope = query["X-Goog-Credential"].partition("/")[2]
        digest = hashlib.sha256(request.encode()).hexdigest()
        if not self._verified(bytes.fromhex(signature), f"GOOG4-RSA-SHA256\n{query['X-Goog-Date']}\n{scope}\n{digest}"):
            return False
        rest = {name: value for name, value in query.items() if not name.startswith("X-Goog-")}
        environ.update(QUERY_STRING=urlencode(rest), HTTP_AUTHORIZATION="Bearer verified")  # moto reads nothing to strangers
        made = datetime.strptime(query["X-Goog-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        return datetime.now(UTC) < made + timedelta(seconds=int(query["X-Goog-Expires"]))

    def _verified(self, signature: bytes, text: str) -> bool:
        try:
            self._key.verify(signature, text.encode(), PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            return False
        return True


def _unpadded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _refusal(start: Any, status: str, code: str) -> Iterable[bytes]:
    start(status, [("Content-Type", "application/xml")])
    return [f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()]


if __name__ == "__main__":
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import run_simple

    public = load_pem_public_key(Path(sys.argv[1]).read_bytes())
    assert isinstance(public, RSAPublicKey)
    run_simple("127.0.0.1", 0, GoogleStorage(DomainDispatcherApplication(create_backend_app), public), threaded=True)  # type: ignore[arg-type]  # moto's is untyped
