"""An API server's refusals as errors."""

from __future__ import annotations

import orjson
import pytest

from flyte_unified.core.errors import Code
from flyte_unified.kube import errors
from flyte_unified.kube.errors import from_status, refused


@pytest.mark.parametrize(
    ("status", "reason", "expected", "code"),
    [
        (400, "BadRequest", errors.Invalid, Code.INVALID_ARGUMENT),
        (401, "Unauthorized", errors.Forbidden, Code.PERMISSION_DENIED),
        (403, "Forbidden", errors.Forbidden, Code.PERMISSION_DENIED),
        (404, "NotFound", errors.Missing, Code.NOT_FOUND),
        (405, "MethodNotAllowed", errors.KubeError, Code.INTERNAL),
        (409, "AlreadyExists", errors.Exists, Code.ALREADY_EXISTS),
        (409, "Conflict", errors.Conflict, Code.ABORTED),
        (409, "", errors.Conflict, Code.ABORTED),
        (410, "Expired", errors.Gone, Code.OUT_OF_RANGE),
        (410, "Gone", errors.Gone, Code.OUT_OF_RANGE),
        (413, "RequestEntityTooLarge", errors.Invalid, Code.INVALID_ARGUMENT),
        (422, "Invalid", errors.Invalid, Code.INVALID_ARGUMENT),
        (429, "TooManyRequests", errors.Throttled, Code.RESOURCE_EXHAUSTED),
        (500, "InternalError", errors.Away, Code.UNAVAILABLE),
        (503, "ServiceUnavailable", errors.Away, Code.UNAVAILABLE),
        (504, "Timeout", errors.Away, Code.UNAVAILABLE),
    ],
)
def test_status_and_reason_decide_the_class(status: int, reason: str, expected: type[errors.KubeError], code: Code):
    """And the class what a caller of ours is told."""
    body = orjson.dumps({"kind": "Status", "code": status, "reason": reason, "message": "so it is"})
    error = refused("get pods n/a", status, body)
    assert type(error) is expected
    assert (error.status, error.reason, error.code) == (status, reason, code)
    assert error.message == f"get pods n/a: {f'{status} {reason}'.strip()}: so it is"


def test_an_apply_of_what_the_kind_does_not_have():
    """API servers call it their own failure (500), whatever is asked again."""
    told = "failed to create typed patch object (n/a; apps/v1, Kind=Deployment): .spec.colour: field not declared in schema"
    error = refused("patch deployments n/a", 500, orjson.dumps({"kind": "Status", "code": 500, "message": told}))
    assert type(error) is errors.Invalid


def test_a_watch_tells_its_end_in_the_same_words():
    """The Status comes as an event there, without an HTTP status."""
    error = from_status("watch pods n", {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"})
    assert isinstance(error, errors.Gone)
    assert error.status == 410


def test_the_header_says_when_to_come_back_else_the_details():
    """In seconds; a date is not understood."""
    body = orjson.dumps({"kind": "Status", "details": {"retryAfterSeconds": 7}})
    assert refused("x", 429, body, retry_after="3").retry_after == 3.0
    assert refused("x", 429, body).retry_after == 7.0
    assert refused("x", 429, b"", retry_after="Wed, 21 Oct 2026 07:28:00 GMT").retry_after is None


@pytest.mark.parametrize("body", [b"404 page not found\n", b"<html>" + b"x" * 10_000, b"", b"[]", b"\xff\xfe"])
def test_an_answer_of_somebody_else_is_shown_in_short(body: bytes):
    """A proxy's page, say."""
    error = refused("get pods n/a", 404, body)
    assert isinstance(error, errors.Missing)
    assert error.is_kind
    assert error.message.startswith("get pods n/a: 404: ")
    assert len(error.message) < 600
