"""A task from a fork server cannot tell, but for its speed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from flyte_unified.launchers.processes import logs
from flyte_unified.launchers.processes.work import Exited
from tests.unit.processes.harness import PYTHON, Processes, gone, processes

HEAD = f"#!{PYTHON}\nimport flyte._bin.runtime\n"
"""Every program that starts warm is the SDK's, so these begin as it does."""

STATE = """
import asyncio, gc, json, locale, logging, os, random, resource, signal, sys, tempfile, threading, time, uuid
import __main__
handlers = {s.name: str(signal.getsignal(s)) for s in signal.valid_signals() if isinstance(s, signal.Signals)}
print(json.dumps({
    "env": dict(os.environ), "cwd": os.getcwd(), "argv": sys.argv, "path": sys.path, "name": __name__,
    "main": [__main__.__file__, __main__.__spec__, sorted(k for k in vars(__main__) if not k.startswith("__"))],
    "executable": sys.executable, "flags": str(sys.flags), "umask": os.umask(0), "stdin": sys.stdin.read(),
    "handlers": handlers, "mask": len(signal.pthread_sigmask(signal.SIG_BLOCK, ())), "leader": os.getsid(0) == os.getpid(),
    "threads": threading.active_count(), "fds": len(os.listdir("/proc/self/fd")), "tmp": tempfile.gettempdir(),
    "zone": time.tzname, "encoding": [sys.stdout.encoding, sys.stderr.encoding, locale.getpreferredencoding()],
    "buffering": [sys.stdout.line_buffering, sys.stderr.line_buffering, sys.stdout.write_through],
    "tty": [os.isatty(n) for n in range(3)], "gc": gc.isenabled(), "nofile": resource.getrlimit(resource.RLIMIT_NOFILE),
    "loop": asyncio.run(asyncio.sleep(0, 7)),
    "levels": [logging.getLogger(name).level for name in ("", "flyte", "flyte.user")], "nice": os.nice(0),
    "recursion": sys.getrecursionlimit(), "hook": sys.excepthook is sys.__excepthook__,
}))
print(random.random(), uuid.uuid4(), os.getpid(), file=sys.stderr)
"""

ENDS = {
    "success": "print('out')",
    "code": "import sys; sys.exit(3)",
    "large code": "import sys; sys.exit(259)",
    "negative code": "import sys; sys.exit(-1)",
    "no code": "import sys; sys.exit()",
    "true": "import sys; sys.exit(True)",
    "message": "import sys; sys.exit('sorry')",
    "exception": "def f():\n    raise ValueError('wrong')\nf()",
    "chain": "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise ValueError('wrong') from e",
    "group": "raise ExceptionGroup('several', [ValueError(1), KeyError(2)])",
    "syntax": "exec('def broken(:')",
    "interrupt": "raise KeyboardInterrupt",
    "os._exit": "import os; print('lost', end=''); os._exit(9)",
    "signal": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "abort": "import os; os.abort()",
    "unflushed": "import sys; sys.stdout.write('kept')",
    "atexit": "import atexit; atexit.register(print, 'at exit'); print('main')",
    "atexit raises": "import atexit; atexit.register(lambda: 1 / 0)",
    "thread": "import threading, time; threading.Thread(target=lambda: (time.sleep(0.05), print('thread'))).start()",
    "daemon thread": "import threading, time; threading.Thread(target=time.sleep, args=(600,), daemon=True).start()",
    "pool": "from concurrent.futures import ThreadPoolExecutor as P\nP(2).submit(print, 'pooled')",
    "hook": "import sys; sys.excepthook = lambda *a: print('hooked', a[0].__name__); raise OSError('x')",
    "broken pipe": "import os; r, w = os.pipe(); os.close(r)\ntry: os.write(w, b'x')\nexcept BrokenPipeError: print('EPIPE')",
    "forked": "import multiprocessing as m\nif __name__ == '__main__': print(m.get_context('fork').Pool(2).map(abs, [-1]))",
    "spawned": "import multiprocessing as m\nif __name__ == '__main__': print(m.get_context('spawn').Pool(1).map(abs, [-1]))",
    "subprocess": "import subprocess, sys; print(subprocess.check_output([sys.executable, '-c', 'print(5)']))",
    "pickle": "import pickle\nclass A: pass\nprint(type(pickle.loads(pickle.dumps(A()))) is A, A.__module__)",
    "source": "import inspect\ndef f(): return 1\nprint(inspect.getsource(f), __file__ is not None)",
    "asyncio": "import asyncio\nasync def main(): await asyncio.to_thread(print, 'in a thread')\nasyncio.run(main())",
    "sdk": "import flyte, logging as l; print(flyte.__version__, l.getLogger('flyte').level, l.getLogger('flyte.user').level)",
    "neighbour": "import beside; print(beside.NAME)",
}


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """One directory for all tests here, so that they share a keeper and its fork server."""
    path = Path(tempfile.mkdtemp(prefix="fu-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def server(root: Path) -> AsyncIterator[Processes]:
    server = Processes(root)
    for event in await server.launcher.start():
        server.launcher.forget(event.id)
    await server.launcher.warm_up(PYTHON, {"PATH": os.environ["PATH"], "HOME": str(root), "FSSPEC_FILE_AUTO_MKDIR": "1"})
    yield server
    assert not [message for message in server.messages if "without a fork server" in message]
    await server.launcher.close()


async def test_a_forked_task_has_the_state_of_a_new_interpreter(server: Processes) -> None:
    """Environment, paths, ``__main__``, signals, streams, limits: equal, item by item; random state is each one's own."""
    script = _script(server.root, "state", STATE)
    env = {"TASK": "1", "TZ": "Asia/Tokyo", "TMPDIR": str(server.root), "LOG_LEVEL": "10"}
    states: list[dict[str, Any]] = []
    randoms = set()
    await server.launch("first", str(script), env=env, warm=True)  # that key gets its server when it comes again
    for work, warm in (("cold", False), ("warm", True), ("warm2", True)):
        await server.launch(work, str(script), "--flag", "x y", env=env, warm=warm)
        assert (await server.exited(work)).exit_code == 0, await server.output(work)
        out, err = await _streams(server, work)
        states.append(json.loads(out[0]))
        randoms |= set(err[-1].split())
        states[-1]["cwd"] = states[-1]["cwd"].removesuffix(work)
    assert states[1] == states[0]
    assert states[2] == states[0]
    assert len(randoms) == 9
    assert await _forked(server, "warm")
    assert not await _forked(server, "cold")


async def test_every_way_to_end_is_the_same(server: Processes) -> None:
    """Exit codes, signals, tracebacks, hooks, threads and pools at the end: the same status and the same output."""
    (server.root / "beside.py").write_text("NAME = 'beside'\n")
    scripts = {name: _script(server.root, f"end-{n}", code) for n, (name, code) in enumerate(ENDS.items())}
    results: dict[str, list[object]] = {name: [] for name in ENDS}
    for kind in ("cold", "warm"):
        works = {name: f"{kind}-{script.name}" for name, script in scripts.items()}
        await asyncio.gather(*(server.launch(works[n], str(scripts[n]), warm=kind == "warm") for n in ENDS))
        for name, work in works.items():
            ended = await server.exited(work)
            results[name].append((ended.exit_code, ended.signal, *(await _streams(server, work))))
        assert await _forked(server, works["success"]) == (kind == "warm")
    different = {name: pair for name, pair in results.items() if pair[0] != pair[1]}
    assert different == {}
    assert results["large code"][0] == (3, None, [], [])
    assert results["abort"][0] == (None, signal.SIGABRT, [], [])


async def test_a_variable_that_the_imports_read_is_honoured(server: Processes) -> None:
    """The SDK reads some variables while it is imported: a task with other values gets them, warm as cold."""
    script = _script(server.root, "read", "import flyte.storage._storage as s; print(s.BATCH_SIZE)")
    values = []
    for n, value in enumerate(("3", "3", "3", "4")):
        await server.launch(f"read{n}", str(script), warm=True, env={"FLYTE_IO_BATCH_SIZE": value})
        await server.exited(f"read{n}")
        values += await server.output(f"read{n}")
    assert values == ["3", "3", "3", "4"]
    assert [await _forked(server, f"read{n}") for n in range(4)] == [False, False, True, False]


async def test_tasks_outlive_their_fork_server(server: Processes) -> None:
    """A killed fork server takes no task along, and their exit status is still seen; the next task gets a new server."""
    code = "import os, sys, time\nprint('ready', flush=True)\nwhile not os.path.exists('end'): time.sleep(0.005)\nsys.exit(5)"
    script = _script(server.root, "waits", code)
    await server.launch("orphan", str(script), warm=True)
    await server.says("orphan", "ready")
    parent = psutil.Process((await server.started("orphan")).pid).ppid()
    assert parent != server.launcher.keeper_pid
    os.kill(parent, signal.SIGKILL)
    await gone(parent)
    await server.launch("next", str(_script(server.root, "fine", "print('fine')")), warm=True)
    assert (await server.exited("next")).exit_code == 0
    assert server.launcher.running("orphan")
    (server.root / "work/orphan/end").touch()
    ended = await server.exited("orphan")
    assert (ended.exit_code, ended.known) == (5, True)
    assert await _forked(server, "next")


async def test_what_a_warm_task_leaves_behind_ends_with_it(server: Processes) -> None:
    """A daemon in a session of its own does not outlive the task that started it, though no kill was asked for."""
    code = "import subprocess\nprint(subprocess.Popen(['sleep', '600'], start_new_session=True).pid, flush=True)"
    await server.launch("leaves", str(_script(server.root, "leaves", code)), warm=True)
    await server.exited("leaves")
    assert await _forked(server, "leaves")
    await gone(int((await server.output("leaves"))[0]))


async def test_a_work_that_its_fork_server_took_along_is_started_again(server: Processes) -> None:
    """A fork server that dies with works handed over, before it started them, costs them nothing."""
    script = _script(server.root, "again", "print('ran')")
    await server.launch("before", str(script), warm=True)
    parent = psutil.Process((await server.started("before")).pid).ppid()
    await server.exited("before")
    os.kill(parent, signal.SIGSTOP)
    await asyncio.gather(*(server.launch(f"again{n}", str(script), warm=True) for n in range(20)))
    os.kill(parent, signal.SIGKILL)
    for n in range(20):
        assert (await server.exited(f"again{n}")).exit_code == 0
        assert await server.output(f"again{n}") == ["ran"]


async def test_killing_a_forked_task_leaves_the_fork_server(server: Processes) -> None:
    """A kill reaches the task's tree and nothing else."""
    code = "import subprocess, time\np = subprocess.Popen(['sleep', '600'])\nprint(p.pid, flush=True)\ntime.sleep(600)"
    await server.launch("victim", str(_script(server.root, "victim", code)), warm=True)
    await server.says("victim", "")
    child = int((await server.output("victim"))[0])
    parent = psutil.Process((await server.started("victim")).pid).ppid()
    await server.launcher.kill("victim", 5)
    assert (await server.exited("victim")).signal == signal.SIGTERM
    await gone(child)
    assert psutil.Process(parent).is_running()


async def test_a_real_task_of_the_sdk_runs_alike(server: Processes) -> None:
    """``a0`` with a task of no content succeeds cold and warm, and writes its outputs."""
    for work, warm in (("a0-cold", False), ("a0-warm", True)):
        await launch_a0(server, work, warm=warm)
        ended = await server.exited(work)
        assert (ended.exit_code, ended.known) == (0, True), await server.output(work)
        assert (server.root / "out" / work / "outputs.pb").exists()
        assert "here" in await server.output(work)
    assert await _forked(server, "a0-warm")


async def test_many_forked_tasks_at_once(server: Processes) -> None:
    """Launched together, each runs in its own place and is told of once."""
    script = _script(server.root, "many", "import os, sys; print(os.getcwd()); sys.exit(int(os.environ['N']))")
    await asyncio.gather(*(server.launch(f"m{n}", str(script), warm=True, env={"N": str(n)}) for n in range(40)))
    exits = await asyncio.gather(*(server.exited(f"m{n}") for n in range(40)))
    assert [ended.exit_code for ended in exits] == list(range(40))
    assert [await server.output(f"m{n}") for n in range(40)] == [[str(server.root / f"work/m{n}")] for n in range(40)]


async def test_forked_tasks_survive_the_keeper(tmp_path: Path) -> None:
    """A forked task goes on when its keeper is killed, and so its fork server ends; the next keeper sees its end."""
    code = "import os, sys, time\nprint('ready', flush=True)\nwhile not os.path.exists('end'): time.sleep(0.005)\nprint('end')"
    async with processes(tmp_path) as server:
        await server.launch("a", str(_script(tmp_path, "waits", code)), warm=True)
        await server.says("a", "ready")
        parent = psutil.Process((await server.started("a")).pid).ppid()
        os.kill(server.launcher.keeper_pid, signal.SIGKILL)
        await gone(parent)
        (tmp_path / "work/a/end").touch()
        assert not (await server.exited("a")).known
        assert await server.output("a") == ["ready", "end"]
        assert await _forked(server, "a")


async def test_without_forking_interpreters_are_started_ahead(tmp_path: Path) -> None:
    """Where a fork is not safe, a started interpreter takes one task: same results, and the keeper is its parent."""
    async with processes(tmp_path, fork=False) as server:
        script = _script(tmp_path, "end", "import os, sys; print(os.getppid(), sys.argv[1], flush=True); sys.exit(4)")
        await server.launcher.warm_up(PYTHON, {"PATH": os.environ["PATH"], "HOME": str(tmp_path)})
        for work in ("a", "b", "c"):
            await server.launch(work, str(script), work, warm=True)
            assert (await server.exited(work)).exit_code == 4
            assert await server.output(work) == [f"{server.launcher.keeper_pid} {work}"]
            assert await _forked(server, work)


async def test_where_forking_fails_tasks_start_plainly(tmp_path: Path) -> None:
    """A fork server that cannot get ready is given up: said once, and the tasks run all the same."""
    async with processes(tmp_path) as server:
        env = {"PYTHONPATH": str(tmp_path)}
        (tmp_path / "click.py").write_text("raise ImportError('no click today')\n")
        script = tmp_path / "end.py"
        script.write_text(f"#!{PYTHON}\nimport sys; sys.exit(4)\n")
        for work in ("a", "b", "c"):
            await server.launch(work, str(script), warm=True, env=env)
            assert (await server.exited(work)).exit_code == 4
            assert not await _forked(server, work)
        assert [message for message in server.messages if "no click today" in message] == server.messages
        assert len(server.messages) == 1


async def test_a_task_that_waits_for_its_fork_server_can_be_killed(tmp_path: Path) -> None:
    """A kill takes a work back that has not started, and its exit says so."""
    async with processes(tmp_path) as server:
        await server.launch("a", str(_script(tmp_path, "end", "print(1)")), warm=True)
        await server.launcher.kill("a", 0)
        ended = await server.exited("a")
        assert ended.exit_code is None
        assert await server.output("a") == []


async def test_works_that_wait_for_a_fork_server_survive_the_keeper(tmp_path: Path) -> None:
    """What was accepted and had not started when the keeper died is started by the next one, once."""
    async with processes(tmp_path) as server:
        script = _script(tmp_path, "end", "print('ran')")
        for work in ("a", "b"):
            await server.launch(work, str(script), warm=True)
        os.kill(server.launcher.keeper_pid, signal.SIGKILL)
        for work in ("a", "b"):
            assert (await server.exited(work)).exit_code == 0
            assert await server.output(work) == ["ran"]
        assert len([event for event in server.events if isinstance(event, Exited)]) == 2


async def launch_a0(server: Processes, work: str, *, warm: bool) -> None:
    """A task that prints a word, through the SDK's runtime, with an address that nobody listens on."""
    directory, out = server.root / "work" / work, server.root / "out" / work
    for path in (directory, out):
        path.mkdir(parents=True)
    source = "import flyte\nenv = flyte.TaskEnvironment(name='x')\n@env.task\nasync def t() -> None:\n    print('here')\n"
    (directory / "mod.py").write_text(source)
    (out / "inputs.pb").touch()
    argv = ["a0", "--inputs", str(out / "inputs.pb"), "--outputs-path", str(out), "--version", "v", "--run-name", "r"]
    argv += ["--name", "a0", "--raw-data-path", str(out / "raw"), "--run-start-time", "2026-01-01T00:00:00Z"]
    argv += ["--resolver", "flyte._internal.resolvers.default.DefaultTaskResolver", "mod", "mod", "instance", "t"]
    env = {"_U_ORG_NAME": "o", "FLYTE_INTERNAL_EXECUTION_PROJECT": "p", "FLYTE_INTERNAL_EXECUTION_DOMAIN": "d"}
    env |= {"_U_RUN_BASE": str(out), "_U_EP_OVERRIDE": "http://127.0.0.1:9", "_U_INSECURE": "true", "_U_USE_ACTIONS": "1"}
    await server.launch(work, *argv, warm=warm, env={**env, "DO_NOT_TRACK": "1", "FSSPEC_FILE_AUTO_MKDIR": "1"})


def _script(root: Path, name: str, code: str) -> Path:
    path = root / f"{name}.py"
    path.write_text(HEAD + code)
    return path


async def _streams(server: Processes, work: str) -> tuple[list[str], list[str]]:
    lines = (await logs.read(server.log(work))).lines
    texts: dict[str, list[str]] = {"stdout": [], "stderr": []}
    for line in lines:
        texts[line.stream].append(re.sub("0x[0-9a-f]+", "0x", line.text))
    return texts["stdout"], texts["stderr"]


async def _forked(server: Processes, work: str) -> bool:
    return (await server.started(work)).warm
