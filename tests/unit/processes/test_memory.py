"""Memory limits, whoever keeps them: the kernel where a control group was handed to us, else the keeper that watches."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.unit.processes.harness import PYTHON, Processes, gone, processes

GROWS = """
import os, sys, time
print("ready", flush=True)
while not os.path.exists("grow"): time.sleep(0.005)
x = bytearray(200 << 20)
if not os.path.exists("through"): time.sleep(600)
print(len(x) >> 20)
"""
"""Comes to need 200 MiB, when told so."""


async def test_a_task_over_its_memory_limit_is_killed_and_told_so(tmp_path: Path) -> None:
    """Memory is counted over the whole tree; the log and the exit say why the task was ended."""
    code = (
        "import subprocess, sys; subprocess.run([sys.executable, '-c', 'x = bytearray(200 << 20); input()'], stdin=sys.stdin)"
    )
    hold = "x = bytearray(200 << 20); import time; time.sleep(600)"
    async with processes(tmp_path) as server:
        await server.python("tree", code.replace("input()", "import time; time.sleep(600)"), memory_limit=100 << 20)
        await server.python("within", hold + " if False else None; print(len(x))", memory_limit=400 << 20)
        ended = await server.exited("tree")
        assert (ended.oom, ended.signal) == (True, signal.SIGKILL)
        assert not (await server.exited("within")).oom
        assert "its limit is 100 MiB" in (await server.output("tree"))[-1]


@pytest.mark.parametrize("warm", [True, False])
async def test_a_limit_holds_for_any_start(tmp_path: Path, warm: bool) -> None:
    """What a task may have does not depend on how it came to be, nor does what is told of it."""
    async with processes(tmp_path) as server:
        await _launch(server, "over", warm=warm, limit=100)
        await _launch(server, "within", warm=warm, limit=400)
        (tmp_path / "work/within/through").touch()
        for work in ("over", "within"):
            await server.says(work, "ready")
            (tmp_path / "work" / work / "grow").touch()
        over, within = await server.exited("over"), await server.exited("within")
        assert (over.oom, over.signal) == (True, signal.SIGKILL)
        assert (within.oom, within.exit_code) == (False, 0)
        assert within.max_rss_bytes > 200 << 20
        assert (await server.started("over")).warm == warm


async def test_a_limit_outlives_the_keeper(tmp_path: Path) -> None:
    """The next keeper takes the task over with its limit, and says why it ended."""
    async with processes(tmp_path) as server:
        await _launch(server, "a", warm=False, limit=100)
        await server.says("a", "ready")
        first = server.launcher.keeper_pid
        os.kill(first, signal.SIGKILL)
        await gone(first)
        (tmp_path / "work/a/grow").touch()
        ended = await server.exited("a")
        assert (ended.oom, ended.known) == (True, False)
        assert "its limit is 100 MiB" in (await server.output("a"))[-1]


async def _launch(server: Processes, work: str, *, warm: bool, limit: int) -> None:
    script = server.root / f"{work}.py"
    script.write_text(f"#!{PYTHON}\nimport flyte._bin.runtime\n{GROWS}")
    await server.launch(work, str(script), warm=warm, memory_limit=limit << 20)
