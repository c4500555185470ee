"""What an API server refuses, and what keeps us from reaching it, as one family of errors.

The classes say what a caller can do about it. They are made in one place from the answer's status and the Status object in
its body (https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/), whose reason tells apart what shares
a number: a name that is taken and a write that lost are both 409.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from flyte_unified.core.errors import Code, FlyteUnifiedError

_TEXT = 500
"""Characters of an answer that is no Status which a message shows."""
_NOT_OF_THE_KIND = "failed to create typed patch object"
"""Of what is applied, and has a field or a type that its kind does not: the answer is 500, as if asking again could help."""

_RIGHT = re.compile(
    r'cannot (?P<verb>\w+) resource "(?P<resource>[^"]+)" in API group "(?P<group>[^"]*)"'
    r'( in the namespace "(?P<namespace>[^"]+)")?'
)


class KubeError(FlyteUnifiedError):
    """An API server refused a request.

    ``status`` is HTTP's number, 0 where there was no answer. ``reason`` is the Status' word, empty where the body was none.
    ``about`` are the Status' details (``name``, ``kind``, ``causes``). ``retry_after`` is in seconds.
    """

    code = Code.INTERNAL

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        reason: str = "",
        retry_after: float | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after
        self.about = about or {}


class Missing(KubeError):
    """There is no such object, namespace or kind (404)."""

    code = Code.NOT_FOUND

    @property
    def is_kind(self) -> bool:
        """Whether it is the kind that nobody serves, as before its CRD was created. Otherwise an object is named."""
        return not self.about.get("name")


class Exists(KubeError):
    """The name is taken (409, AlreadyExists)."""

    code = Code.ALREADY_EXISTS


class Conflict(KubeError):
    """The object is not, or no longer, the one that the write was meant for: its version or its uid differs (409)."""

    code = Code.ABORTED


class Gone(KubeError):
    """The version or the page to go on from is too old (410): list again."""

    code = Code.OUT_OF_RANGE


class Forbidden(KubeError):
    """We may not (403: rights, a quota, an admission policy), or the server does not know us (401)."""

    code = Code.PERMISSION_DENIED

    @property
    def right(self) -> str:
        """What the account may not do, as ``list pods in the namespace flyte``; empty where that is not the reason."""
        if (found := _RIGHT.search(self.message)) is None:
            return ""
        group = f".{found['group']}" if found["group"] else ""
        where = f" in the namespace {found['namespace']}" if found["namespace"] else ""
        return f"{found['verb']} {found['resource']}{group}{where}"


class Invalid(KubeError):
    """The object or the request is wrong, whatever the state of the cluster (400, 413, 422)."""

    code = Code.INVALID_ARGUMENT


class Throttled(KubeError):
    """The server has too much to do (429); ``retry_after`` says how long to wait, if it told."""

    code = Code.RESOURCE_EXHAUSTED


class Away(KubeError):
    """No answer, or none that says whether the request was carried out: connection, timeout, 5xx. A write may have happened."""

    code = Code.UNAVAILABLE


class Silent(Away):
    """Connected, but nothing came for too long: nobody can tell whether there is still somebody."""


class Unconfigured(KubeError):
    """There is no configuration by which to find a cluster, or it cannot be read."""

    code = Code.FAILED_PRECONDITION


_BY_STATUS: Mapping[int, type[KubeError]] = {
    400: Invalid,
    401: Forbidden,
    403: Forbidden,
    404: Missing,
    409: Conflict,
    410: Gone,
    413: Invalid,
    422: Invalid,
    429: Throttled,
}


def refused(doing: str, status: int, body: bytes, *, retry_after: str = "") -> KubeError:
    """The error for an HTTP answer: ``doing`` is what was asked (verb, kind, object), ``retry_after`` the header."""
    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError:
        told = None
    if not (isinstance(told, dict) and told.get("kind") == "Status"):
        told = {"message": body.decode(errors="replace").strip()[:_TEXT]}
    return from_status(doing, told, status=status, retry_after=_seconds(retry_after))


def from_status(doing: str, told: Mapping[str, Any], *, status: int = 0, retry_after: float | None = None) -> KubeError:
    """The error for a Status object, as a watch carries it too."""
    status = status or int(told.get("code") or 0)
    reason = told.get("reason") or ""
    about = told.get("details") or {}
    if retry_after is None and "retryAfterSeconds" in about:
        retry_after = float(about["retryAfterSeconds"])
    words = " ".join(str(word) for word in (status, reason) if word)
    message = f"{doing}: {words}: {told.get('message') or 'the server did not say why'}"
    return _class(status, reason, message)(message, status=status, reason=reason, retry_after=retry_after, about=about)


def _class(status: int, reason: str, message: str) -> type[KubeError]:
    if reason == "AlreadyExists":
        return Exists
    if reason in {"Expired", "Gone"}:
        return Gone
    if _NOT_OF_THE_KIND in message:
        return Invalid
    return Away if status >= 500 else _BY_STATUS.get(status, KubeError)


def _seconds(header: str) -> float | None:
    """``Retry-After``; its other form, a date, is not Kubernetes'."""
    return float(header) if header.isdigit() else None
