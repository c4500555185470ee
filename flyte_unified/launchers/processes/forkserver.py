"""Starts tasks from a process that has imported the Flyte SDK already. Run by path in the task's own interpreter.

Standard library only, CPython 3.10 to 3.14, imports nothing of ours: the interpreter need not know this project. A task
that starts here must not be able to tell. The server forks only while it has one thread and after one fork of it ran a
real task through the SDK (the canary); it records which variables the imports read, and refuses a task for which they
have other values; a child replaces its environment entirely, resets signals, mask, descriptors, random state, directory
and ``__main__``, and runs the very script that a plain start would have run. User code never runs in the server.

What is preloaded is found out, not written down: whatever a forked child still had to import, the server imports before
its next fork, if it is part of the standard library or of a package that the SDK has brought in itself.

The hash seed of ``str`` is the server's, so that sets of strings iterate alike in all of its children: the one difference.

The keeper uses ``Frames`` and ``enter`` from here, so that a plain task is entered by the same code.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import time

TYPE_CHECKING = False  # importing typing costs time, and this file runs where a task's start is measured
if TYPE_CHECKING:
    from typing import Any, NoReturn

_LEARN = 4
_FORKS = 2000
_RESIDENT = 1 << 30
_CANARY_SECONDS = 30
_REAPPLIED = frozenset({"LOG_LEVEL", "USER_LOG_LEVEL"})
_AHEAD = "flyte._initialize flyte._internal.runtime.taskrunner flyte._internal.controllers.remote"
"""Most of what the canary would import, and the server again after it. A name that is gone costs time and nothing else."""
_CANARY = """
import flyte
env = flyte.TaskEnvironment(name="canary")
@env.task
async def canary() -> None:
    return None
"""
_CANARY_ARGV = """a0 --inputs @/inputs.pb --outputs-path @ --version v --raw-data-path @/raw --run-name r --name a0
--run-start-time 2026-01-01T00:00:00Z --resolver flyte._internal.resolvers.default.DefaultTaskResolver
mod canary_task instance canary"""
_CANARY_ENV = """_U_ORG_NAME=o FLYTE_INTERNAL_EXECUTION_PROJECT=p FLYTE_INTERNAL_EXECUTION_DOMAIN=d _U_RUN_BASE=@
_U_EP_OVERRIDE=http://127.0.0.1:9 _U_INSECURE=true _U_USE_ACTIONS=1 DO_NOT_TRACK=1 FSSPEC_FILE_AUTO_MKDIR=1"""


class Frames:
    """JSON messages on a stream: four bytes of length, then the text."""

    def __init__(self) -> None:
        self._data = bytearray()

    @staticmethod
    def pack(message: dict[str, Any]) -> bytes:
        text = json.dumps(message, separators=(",", ":")).encode()
        return struct.pack(">I", len(text)) + text

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The messages that ``data`` completes."""
        self._data += data
        found = []
        while len(self._data) >= 4:
            end = 4 + struct.unpack_from(">I", self._data)[0]
            if len(self._data) < end:
                break
            found.append(json.loads(bytes(self._data[4:end])))
            del self._data[:end]
        return found


def enter(order: dict[str, Any]) -> None:
    """Turn this fresh process into the one that ``order`` describes, up to running its program.

    The output pipes are opened for reading too: then a task neither fails nor loses a line when the keeper dies, but
    writes on into the pipe until the next keeper reads it.
    """
    if order.get("group"):
        with open(order["group"] + "/cgroup.procs", "w") as file:
            file.write("0")  # this process, before it has anything to count
    os.setsid()
    home = order["home"]
    null = os.open(os.devnull, os.O_RDONLY)
    out = os.open(home + "/out", os.O_RDWR)
    err = os.open(home + "/err", os.O_RDWR)
    for source, target in ((null, 0), (out, 1), (err, 2)):
        os.dup2(source, target)
    for name in os.listdir("/dev/fd"):
        if int(name) > 2:
            try:
                os.close(int(name))
            except OSError:  # the listing's own descriptor
                pass
    for number in signal.valid_signals():
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            try:
                signal.signal(number, signal.SIG_DFL)
            except OSError:  # reserved by the C library
                pass
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o022)
    if "nofile" in order:
        resource.setrlimit(resource.RLIMIT_NOFILE, tuple(order["nofile"]))
    adopt_orphans()
    _claim(home, order["boot"])
    if order.get("private"):  # few tasks need what that takes
        import runpy

        mounts = runpy.run_path(os.path.dirname(os.path.abspath(__file__)) + "/mounts.py")
        mounts["keep_private"](**order["private"])
    os.chdir(order["directory"])


def adopt_orphans() -> None:
    """Make orphaned descendants children of this process, as process 1 of a pod is to them. Linux only."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def start_time() -> str:
    """When this process was started, in the words of ``facts.start_time``."""
    if sys.platform == "linux":
        with open("/proc/self/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[19].decode()
    import subprocess

    argv = ["ps", "-o", "lstart=", "-p", str(os.getpid())]
    return subprocess.run(argv, capture_output=True, text=True, check=False, env={"LC_ALL": "C"}).stdout.strip()


def _claim(home: str, boot: str) -> None:
    """Record that this process is the work's. Fails when a new keeper has declared the work not started."""
    draft = f"{home}/pid.{os.getpid()}"
    with open(draft, "w") as file:
        at = time.time_ns() // 1000
        json.dump({"pid": os.getpid(), "start": start_time(), "boot": boot, "at": at}, file)
    os.link(draft, home + "/pid")
    os.unlink(draft)


class _Recorder(os._Environ):  # type: ignore[type-arg]  # a plain class on 3.10
    """The environment, remembering what is asked of it."""

    def __getitem__(self, key: str) -> str:
        _read.add(key)
        return super().__getitem__(key)  # type: ignore[no-any-return]  # untyped on 3.10


_read: set[str] = set()


class _Unfit(Exception):
    """This process cannot be forked from; the second argument names a package none of which is better imported next time."""


class Server:
    """Imports once, forks per task."""

    def __init__(self, control: socket.socket, config: dict[str, Any]) -> None:
        self._control = control
        self._config = config
        self._frames = Frames()
        self._background: Any = None
        self._environment = dict(os.environ)
        self._added = {name: value for name, value in os.environ.items() if name not in config["env"]}
        self._children: dict[int, dict[str, Any]] = {}
        self._forks = 0
        self._allowed: tuple[str, ...] = ()

    def serve(self) -> None:
        """Preload, then obey the keeper until it goes or this server is used up."""
        try:
            self._preload()
            if self._config["single"]:
                self._learn(self._config["learned"], trusted=False)
            else:
                self._canary()
        except _Unfit as unfit:
            return self._send({"unfit": str(unfit.args[0]), "avoid": unfit.args[1]})
        self._send({"ready": sorted(_read - _REAPPLIED)})
        if self._config["single"]:
            return self._serve_one()
        wake, waker = socket.socketpair()
        wake.setblocking(False)
        waker.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        while self._config:
            ready, _, _ = select.select([self._control, wake], [], [])
            if wake in ready:
                wake.recv(4096)
                self._reap()
            if self._control in ready:
                if not (data := self._control.recv(1 << 18)):
                    return None
                for message in self._frames.feed(data):
                    self._fork(message)
        return None

    def _serve_one(self) -> None:
        while data := self._control.recv(1 << 18):
            for order in self._frames.feed(data):
                if not self._refused(order):
                    self._send({"forked": order["id"], "pid": os.getpid()})
                    order["learn"] = self._config["learned"]
                    self._become(order)

    def _preload(self) -> None:
        import importlib
        import sysconfig

        paths = sysconfig.get_paths()
        names = ("stdlib", "platstdlib", "purelib", "platlib")
        self._allowed = tuple({os.path.realpath(paths[name]) + os.sep for name in names})
        os.environ.__class__ = _Recorder
        try:
            for name in self._config["modules"]:
                module = importlib.import_module(name)
                if not os.path.realpath(module.__file__ or "").startswith(self._allowed):
                    raise _Unfit(f"{name} is not installed but edited in place ({module.__file__})", "")
        except ImportError as error:
            raise _Unfit(f"{error}", "") from error
        self._stop_background()
        self._check_single("")

    def _stop_background(self) -> None:
        """Stop the SDK's own thread, which no fork takes along. ``__init__`` starts it again, in the child."""
        import atexit

        try:
            background = sys.modules["flyte.syncify"].syncify._bg_loop
            background.loop.call_soon_threadsafe(background.loop.stop)
            background.thread.join(5)
            atexit.unregister(background.stop)
            background.loop.close()
        except Exception as error:
            raise _Unfit(f"the SDK's background thread cannot be stopped: {error!r}", "") from error
        self._background = background

    def _canary(self) -> None:
        """Fork once and run a task of no content through the whole SDK, against an address where nobody listens."""
        scratch = self._config["scratch"]
        for name, text in (("canary_task.py", _CANARY), ("inputs.pb", ""), ("out", ""), ("err", ""), ("modules", _AHEAD)):
            with open(f"{scratch}/{name}", "w") as file:
                file.write(text)
        argv = [word.replace("@", scratch) for word in _CANARY_ARGV.split()]
        env = dict(word.replace("@", scratch).split("=", 1) for word in _CANARY_ENV.split())
        order = {"id": "canary", "home": scratch, "directory": scratch, "env": {**self._environment, **env}, "argv": argv}
        order |= {"program": self._config["canary"], "boot": self._config["boot"], "learn": scratch + "/modules"}
        self._learn(order["learn"], trusted=True)
        if (pid := os.fork()) == 0:
            signal.alarm(_CANARY_SECONDS)
            self._become(order)
        status = os.waitpid(pid, 0)[1]
        if status or not os.path.exists(scratch + "/outputs.pb"):
            with open(scratch + "/err") as file:
                raise _Unfit(f"a forked task did not work: status {status}: {file.read()[-2000:]}", "")
        self._learn(order["learn"], trusted=True)

    def _learn(self, path: str, *, trusted: bool) -> None:
        """Import what a child had to import. Unless it is ``trusted`` to have had no user code: as far as the SDK has
        brought in the package itself, or Python has."""
        import gc
        import importlib

        try:
            with open(path) as file:
                names = file.read().split()
        except FileNotFoundError:
            return
        before = len(sys.modules)
        known = {name.partition(".")[0] for name in sys.modules} | sys.stdlib_module_names
        for name in names:
            package = name.partition(".")[0]
            if name in sys.modules or package in self._config["avoid"]:
                continue
            if trusted or package in known:
                try:
                    importlib.import_module(name)
                except Exception:  # a module that only works where the child imported it
                    continue
                self._check_single(package)
        _prebuild()
        if len(sys.modules) > before:  # the collector shall not touch, and so copy, pages that children share
            gc.collect()
            gc.freeze()

    def _refused(self, order: dict[str, Any]) -> bool:
        order["env"] = {**self._added, **order["env"]}  # what an interpreter adds when it starts: LC_CTYPE (PEP 538)
        names = [n for n in _read - _REAPPLIED if order["env"].get(n) != self._environment.get(n)]
        if names:
            self._send({"refused": order["id"], "names": sorted(names)})
        return bool(names)

    def _fork(self, order: dict[str, Any]) -> None:
        if self._refused(order):
            return
        self._forks += 1
        order["learn"] = order["home"] + "/modules" if self._forks <= _LEARN else ""
        pid = os.fork()
        if pid == 0:
            self._become(order)
        self._children[pid] = {name: order[name] for name in ("id", "home", "learn")}  # a secret stays in its own process
        self._send({"forked": order["id"], "pid": pid})

    def _reap(self) -> None:
        while self._children:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                return
            order = self._children.pop(pid)
            spent = [usage.ru_maxrss, usage.ru_utime, usage.ru_stime]
            self._send({"ended": order["id"], "status": status, "usage": spent})
            if order["learn"]:
                try:
                    self._learn(order["home"] + "/modules", trusted=False)
                except _Unfit as unfit:
                    self._send({"unfit": str(unfit.args[0]), "avoid": unfit.args[1]})
                    self._config = {}
            unit = 1 if sys.platform == "darwin" else 1024
            if self._forks >= _FORKS or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit > _RESIDENT:
                self._send({"unfit": "", "avoid": ""})
                self._config = {}

    def _send(self, message: dict[str, Any]) -> None:
        self._control.sendall(Frames.pack(message))

    def _become(self, order: dict[str, Any]) -> NoReturn:
        """In the child: be the task, then end as an interpreter ends."""
        status = 127
        try:
            signal.set_wakeup_fd(-1)
            before = set(sys.modules)
            enter(order)
            _reset(order)
            self._background.__init__(self._background.thread.name)
            status = _run(order)
            if order["learn"]:
                self._report(order["learn"], set(sys.modules) - before)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)

    def _report(self, path: str, names: set[str]) -> None:
        origins = {name: getattr(getattr(sys.modules[name], "__spec__", None), "origin", None) for name in names}
        names = {name for name in names if os.path.realpath(origins[name] or "").startswith(self._allowed)}
        with open(f"{path}.{os.getpid()}", "w") as file:
            file.write("\n".join(sorted(names)))
        os.replace(file.name, path)

    def _check_single(self, cause: str) -> None:
        """Raise unless this process has one thread. One that was joined takes a moment longer to leave the system."""
        import threading

        if self._config["single"]:
            return
        deadline = time.monotonic() + 1
        while (count := _threads()) > 1 and threading.active_count() == 1 and time.monotonic() < deadline:
            time.sleep(0.001)
        if count > 1:
            names = ", ".join(thread.name for thread in threading.enumerate() if thread is not threading.main_thread())
            raise _Unfit(f"importing {cause or 'the SDK'} started a thread {names}", cause)


def _prebuild() -> None:
    """Do once what the SDK does at each start and which comes out the same: half of what a forked task would still pay.

    That is reading the trust store, twice, for a session that signs in, and asking which plugins are installed. Both
    depend on the installation and the variables that are compared. All of it is private to the SDK: where a name has
    changed, nothing is gained and nothing lost.
    """
    try:
        sys.modules["flyte._utils.entry_points"]._installed_entry_points()
        session: Any = sys.modules["flyte.remote._client.auth._session"]
        session._supports_system_certs()
        original = session.get_async_session
        if getattr(original, "__module__", "") == __name__:
            return
        context = sys.modules["httpx"].create_ssl_context()
    except (KeyError, AttributeError):
        return

    def get_async_session(*args: Any, **kwargs: Any) -> Any:
        if not args and kwargs.get("ca_cert_file_path") is None:
            kwargs.setdefault("verify", context)
        return original(*args, **kwargs)

    session.get_async_session = get_async_session


def _threads() -> int:
    import threading

    return len(os.listdir("/proc/self/task")) if sys.platform == "linux" else threading.active_count()


def _reset(order: dict[str, Any]) -> None:
    """Give this process the state that a newly started interpreter would have."""
    import random

    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.__class__ = os._Environ
    os.environ.clear()
    os.environ.update(order["env"])
    time.tzset()
    random.seed()
    modules: dict[str, Any] = dict(sys.modules)
    if "numpy.random" in modules:
        modules["numpy.random"].seed()
    if "tempfile" in modules:
        modules["tempfile"].tempdir = None
    if "multiprocessing.process" in modules:
        modules["multiprocessing.process"].current_process().authkey = os.urandom(32)
    if "flyte._logging" in modules:
        log = modules["flyte._logging"]
        for logger, level in ((log.logger, log.get_env_log_level()), (log.user_logger, log.get_env_user_log_level())):
            logger.setLevel(level)
            for handler in logger.handlers:
                handler.setLevel(level)


def _run(order: dict[str, Any]) -> int:
    """Run the script as ``python <script>`` would, and return the exit status."""
    import atexit
    import threading
    import types

    program = order["program"]
    sys.argv = list(order["argv"])
    sys.orig_argv = [sys.executable, *sys.argv]
    main = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = sys.modules["builtins"]
    sys.modules["__main__"] = main
    main.__file__ = program
    if not getattr(sys.flags, "safe_path", False):
        sys.path.insert(0, os.path.dirname(os.path.realpath(program)))
    with open(program, "rb") as file:
        source = file.read()
    error: BaseException | None = None
    status = 0
    try:
        exec(compile(source, program, "exec"), main.__dict__)
    except SystemExit as end:
        status = _status(end.code)
    except BaseException as raised:
        status, error = 1, raised
        sys.excepthook(type(raised), raised, raised.__traceback__ and raised.__traceback__.tb_next)
    threading._shutdown()  # type: ignore[attr-defined]  # what the interpreter calls: ends pools, joins threads
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            try:
                stream.flush()
            except OSError:
                status = 120  # as the interpreter has it
    if isinstance(error, KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    return status


def _status(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)  # noqa: T201 - as the interpreter does
    return 1


def main() -> None:
    """``forkserver.py <descriptor of the keeper's socket>``"""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if os.path.abspath(path) != here]
    control = socket.socket(fileno=int(sys.argv[1]))
    frames = Frames()
    config: list[dict[str, Any]] = []
    while not config:
        if not (data := control.recv(1 << 18)):
            return
        config = frames.feed(data)
    Server(control, config[0]).serve()
    os._exit(0)


if __name__ == "__main__":
    main()
