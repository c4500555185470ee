"""Durations and times as people write them."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration

from flyte_unified.dataproxy.translator.texts import duration_of, duration_text, timestamp_of


@pytest.mark.parametrize(
    ("seconds", "nanos", "text"),
    [
        (0, 0, "0s"),
        (0, 7, "7ns"),
        (0, 7500, "7.5µs"),
        (0, 20_000_000, "20ms"),
        (1, 500_000_000, "1.5s"),
        (61, 0, "1m1s"),
        (3600, 0, "1h0m0s"),
        (90_061, 1, "25h1m1.000000001s"),
        (-2, -250_000_000, "-2.25s"),
    ],
)
def test_durations_are_written_as_in_go(seconds: int, nanos: int, text: str) -> None:
    """Exact to the nanosecond, and read back as the same."""
    assert duration_text(Duration(seconds=seconds, nanos=nanos)) == text
    assert duration_of(text) == Duration(seconds=seconds, nanos=nanos)


@pytest.mark.parametrize(
    ("text", "seconds", "nanos"),
    [
        ("90", 90, 0),
        (1.25, 1, 250_000_000),
        (-3, -3, 0),
        ("1.h30m", 5400, 0),
        (".5s", 0, 500_000_000),
        ("2us", 0, 2000),
        ("-PT1.5S", -1, -500_000_000),
        ("P1W2DT3H4M5S", 788_645, 0),
    ],
)
def test_durations_are_read_in_three_notations(text: str | float, seconds: int, nanos: int) -> None:
    """Go's, ISO 8601's, and seconds."""
    assert duration_of(text) == Duration(seconds=seconds, nanos=nanos)


@pytest.mark.parametrize("text", ["", "P", "PT", "h", "1 h", "5 apples", "1h" * 99, "9" * 20])
def test_other_durations_are_refused(text: str) -> None:
    """Nothing is guessed, and nothing beyond what protobuf holds is taken."""
    with pytest.raises(ValueError, match=r".+"):
        duration_of(text)


def test_times_are_read_with_and_without_zone() -> None:
    """RFC 3339 to the nanosecond; what names no zone is UTC; only RFC 3339 where there is a choice of types."""
    assert timestamp_of("2024-05-06T07:08:09.123456789+02:00", strict=True).nanos == 123456789
    assert timestamp_of("2024-05-06T07:08", strict=False).seconds == 1714979280
    with pytest.raises(ValueError, match=r".+"):
        timestamp_of("2024-05-06", strict=True)
