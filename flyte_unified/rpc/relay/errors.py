"""What may go wrong between here and a program, in words for whoever asked for it."""

from __future__ import annotations

from flyte_unified.core.errors import DeadlineExceeded, Unavailable


class NotThere(Unavailable):
    """Nobody took the connection, so nothing was said: it may be tried again."""


def away(error: Exception) -> Unavailable:
    return Unavailable(f"the app did not answer: {error}")


def late(seconds: float) -> DeadlineExceeded:
    return DeadlineExceeded(f"the app has not begun to answer within {seconds:g} s")
