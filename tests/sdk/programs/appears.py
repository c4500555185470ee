"""Waits for a file in a directory (``appears.py DIRECTORY PATTERN``), for who has nothing else to wait by; says where it is."""

from __future__ import annotations

import sys
import time
from pathlib import Path


def appears(directory: str, pattern: str, *, seconds: float = 30.0) -> Path:
    """The directory of the first that is there."""
    end = time.monotonic() + seconds
    while not (found := sorted(Path(directory).glob(pattern))):
        if time.monotonic() > end:
            raise TimeoutError(f"no {pattern} in {directory}")
        time.sleep(0.05)
    return found[0].parent


if __name__ == "__main__":
    print(appears(*sys.argv[1:]))
