"""``flyte-unified status``, ``drain`` and ``db`` beside a server that runs tasks."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from pathlib import Path

from flyte_unified.core.phases import Phase
from tests.sdk.durability.stand import Server, standing


async def typed(server: Server, *arguments: str, on: str = "data") -> tuple[int, str]:
    """The exit status of ``flyte-unified``, and what it printed."""
    process = await begun(server, *arguments, on=on)
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def begun(server: Server, *arguments: str, on: str = "data") -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "flyte_unified", *arguments, "--data-dir", str(server.directory / on)),
        cwd=server.directory,
        env=server.environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def test_drain_with_a_running_task(tmp_path: Path) -> None:
    """What has begun goes on, with children that begin later; a run that comes is kept; ``--off`` lets it begin."""
    async with standing(tmp_path) as (server, gate):
        first = await server.run(gate, "late", 1)
        root = await gate.comes("late")
        draining = await begun(server, "drain", "--wait")
        assert draining.stdout is not None
        assert await draining.stdout.readline() == b"drained; 1 action still running\n"
        kept = await server.run(gate, "fan", 1)
        code, said = await typed(server, "status")
        assert (code, "is draining at" in said, "2 live" in said) == (0, True, True), said
        root.go()
        (await gate.comes("leaf 1")).go()
        assert await server.phase(first) is Phase.SUCCEEDED
        rest, _ = await draining.communicate()
        assert rest.decode().splitlines()[-1] == "drained; nothing runs"
        assert gate.of("fan") == []
        gate.open()
        assert await typed(server, "drain", "--off") == (0, "runs begin again\n")
        assert await server.phase(kept) is Phase.SUCCEEDED
        code, said = await typed(server, "status", "--json", "--endpoint", server.address)
        status = json.loads(said)
        assert (code, status["state"], status["actions"]["live"]) == (0, "STATE_READY", "0")
    code, said = await typed(server, "status")
    assert code == 1
    assert f"no server runs on {server.data}; start one: flyte-unified start" in said


async def test_backup_while_runs_go_on_and_restore_elsewhere(tmp_path: Path) -> None:
    """The other server has the runs with their inputs and logs; one that was under way at the backup is carried to its end."""
    async with standing(tmp_path) as (server, gate):
        done = await server.run(gate, "one", 7)
        assert await server.phase(done) is Phase.SUCCEEDED
        running = await server.run(gate, "late", 2)
        await (await gate.comes("late")).say("before the backup")
        archive = str(tmp_path / "flyte.tar")
        code, said = await typed(server, "db", "backup", archive)
        assert code == 0, said
        code, said = await typed(server, "db", "restore", archive, "--replace")
        assert code == 1
        assert "in use by a server with pid" in said
        gate.open()
        assert await server.phase(running) is Phase.SUCCEEDED
        await server.stop()

        shutil.move(server.data, tmp_path / "lost")
        code, said = await typed(server, "db", "restore", archive, on="elsewhere")
        assert code == 0, said
        links = [line.partition("let that path lead to them: ")[2] for line in said.splitlines() if "ln -s" in line]
        assert links
        for link in links:
            await (await asyncio.create_subprocess_shell(link)).wait()
        other = Server(server.directory, server.settings)
        await other.start("--data-dir", str(tmp_path / "elsewhere"))
        try:
            again = await other.again(done)
            assert [await other.phase(run) for run in (done, running, again)] == [Phase.SUCCEEDED] * 3
            assert "before the backup" in [line.strip() for line in await other.log(running, "a0")]
        finally:
            await other.stop()
