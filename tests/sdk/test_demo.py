"""``make demo``, without make: the first thing that people try."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

_EXAMPLES = Path(__file__).parents[2] / "examples"


async def test_the_demo_shows_a_result_and_leaves_nothing(tmp_path):
    """A real program runs through the real command line; afterwards no file and no process is left."""
    before = {path.name for path in _EXAMPLES.iterdir()}
    demo = await asyncio.create_subprocess_exec(
        sys.executable,
        _EXAMPLES / "demo.py",
        env={**os.environ, "TMPDIR": str(tmp_path), "NO_COLOR": "1", "COLUMNS": "200"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await demo.communicate()
    told = output.decode()
    assert demo.returncode == 0, told
    assert "Hello, Ada! Hello, Grace! Hello, Barbara! The squares below 8 add up to 140." in told
    assert "/v2/domain/development/project/flytesnacks/runs/demo" in told.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
    assert {path.name for path in _EXAMPLES.iterdir()} == before
    assert _processes_in(tmp_path) == []


async def test_a_reader_that_has_seen_enough_ends_the_demo(tmp_path):
    """``make demo | head -1``: in order, without a word of complaint, and nothing is left."""
    demo = await asyncio.create_subprocess_exec(
        sys.executable,
        _EXAMPLES / "demo.py",
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert (await demo.stdout.readline()).startswith(b"flyte-unified ")
    demo.stdout._transport.close()
    assert (await demo.stderr.read(), await demo.wait()) == (b"", 0)
    assert list(tmp_path.iterdir()) == []
    assert _processes_in(tmp_path) == []


def _processes_in(directory: Path) -> list[Path]:
    return [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(directory).encode() in _read(path)]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it ended while we looked
        return b""
