"""A URL of S3's that lets whoever has it send one request: AWS Signature Version 4 in the query.

Ours, because the libraries sign ``Host`` alone. With ``Content-MD5`` among the signed headers a URL is good for one content:
without the header, or with another one, the signature is wrong, and a body that differs from it is refused by the store.

Source: AWS, "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)".
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

from flyte_unified.core.clock import SECOND, Micros

LONGEST = 7 * 24 * 3600
"""Seconds that S3 lets a URL live. One signed with temporary credentials ends with them."""

_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class Keys:
    """Who signs. ``token`` belongs to temporary credentials."""

    access: str
    secret: str = field(repr=False)
    token: str = field(default="", repr=False)


def presigned(
    method: str,
    url: str,
    *,
    keys: Keys,
    region: str,
    expires: int,
    now: Micros,
    headers: Mapping[str, str] | None = None,
    query: Mapping[str, str] | None = None,
) -> str:
    """``url`` (without a query, its path quoted) signed for ``expires`` seconds from ``now``.

    Whoever uses it must send ``headers`` as they are. ``query`` is what else the request asks for.
    """
    parts = urlsplit(url)
    date = datetime.fromtimestamp(now // SECOND, UTC).strftime("%Y%m%dT%H%M%SZ")
    scope = (date[:8], region, "s3", "aws4_request")
    signed = {"host": parts.netloc, **{name.lower(): value.strip() for name, value in (headers or {}).items()}}
    names = ";".join(sorted(signed))
    asked = {
        **(query or {}),
        "X-Amz-Algorithm": _ALGORITHM,
        "X-Amz-Credential": "/".join((keys.access, *scope)),
        "X-Amz-Date": date,
        "X-Amz-Expires": str(expires),
        "X-Amz-SignedHeaders": names,
        **({"X-Amz-Security-Token": keys.token} if keys.token else {}),
    }
    told = "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in sorted(asked.items()))
    lines = [f"{name}:{signed[name]}" for name in sorted(signed)]
    request = "\n".join((method, parts.path, told, *lines, "", names, "UNSIGNED-PAYLOAD"))
    digest = hashlib.sha256(request.encode()).hexdigest()
    key = f"AWS4{keys.secret}".encode()
    for part in (*scope, "\n".join((_ALGORITHM, date, "/".join(scope), digest))):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return f"{url}?{told}&X-Amz-Signature={key.hex()}"


def _quoted(text: str) -> str:
    return quote(text, safe="")
