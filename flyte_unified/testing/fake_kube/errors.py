"""The errors of an API server: each becomes a ``Status`` object with the code, reason and details that clients look at.

The texts are Kubernetes' own where clients or people are known to match them (k8s.io/apimachinery/pkg/api/errors).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from flyte_unified.core.errors import FlyteUnifiedError

BUSY = "the server has received too many requests and has asked us to try again later"
MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


class Cause(NamedTuple):
    """Why a field is refused. ``reason`` is one of Kubernetes' CauseTypes, as ``FieldValueRequired``."""

    reason: str
    message: str
    field: str

    def text(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


def required(field: str, why: str = "") -> Cause:
    return Cause("FieldValueRequired", f"Required value{': ' + why if why else ''}", field)


def invalid_value(field: str, value: Any, why: str) -> Cause:
    return Cause("FieldValueInvalid", f"Invalid value: {_shown(value)}: {why}", field)


def forbidden_field(field: str, why: str) -> Cause:
    return Cause("FieldValueForbidden", f"Forbidden: {why}", field)


def duplicate(field: str, value: Any) -> Cause:
    return Cause("FieldValueDuplicate", f"Duplicate value: {_shown(value)}", field)


def unsupported(field: str, value: Any, allowed: Sequence[str]) -> Cause:
    choices = ", ".join(f'"{choice}"' for choice in allowed)
    return Cause("FieldValueNotSupported", f"Unsupported value: {_shown(value)}: supported values: {choices}", field)


def _shown(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else orjson.dumps(value).decode()


class ApiError(FlyteUnifiedError):
    """The API server refused the request."""

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.status_details = dict(details or {})
        self.headers = dict(headers or {})
        self.metadata = dict(metadata or {})

    def body(self) -> dict[str, Any]:
        """The ``Status`` object."""
        status: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": self.metadata, "status": "Failure"}
        status |= {"message": self.message, "reason": self.reason, "details": self.status_details, "code": self.status}
        return {key: value for key, value in status.items() if value or key == "metadata"}


def _of(group: str, plural: str, name: str) -> dict[str, Any]:
    return {key: value for key, value in (("name", name), ("group", group), ("kind", plural)) if value}


def qualified(group: str, plural: str) -> str:
    return f"{plural}.{group}" if group else plural


def not_found(group: str, plural: str, name: str) -> ApiError:
    message = f'{qualified(group, plural)} "{name}" not found'
    return ApiError(404, "NotFound", message, details=_of(group, plural, name))


def no_resource() -> ApiError:
    return ApiError(404, "NotFound", "the server could not find the requested resource")


def already_exists(group: str, plural: str, name: str, *, deleting: bool = False) -> ApiError:
    message = "object is being deleted: " if deleting else ""
    message += f'{qualified(group, plural)} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, details=_of(group, plural, name))


def conflict(group: str, plural: str, name: str, why: str = MODIFIED, causes: Sequence[Cause] = ()) -> ApiError:
    message = f'Operation cannot be fulfilled on {qualified(group, plural)} "{name}": {why}'
    return ApiError(409, "Conflict", message, details=_of(group, plural, name) | _causes(causes))


def invalid(group: str, kind: str, name: str, causes: Sequence[Cause]) -> ApiError:
    """422. A field's own message follows its path; several stand in brackets."""
    texts = list(dict.fromkeys(cause.text() for cause in causes))
    text = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    message = f'{qualified(group, kind)} "{name}" is invalid: {text}'
    return ApiError(422, "Invalid", message, details=_of(group, kind, name) | _causes(causes))


def _causes(causes: Sequence[Cause]) -> dict[str, Any]:
    told = [{"reason": cause.reason, "message": cause.message, "field": cause.field} for cause in causes]
    return {"causes": told} if told else {}


def forbidden(group: str, plural: str, name: str, why: str, causes: Sequence[Cause] = ()) -> ApiError:
    named = f'{qualified(group, plural)} "{name}"' if name else qualified(group, plural)
    return ApiError(403, "Forbidden", f"{named} is forbidden: {why}", details=_of(group, plural, name) | _causes(causes))


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def method_not_allowed() -> ApiError:
    return ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")


def unsupported_media(accepted: Sequence[str]) -> ApiError:
    message = f"the body of the request was in an unknown format - accepted media types include: {', '.join(accepted)}"
    return ApiError(415, "UnsupportedMediaType", message)


def expired(message: str, metadata: Mapping[str, Any] | None = None) -> ApiError:
    return ApiError(410, "Expired", message, metadata=metadata)


def too_many_requests(retry_after: int, message: str = BUSY) -> ApiError:
    details = {"retryAfterSeconds": retry_after}
    return ApiError(429, "TooManyRequests", message, details=details, headers={"Retry-After": str(retry_after)})
