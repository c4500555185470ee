"""Kubernetes' times (RFC 3339) and ours."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from flyte_unified.core.clock import SECOND, Micros

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def rfc3339(at: Micros) -> str:
    return (_EPOCH + timedelta(microseconds=at)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parsed(text: str) -> Micros | None:
    """None for what is no time with a zone. What is finer than a microsecond is cut."""
    try:
        delta = datetime.fromisoformat(text) - _EPOCH
    except (ValueError, TypeError):
        return None
    return Micros(delta.days * 86400 * SECOND + delta.seconds * SECOND + delta.microseconds)
