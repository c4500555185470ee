"""The way to a program, and what may go wrong on it, in words for whoever asked."""

from __future__ import annotations

import asyncio

from flyte_unified.core.errors import DeadlineExceeded, Unavailable
from flyte_unified.core.sites import Upstream


class NotThere(Unavailable):
    """Nobody took the connection, so nothing was said: it may be tried again."""


def late(seconds: float) -> DeadlineExceeded:
    return DeadlineExceeded(f"the app has not begun to answer within {seconds:g} s")


async def connect(upstream: Upstream) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Raises NotThere, DeadlineExceeded."""
    try:
        async with asyncio.timeout(upstream.patience):
            return await asyncio.open_connection(upstream.host, upstream.port)
    except TimeoutError:
        raise late(upstream.patience) from None
    except OSError as error:
        raise NotThere(f"the app did not answer: {error}") from error
