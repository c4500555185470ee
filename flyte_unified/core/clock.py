"""Time as a value that is passed in, so that tests can own it.

Wall time is kept as integer microseconds since the epoch, UTC: exact in SQL, in protobuf and in arithmetic.
"""

from __future__ import annotations

import time
from typing import NewType, Protocol

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from flyte_unified.core.errors import InvalidArgument

Micros = NewType("Micros", int)
"""Microseconds since 1970-01-01T00:00:00Z."""

SECOND = 1_000_000

_FIRST, _LAST = -62_135_596_800, 253_402_300_799


class Clock(Protocol):
    """What the time is. ``now`` for people and records, ``monotonic`` (seconds) for measuring."""

    def now(self) -> Micros: ...

    def monotonic(self) -> float: ...


class SystemClock:
    """The machine's clocks. ``monotonic`` stands still while the machine sleeps."""

    def now(self) -> Micros:
        return Micros(time.time_ns() // 1000)

    def monotonic(self) -> float:
        return time.monotonic()


def timestamp(at: int) -> Timestamp:
    """``at`` (microseconds since the epoch) as protobuf."""
    return Timestamp(seconds=at // SECOND, nanos=at % SECOND * 1000)


def micros(message: Timestamp, *, field: str = "a time") -> Micros:
    """A protobuf timestamp as microseconds since the epoch, cut, not rounded.

    Raises InvalidArgument naming ``field`` for one that is not between the years 1 and 9999 (google/protobuf/timestamp.proto).
    """
    if not _FIRST <= message.seconds <= _LAST:
        raise InvalidArgument(f"{field}: {message.seconds} seconds since 1970 lie outside of the years 1 to 9999")
    return Micros(message.seconds * SECOND + message.nanos // 1000)


def seconds(message: Duration) -> float:
    """A protobuf duration in seconds."""
    return message.seconds + message.nanos / 1e9
