"""One process from launch to exit: status, output, limits, and how it is ended."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from pathlib import Path

import psutil
import pytest

from flyte_unified.launchers.processes import logs
from flyte_unified.launchers.processes.launcher import LaunchFailed
from flyte_unified.launchers.processes.work import Exited, Started
from tests.unit.processes.harness import processes, survivors

SLEEP = "import time; print('ready', flush=True); time.sleep(600)"


async def test_exit_codes_and_signals_are_told_apart(tmp_path: Path) -> None:
    """An exit code and a fatal signal arrive as what they are, with what the process used."""
    async with processes(tmp_path) as server:
        await server.launch("code", "sh", "-c", "exit 7")
        await server.launch("signal", "sh", "-c", "kill -SEGV $$")
        code, died = await server.exited("code"), await server.exited("signal")
    assert (code.exit_code, code.signal, code.known, code.oom) == (7, None, True, False)
    assert (died.exit_code, died.signal, died.known) == (None, signal.SIGSEGV, True)
    assert code.max_rss_bytes > 100_000
    assert code.cpu_seconds > 0
    assert abs(code.at / 1e6 - time.time()) < 60


async def test_started_comes_before_exited_and_each_once(tmp_path: Path) -> None:
    """A work launched twice under one id runs once."""
    async with processes(tmp_path) as server:
        await server.python("a", SLEEP)
        await server.python("a", SLEEP)
        await server.says("a", "ready")
        await server.launcher.kill("a", 0)
        await server.exited("a")
        await server.python("a", SLEEP)
        kinds = [type(event) for event in server.events]
    assert kinds[0] is Started
    assert len({event.pid for event in server.events if isinstance(event, Started)}) == 1
    assert all(kind is Exited for kind in kinds[kinds.index(Exited) :])
    assert await server.output("a") == ["ready"]


async def test_output_is_kept_by_line_with_time_and_stream(tmp_path: Path) -> None:
    """Lines of both streams are logged with the time they came; a last line without an end is kept as it is."""
    before = time.time_ns() // 1000
    async with processes(tmp_path) as server:
        await server.launch("a", "sh", "-c", "echo one; echo; echo two >&2; printf 'caf\\303\\251 three'")
        await server.exited("a")
    lines = (await logs.read(server.log("a"))).lines
    assert [line.text for line in lines if line.stream == "stdout"] == ["one", "", "café three"]
    assert [line.text for line in lines if line.stream == "stderr"] == ["two"]
    assert all(before <= line.at <= time.time_ns() // 1000 for line in lines)
    assert not any(line.goes_on for line in lines)


async def test_a_follower_is_woken_by_each_line_and_ends_with_the_task(tmp_path: Path) -> None:
    """A log is followed while it is written, and to its end."""
    code = "import sys\nfor line in sys.stdin: pass\nprint('begin', flush=True)\nimport os, time\n"
    code += "while not os.path.exists('go'): time.sleep(0.01)\nprint('end')"
    async with processes(tmp_path) as server:
        await server.python("a", code)
        seen = []
        async for line in server.follow("a"):
            seen.append(line.text)
            if line.text == "begin":
                (tmp_path / "work/a/go").touch()
    assert seen == ["begin", "end"]


async def test_a_line_that_does_not_end_is_shown_in_parts(tmp_path: Path) -> None:
    """A prompt without a line's end reaches a follower; read later, it is one line again."""
    code = "import os, time\nprint('Loading', end='', flush=True)\n"
    code += "while not os.path.exists('go'): time.sleep(0.01)\nprint(' done')"
    async with processes(tmp_path) as server:
        await server.python("a", code)
        async for line in server.follow("a"):
            if line.goes_on:
                assert line.text == "Loading"
                (tmp_path / "work/a/go").touch()
        assert await server.output("a") == ["Loading done"]


async def test_the_process_sees_what_was_asked_for_and_no_more(tmp_path: Path) -> None:
    """Environment, directory, input, descriptors, session and umask are those of the work alone."""
    code = """
import json, os, signal, sys
print(json.dumps({
    "env": sorted(os.environ), "cwd": os.getcwd(), "stdin": sys.stdin.read(), "argv": sys.argv[1:],
    "fds": [f for f in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + f)],
    "leader": os.getsid(0) == os.getpid(),
    "umask": os.umask(0), "mask": len(signal.pthread_sigmask(signal.SIG_BLOCK, ())), "tty": sys.stdout.isatty(),
}))"""
    async with processes(tmp_path) as server:
        await server.python("a", code, "x", env={"ONLY": "1", "LC_ALL": "C.UTF-8"})
        await server.exited("a")
        (line,) = await server.output("a")
    seen = json.loads(line)
    assert seen["env"] == ["FSSPEC_FILE_AUTO_MKDIR", "HOME", "LC_ALL", "ONLY", "PATH"]
    assert seen["cwd"] == str(tmp_path / "work/a")
    assert seen["fds"] == ["0", "1", "2"]
    assert (seen["stdin"], seen["argv"], seen["leader"]) == ("", ["x"], True)
    assert (seen["umask"], seen["mask"], seen["tty"]) == (0o022, 0, False)


async def test_the_whole_tree_is_killed(tmp_path: Path) -> None:
    """A kill reaches a grandchild that left the session and whose parent is gone, one that ignores SIGTERM included."""
    code = """
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("orphan", os.getpid(), flush=True)
time.sleep(600)"""
    async with processes(tmp_path) as server:
        await server.python("a", code)
        await server.says("a", "orphan")
        orphan = int((await server.output("a"))[0].split()[1])
        assert psutil.pid_exists(orphan)
        await server.launcher.kill("a", 0.1)
        ended = await server.exited("a")
        assert ended.signal == signal.SIGTERM
        assert _gone(orphan)


async def test_what_a_task_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    """A daemon that a task started does not outlive it, as in a pod; the exit waits for its output."""
    code = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    print("daemon", os.getpid(), flush=True)
    time.sleep(600)
while not os.path.exists("go"): time.sleep(0.01)"""
    async with processes(tmp_path) as server:
        await server.python("a", code)
        await server.says("a", "daemon")
        daemon = int((await server.output("a"))[0].split()[1])
        (tmp_path / "work/a/go").touch()
        assert (await server.exited("a")).exit_code == 0
        assert _gone(daemon)


async def test_a_task_that_ignores_the_request_to_end_is_killed(tmp_path: Path) -> None:
    """After the grace period comes SIGKILL."""
    code = f"import os, signal; signal.signal(signal.SIGTERM, lambda *_: os.write(1, b'no\\n')); {SLEEP}"
    async with processes(tmp_path) as server:
        await server.python("a", code.replace("time.sleep(600)", "[time.sleep(600) for _ in range(9)]"))
        await server.says("a", "ready")
        await server.launcher.kill("a", 0.1)
        assert (await server.exited("a")).signal == signal.SIGKILL
        assert await server.output("a") == ["ready", "no"]


async def test_a_program_that_is_not_there_fails_like_a_shell_says_it(tmp_path: Path) -> None:
    """Exit code 127, and the log names the program."""
    async with processes(tmp_path) as server:
        await server.launch("a", "no-such-program")
        assert (await server.exited("a")).exit_code == 127
        assert "no-such-program" in (await server.output("a"))[0]


async def test_a_directory_that_cannot_be_made_fails_the_launch(tmp_path: Path) -> None:
    """What keeps a process from being created is raised where it was asked for; nothing runs."""
    async with processes(tmp_path) as server:
        (tmp_path / "work").write_text("in the way")
        with pytest.raises(LaunchFailed, match="work"):
            await server.launch("a", "true")
        assert not server.launcher.running("a")


async def test_stopping_ends_a_hundred_tasks_and_the_keeper(tmp_path: Path) -> None:
    """A stop leaves no process, and every task's exit is told."""
    async with processes(tmp_path) as server:
        await asyncio.gather(*(server.launch(f"t{n}", "sleep", "600") for n in range(100)))
        await asyncio.gather(*(server.started(f"t{n}") for n in range(100)))
        await server.launcher.stop(2)
        exits = [event for event in server.events if isinstance(event, Exited)]
        assert {event.id for event in exits} == {f"t{n}" for n in range(100)}
        assert {event.signal for event in exits} == {signal.SIGTERM}
        assert survivors(tmp_path) == []


async def test_arguments_of_any_bytes_arrive(tmp_path: Path) -> None:
    """Arguments, environment and paths need not be text, nor short."""
    strange = "\udcff\U0001f600 '\"\n"
    async with processes(tmp_path) as server:
        code = "import sys, os; print([ascii(sys.argv[1]), ascii(os.environ['S']), len(sys.argv[2])])"
        await server.python("a", code, strange, "x" * 100_000, env={"S": strange})
        await server.exited("a")
        assert await server.output("a") == [str([ascii(strange), ascii(strange), 100_000])]


def _gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
