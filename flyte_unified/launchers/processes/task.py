"""One work as the keeper holds it: its directory on disk, its output pipes, its log, its exit. Standard library only.

Everything needed to take a running task over lies in its directory: ``order`` (what the keeper must know of it),
``pid`` (who it is, written by the process itself before it becomes the task), the named pipes ``out`` and ``err``, and
at last ``exit``. No directory is used twice, so a process that was overtaken by its keeper's death finds no place to
claim. A keeper may die at any moment: the task writes on into pipes that it holds open itself, for reading
too, so it sees neither SIGPIPE nor a lost line; at worst it waits when a pipe is full, until the next keeper reads.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from collections.abc import Iterable
from typing import Any

from flyte_unified.launchers.processes import cgroups, facts
from flyte_unified.launchers.processes.forkserver import enter
from flyte_unified.launchers.processes.pump import LogWriter, Stream

_PIPE_BYTES = 256 * 1024
_CHUNK = 64 * 1024


class Task:
    """A work that runs, or is about to."""

    def __init__(self, home: str, order: dict[str, Any]) -> None:
        self.id: str = order["id"]
        self.home = home
        self.memory_limit: int = order["memory_limit"]
        self.group = cgroups.of(order)
        """Where the kernel keeps the limit, if it does."""
        self.pid = 0
        self.warm = False
        self.at = 0
        """When it was started, microseconds since the epoch."""
        self.exit: dict[str, Any] | None = None
        self.oom = False
        self.doomed = 0
        """The signal that its end was asked for with."""
        self.followed_from: int | None = None
        self.request: dict[str, Any] = {}
        """The launch request while it waits for a fork server."""
        for directory in (home, order["directory"], os.path.dirname(order["log"])):
            os.makedirs(directory, exist_ok=True)
        out, err = _open_pipe(home + "/out"), _open_pipe(home + "/err")
        self.log = LogWriter(order["log"], limit=order["log_limit"])
        self.streams = {out: Stream(b"o", self.log), err: Stream(b"e", self.log)}
        self.open_streams = len(self.streams)
        self._writers = [os.open(home + name, os.O_WRONLY | os.O_CLOEXEC) for name in ("/out", "/err")]

    def read(self, fd: int) -> bool:
        """Move what the pipe holds, up to a chunk, to the log. False at its end."""
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return True
        if data:
            self.streams[fd].feed(data)
        return bool(data)

    def notice(self, text: str) -> None:
        """A line of ours in the task's log."""
        stream = Stream(b"s", self.log)
        stream.feed(text.encode() + b"\n")

    def end(self, status: int | None, usage: list[float]) -> None:
        """Its own process is gone: say how, with the kernel's account of the whole tree where there is one."""
        if self.group is not None:
            self.group.kill()
            self.oom = self.group.was_out_of_memory()
            usage = [max(usage[0], self.group.peak() >> 10), *usage[1:]]
            if self.oom:
                self.notice(f"[flyte-unified] killed: no memory is left, its limit is {self.memory_limit >> 20} MiB")
        self.exit = ended(self.id, self.pid, status, usage, oom=self.oom)

    def release(self) -> None:
        """Give up our hold on the pipes' writing ends, so that they end with the last writer."""
        while self._writers:
            os.close(self._writers.pop())

    def close(self) -> None:
        """Give up all descriptors."""
        self.release()
        for fd in self.streams:
            os.close(fd)
        self.log.close()

    def finish(self) -> dict[str, Any]:
        """Complete the log and make the exit durable. Returns the exit record."""
        for stream in self.streams.values():
            stream.flush(goes_on=False)
        if self.log.lost:
            self.notice(f"[flyte-unified] {self.log.lost} bytes of output could not be written")
        self.close()
        record = self.exit or {}
        try:
            write_json(self.home + "/exit", record, sync=True)
        except OSError as error:  # told is better than lost
            os.write(2, f"{self.id}: the exit cannot be recorded: {error}\n".encode())
        return record


def ended(task_id: str, pid: int, status: int | None, usage: list[float], *, oom: bool = False) -> dict[str, Any]:
    """An exit record. ``status`` as of wait(2), None when nobody could see it; ``usage`` max RSS as of getrusage, cpu."""
    code = None if status is None or os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    number = os.WTERMSIG(status) if status is not None and os.WIFSIGNALED(status) else None
    return {
        "id": task_id,
        "pid": pid,
        "code": code,
        "signal": number,
        "known": status is not None,
        "max_rss": int(usage[0]) * (1024 if facts.LINUX else 1),
        "cpu": usage[1] + usage[2],
        "at": time.time_ns() // 1000,
        "oom": oom,
    }


def spawn(order: dict[str, Any], env: dict[str, str]) -> int:
    """Start a new process for a work. Raises OSError when the system has no room for one."""
    pid = os.fork()
    if pid == 0:
        try:
            signal.set_wakeup_fd(-1)
            enter(order)
            os.execvpe(order["command"][0], order["command"], env)
        except BaseException as error:
            os.write(2, f"[flyte-unified] {order['command'][0]} cannot be run: {error}\n".encode())
        finally:
            os._exit(127)
    return pid


def signal_all(pids: Iterable[int], number: int) -> None:
    """Send a signal to those of ``pids`` that are there and ours."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            pass


def identity(home: str) -> dict[str, Any]:
    """Who claims to be the work, or an empty dict."""
    return read_json(home + "/pid")


def void(home: str) -> bool:
    """Make sure that a work without a process never gets one. False when it has one by now."""
    try:
        os.close(os.open(home + "/pid", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return not identity(home)
    return True


def remove(directory: str) -> None:
    """Remove a directory with all that is in it, as far as it lets itself be removed."""
    for path, directories, files in os.walk(directory, topdown=False):
        for name in [*files, *directories]:
            try:
                (os.rmdir if name in directories else os.unlink)(f"{path}/{name}")
            except OSError:  # a late child writes: the next keeper finds the rest
                pass
    try:
        os.rmdir(directory)
    except OSError:
        pass


def read_json(path: str) -> dict[str, Any]:
    """The record at ``path``; empty when there is none, or none that survived the machine's own end."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return {}
    try:
        return dict(json.loads(data))
    except ValueError:
        return {}


def write_json(path: str, record: dict[str, Any], *, sync: bool = False) -> None:
    """Replace ``path`` in one step."""
    with open(path + ".new", "w") as file:
        json.dump(record, file)
        if sync:
            file.flush()
            os.fsync(file.fileno())
    os.replace(path + ".new", path)


def _open_pipe(path: str) -> int:
    try:
        os.mkfifo(path, 0o600)
    except FileExistsError:
        pass
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if facts.LINUX:
        try:
            fcntl.fcntl(fd, 1031, _PIPE_BYTES)  # F_SETPIPE_SZ
        except PermissionError:  # the user's share of pipe memory is used up: the default size serves too
            pass
    return fd
