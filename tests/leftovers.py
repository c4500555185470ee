"""For directories whose tests share servers: nothing is looked for after each test, everything at the end. For conftests."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psutil
import pytest

from tests.sdk.forks import STOCK

OF_THE_PROCESS = ("flyte_syncify", "_poll_wrapper")
"""Threads (by a part of their names) that clients' libraries start once and keep: the SDK's loop, grpcio's poller."""


def stays(thread: threading.Thread) -> bool:
    """Whether it is no test's, so that any test may be the first that has it."""
    return any(name in thread.name for name in OF_THE_PROCESS)


@pytest.fixture(autouse=True)
def _nothing_left() -> None:
    """The servers' threads and processes come and go with many tests: ``_nothing_left_at_all`` looks when they have ended."""


@pytest.fixture(autouse=True, scope="session")
def _nothing_left_at_all() -> Iterator[None]:
    """Ends with the session, so tests of other directories may have run meanwhile."""
    threads, children = set(threading.enumerate()), set(psutil.Process().children(recursive=True))
    yield
    STOCK.close()
    started = [thread for thread in set(threading.enumerate()) - threads if not stays(thread)]
    left = [*(set(psutil.Process().children(recursive=True)) - children), *started]
    assert not left
