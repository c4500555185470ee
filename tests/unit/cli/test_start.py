"""``flyte-unified start`` as a process: what it prints, how it ends, and what it refuses."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import signal
import socket
import stat
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from unittest.mock import Mock

import orjson
import pytest

from flyte_unified.core.errors import FailedPrecondition
from flyte_unified.rpc import sockets

_PROGRAM = Path(__file__).with_name("fake_server.py")


@contextlib.asynccontextmanager
async def started(mode: str, *arguments: str, tmp: Path) -> AsyncIterator[Process]:
    """``start`` on a free port, in a process that is gone at the end of the block."""
    environ = {"HOME": str(tmp), "TMPDIR": str(tmp), "PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
    command = (sys.executable, str(_PROGRAM), mode, "start", "--port", "0", *arguments)
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE, env=environ, cwd=tmp)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def banner(process: Process) -> dict[str, str]:
    """The lines that say that the server is ready."""
    lines = [await process.stdout.readline()]
    while not lines[-1].startswith(b"  SDK") and lines[-1]:
        lines.append(await process.stdout.readline())
    assert len(lines) <= 10
    return {words[0]: words[1].strip() for line in lines if len(words := line.decode().strip().split(None, 1)) == 2}


async def test_the_banner_says_how_to_use_the_server(tmp_path):
    """Version, console, API, data, slots and interpreter, settings file, and a line that configures the SDK."""
    (tmp_path / "flyte.yaml").write_text("execution: {slots: 3}")
    async with started("good", "--data-dir", "data", tmp=tmp_path) as process:
        told = await banner(process)
        port = re.fullmatch(r"http://localhost:(\d+)", told["API"])[1]
        assert told["Console"].startswith(told["API"])
        assert told["Data"] == str(tmp_path / "data")
        assert told["Tasks"] == f"3 slots, {sys.executable} (the server's own)"
        assert told["Settings"] == str(tmp_path / "flyte.yaml")
        assert told["SDK"] == f"flyte-unified config client --port {port} --write .flyte/config.yaml"
        assert "flyte-unified" in told


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_first_signal_stops_in_order(tmp_path, number):
    """The manager is stopped, not killed, the status is 0, and the log is JSON where nobody watches."""
    async with started("good", tmp=tmp_path) as process:
        await banner(process)
        process.send_signal(number)
        out, err = await process.communicate()
    assert (out, process.returncode) == (b"stopping\nstopped\n", 0)
    assert orjson.loads(err) | {"timestamp": ""} == {"event": "ready", "level": "info", "timestamp": ""}


@pytest.mark.parametrize("mode", ["hangs", "stuck"])
async def test_the_second_signal_ends_everything_at_once(tmp_path, mode):
    """Even when a thread never ends: everything is killed, what was temporary is removed, and the status is 130."""
    async with started(mode, "--ephemeral", tmp=tmp_path) as process:
        directory = Path((await banner(process))["Data"].split()[0])
        assert directory.is_dir()
        process.send_signal(signal.SIGINT)
        assert await process.stdout.readline() == b"stopping\n"
        process.send_signal(signal.SIGINT)
        out, _ = await process.communicate()
    assert (out, process.returncode) == (b"killed\n", 130)
    assert not directory.exists()


async def test_a_stop_that_takes_too_long_is_cut_short(tmp_path):
    """A second after ``server.shutdown_grace`` the rest is killed."""
    (tmp_path / "flyte.yaml").write_text("server: {shutdown_grace: 50ms}")
    async with started("hangs", tmp=tmp_path) as process:
        await banner(process)
        process.send_signal(signal.SIGTERM)
        out, _ = await process.communicate()
    assert (out, process.returncode) == (b"stopping\nkilled\n", 130)


async def test_a_signal_during_the_start_stops_it(tmp_path):
    """Nobody has to wait for a start that takes long before it can be ended."""
    async with started("slow", tmp=tmp_path) as process:
        assert await process.stdout.readline() == b"starting\n"
        process.send_signal(signal.SIGINT)
        out, _ = await process.communicate()
    assert (out, process.returncode) == (b"stopping\nstopped\n", 0)


async def test_a_start_that_fails_says_why(tmp_path):
    """What was begun is ended, the reason is one line, and the status is 1."""
    async with started("fails", tmp=tmp_path) as process:
        out, err = await process.communicate()
    assert (out, err, process.returncode) == (b"killed\n", b"flyte-unified: the database is away\n", 1)


async def test_a_second_server_on_the_same_data_is_told_who_has_it(tmp_path):
    """It names pid, port and time of the first; once that is gone, the directory is free, however it ended."""
    async with started("good", tmp=tmp_path) as first:
        told = await banner(first)
        port = told["API"].rpartition(":")[2]
        directory = tmp_path / ".flyte-unified"
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert stat.S_IMODE((directory / "server.lock").stat().st_mode) == 0o600
        async with started("good", tmp=tmp_path) as second:
            _, err = await second.communicate()
        pattern = rf"{directory} is in use by a server with pid {first.pid} on port {port} since \d{{4}}-\d\d-\d\dT[\d:]{{8}}"
        assert re.search(pattern, err.decode())
        assert second.returncode == 1
    async with started("good", tmp=tmp_path) as third:
        assert (await banner(third))["Data"] == str(directory)


async def test_a_taken_port_is_refused_before_anything_else(tmp_path):
    """The error names the port, the process that has it and the flag; no directory is made."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with started("good", "--port", str(port), tmp=tmp_path) as process:
            out, err = await process.communicate()
    assert (out, process.returncode) == (b"", 1)
    assert re.search(rf"port {port} is taken by process {os.getpid()} \(.*\); .*--port", err.decode())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("owner", ["", "process 7 (/usr/bin/docker-proxy -host-port 30080)"])
def test_the_usual_port_may_be_a_devboxs(monkeypatch, owner):
    """Docker has it then, and mostly nobody sees that; what ends a devbox is said, as a pause would leave it the port."""
    monkeypatch.setattr(sockets, "_owners", lambda _: filter(None, [owner]))
    monkeypatch.setattr(sockets, "_listen", Mock(side_effect=OSError(errno.EADDRINUSE, "")))
    with pytest.raises(FailedPrecondition, match=r"30080 is taken by .*process.*; .*flyte delete devbox.*--port"):
        sockets.listen("localhost", 30080)
