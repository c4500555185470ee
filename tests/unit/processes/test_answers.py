"""Programs that are asked something before a task starts."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import psutil
import pytest

from flyte_unified.launchers.api import Unlaunchable
from flyte_unified.launchers.processes.answers import answer
from flyte_unified.launchers.processes.engines import Engines
from flyte_unified.launchers.processes.interpreters import Interpreters
from flyte_unified.launchers.processes.needs import Needs
from flyte_unified.plugins.api import Need


async def test_what_gives_no_answer_is_ended() -> None:
    """After its time."""
    with pytest.raises(TimeoutError):
        await answer("sleep", "600", seconds=0.05)
    assert not psutil.Process().children()


async def test_what_nobody_waits_for_any_more_is_ended(tmp_path: Path) -> None:
    """An abort or a stop of the server comes while an engine, an interpreter or a module is looked for."""
    told = tmp_path / "asked"
    os.mkfifo(told)
    program = tmp_path / "podman"
    program.write_text(f"#!/bin/sh\necho > {told}\nexec /bin/sleep 600\n")
    program.chmod(0o755)
    environment = {"PATH": str(tmp_path)}
    for asking in (
        Engines("podman").find(environment),
        Needs().check([Need("torch", "")], program, environment),
        Interpreters().inspect(program),
    ):
        task = asyncio.ensure_future(asking)
        await asyncio.to_thread(told.read_bytes)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not psutil.Process().children()


async def test_a_module_that_cannot_be_looked_for_is_missing(tmp_path: Path) -> None:
    """The interpreter may be none."""
    with pytest.raises(Unlaunchable, match="needs the module 'torch'"):
        await Needs().check([Need("torch", "")], tmp_path / "python", {})
