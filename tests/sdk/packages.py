"""Packages of an index, which images ask for: not every machine that runs the tests can reach one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from uv import find_uv_bin


def need(*packages: str, python: str = sys.executable, directory: Path) -> None:
    """Leaves out the test where uv cannot have them for an interpreter. Nothing is installed."""
    command = [find_uv_bin(), "pip", "install", "--dry-run", "--python", python, "--target", str(directory), *packages]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"uv cannot have {', '.join(packages)}: {done.stderr}")
