"""The process that owns tasks and fork servers, so that neither dies with the server. Standard library only.

Run by path, ``python -I -S keeper.py <directory>``: one per data directory, in a session of its own. It reads the tasks'
output into their logs, reaps them, writes each exit to a file before it tells anyone, and keeps what the server has not
acknowledged. One loop, one thread, no asyncio: it starts in 20 ms and weighs little.

It may be killed too: all it knows is in the works' directories, and the next keeper takes the tasks over (task.py).

A task is the adopter of its orphans, and the keeper of what a task leaves behind (Linux): so a child that the keeper did
not start belongs to a task that has ended, and is killed. Elsewhere what a task leaves is found by its process group.

The server's messages: hello, launch, warm, kill, forget, follow, stop, quit. Ours: welcome, accepted, started, exited,
forgotten, grew, ready, unfit, differs, error. ``VERSION`` changes with their meaning; a server that finds another version
has the keeper quit, which harms no task, and starts its own.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":  # our package without its __init__, which is not the keeper's business
    import types

    _package = types.ModuleType("flyte_unified")
    _package.__path__ = [os.path.abspath(__file__).rsplit(os.sep, 3)[0]]
    sys.modules["flyte_unified"] = _package

import fcntl
import heapq
import itertools
import selectors
import signal
import socket
import time
import traceback
from collections.abc import Callable
from typing import Any

from flyte_unified.launchers.processes import cgroups, facts, task
from flyte_unified.launchers.processes.forkserver import adopt_orphans
from flyte_unified.launchers.processes.link import Link, listen
from flyte_unified.launchers.processes.pool import ForkServer, Pool
from flyte_unified.launchers.processes.pump import QUIET
from flyte_unified.launchers.processes.task import Task

VERSION = 2
_LOCK_SECONDS = 2
_FIRST_LINGER = 15.0
_LINGER = 2.0
_DRAIN = 2.0
_LOG_BYTES = 1 << 20
_FILL = 2 << 30
"""Bytes a second that a task is assumed to be able to fill: how soon its memory is looked at again."""


class Keeper:
    """All tasks of one data directory."""

    def __init__(self, directory: str, *, ephemeral: bool) -> None:
        self._directory = directory
        self._ephemeral = ephemeral
        self._boot = facts.boot_id()
        self._nofile = facts.raise_descriptor_limit()  # each task needs five
        self._groups = cgroups.find()
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._tasks: dict[str, Task] = {}
        self._by_pid: dict[int, Task] = {}
        self._ended: dict[str, tuple[dict[str, Any], str]] = {}
        self._link = Link(selector=self._selector, obey=self._obey, lost=self._lost_server)
        self._tell = self._link.tell
        self._over = False
        self._quit_at = time.monotonic() + _FIRST_LINGER
        self._pool = Pool(
            directory=directory,
            boot=self._boot,
            selector=self._selector,
            nofile=self._nofile,
            message=self._hear_fork_server,
            cold=self._start_cold,
            unfit=lambda key, reason: self._tell({"unfit": key, "reason": reason}),
        )

    def run(self, listener: socket.socket) -> None:
        """Serve until nobody needs this keeper."""
        wake, waker = socket.socketpair()
        wake.setblocking(False)
        waker.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        self._selector.register(wake, selectors.EVENT_READ, lambda: self._woken(wake))
        self._selector.register(listener, selectors.EVENT_READ, lambda: self._link.accept(listener))
        self._adopt()
        while not self._over:
            for key, _ in self._selector.select(self._timeout()):
                if self._selector.get_map().get(key.fd) is not key:
                    continue  # an earlier event of this round closed it
                key.data()
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                heapq.heappop(self._timers)[2]()
            self._pool.expire()
            if not self._link.up and not self._tasks and now >= self._quit_at:
                self._over = True
        self._pool.close()
        for orphan in self._kill_orphans():
            os.waitpid(orphan, 0)
        self._groups.sweep()

    def _timeout(self) -> float | None:
        times = [self._timers[0][0]] if self._timers else []
        if not self._link.up and not self._tasks:
            times.append(self._quit_at)
        if (deadline := self._pool.deadline) is not None:
            times.append(deadline)
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._count), action))

    # The server

    def _lost_server(self) -> None:
        for work in self._tasks.values():
            work.followed_from = None
        self._quit_at = time.monotonic() + (0 if self._ephemeral else _LINGER)
        if self._ephemeral:
            self._signal(list(self._tasks.values()), signal.SIGKILL)

    def _obey(self, message: dict[str, Any]) -> None:
        verb = message["verb"]
        try:
            if verb == "launch":
                self._launch(message)
                self._tell({"accepted": message["order"]["id"]})
            elif verb == "kill":
                self._kill(message["id"], message["grace"])
            elif verb == "forget":
                self._forget(message["id"])
            elif verb == "follow":
                self._follow(message["id"], message["offset"])
            elif verb == "warm":
                self._pool.prepare(message["warm"])
            elif verb == "stop":
                self._stop(message["grace"])
            elif verb == "quit":
                self._over = True
            elif verb == "hello":
                self._welcome(message)
        except Exception as error:  # one bad request must not take the others' tasks with it
            work = message.get("order", message).get("id", "")
            self._tell({"error": f"{type(error).__name__}: {error}", "verb": verb, "id": work})

    def _welcome(self, message: dict[str, Any]) -> None:
        running = [{"id": t.id, "pid": t.pid, "at": t.at, "home": t.home} for t in self._tasks.values() if t.pid]
        exited = [record for record, _ in self._ended.values()]
        self._link.welcome({"welcome": VERSION, "pid": os.getpid(), "running": running, "exited": exited})
        if message["version"] == VERSION:
            self._ephemeral = message["ephemeral"]

    # Works

    def _launch(self, message: dict[str, Any]) -> None:
        order = message["order"]
        if ended := self._ended.get(order["id"]):
            return self._tell({"exited": ended[0]})
        if work := self._tasks.get(order["id"]):
            return self._tell_started(work) if work.pid else None
        home = f"{self._directory}/work/{order['id']}@{time.time_ns()}"  # never used again: see Task
        order |= {"home": home, "boot": self._boot, "nofile": self._nofile, "group": self._group(home, order["memory_limit"])}
        work = Task(home, order)
        work.request = {**message, "id": work.id}
        kept = ("id", "directory", "log", "log_limit", "memory_limit", "group")
        task.write_json(home + "/order", {name: order[name] for name in kept})
        self._tasks[work.id] = work
        if note := order.get("note"):
            work.notice(f"[flyte-unified] {note}")
        for fd in work.streams:
            self._selector.register(fd, selectors.EVENT_READ, lambda fd=fd: self._pump(work, fd))
        if message["warm"]:
            return self._pool.dispatch(work.request)
        return self._start_cold(work.request)

    def _group(self, home: str, limit: int) -> str:
        """Where the kernel shall keep the limit of a work; empty when we must. Others pay no 10 ms for a change of group."""
        group = self._groups.create(f"flyte-{home.rpartition('@')[2]}", limit) if limit else None
        return group.path if group else ""

    def _start_cold(self, message: dict[str, Any]) -> None:
        order = message["order"]
        work = self._tasks[order["id"]]
        try:
            pid = task.spawn(order, message["env"])
        except OSError as error:  # the system has no more processes for us
            work.notice(f"[flyte-unified] the task cannot be started: {error}")
            return self._exited(work, None, [0, 0, 0])
        return self._started(work, pid)

    def _tell_started(self, work: Task) -> None:
        self._tell({"started": work.id, "pid": work.pid, "at": work.at, "warm": work.warm, "home": work.home})

    def _started(self, work: Task, pid: int, *, warm: bool = False) -> None:
        work.pid = pid
        work.warm = warm
        work.at = time.time_ns() // 1000
        work.request = {}
        self._by_pid[pid] = work
        self._tell_started(work)
        if work.doomed:
            self._signal([work], work.doomed)
        self._watch_memory(work)

    def _pump(self, work: Task, fd: int) -> None:
        stream = work.streams[fd]
        waiting = stream.unfinished
        if not work.read(fd):
            self._selector.unregister(fd)
            work.open_streams -= 1
            if work.exit is not None and not work.open_streams:
                self._finish(work)
            return
        if stream.unfinished and not waiting:
            self._later(QUIET, lambda: self._flush_line(work, fd))
        self._wake_follower(work)

    def _flush_line(self, work: Task, fd: int) -> None:
        if self._tasks.get(work.id) is work:
            work.streams[fd].flush(goes_on=True)
            self._wake_follower(work)

    def _follow(self, work_id: str, offset: int) -> None:
        work = self._tasks.get(work_id)
        if work is None:
            self._tell({"grew": work_id})
        else:
            work.followed_from = offset if work.followed_from is None else min(offset, work.followed_from)
            self._wake_follower(work)

    def _wake_follower(self, work: Task) -> None:
        if work.followed_from is not None and work.log.offset > work.followed_from:
            work.followed_from = None
            self._tell({"grew": work.id})

    def _kill(self, work_id: str, grace: float) -> None:
        work = self._tasks.get(work_id)
        if work is None:
            return
        self._signal([work], signal.SIGTERM if grace > 0 else signal.SIGKILL)
        if grace > 0:
            self._later(grace, lambda: self._signal([work], signal.SIGKILL))

    def _signal(self, works: list[Task], number: int) -> None:
        processes = facts.table()
        for work in works:
            work.doomed = number
            if not work.pid and self._pool.withdraw(work.id):
                self._exited(work, number, [0, 0, 0])
            elif work.pid and work.exit is None:
                task.signal_all(facts.tree(work.pid, processes), number)
                if work.group and number == signal.SIGKILL:
                    work.group.kill()

    def _stop(self, grace: float) -> None:
        works = list(self._tasks.values())
        self._signal(works, signal.SIGTERM)
        self._later(grace, lambda: self._signal(list(self._tasks.values()), signal.SIGKILL))

    def _forget(self, work_id: str) -> None:
        if ended := self._ended.pop(work_id, None):
            task.remove(ended[1])
        self._tell({"forgotten": work_id})

    # Ends

    def _woken(self, wake: socket.socket) -> None:
        wake.recv(4096)
        self._reap()

    def _reap(self) -> None:
        reaped = lost = False
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if work := self._by_pid.pop(pid, None):
                self._pool.pids.discard(pid)
                self._exited(work, status, [usage.ru_maxrss, usage.ru_utime, usage.ru_stime])
            elif self._pool.gone(pid):
                lost = True
            reaped = True
        if lost:
            self._find_lost()
        if reaped:
            self._kill_orphans()
            self._groups.sweep()

    def _find_lost(self) -> None:
        """A fork server is gone, perhaps between reaping a task and telling it: nobody else will."""
        for pid, work in list(self._by_pid.items()):
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                del self._by_pid[pid]
                self._exited(work, None, [0, 0.0, 0.0])

    def _kill_orphans(self) -> set[int]:
        """Returns the children that are none of ours: what tasks, or fork servers that failed, have left."""
        if not facts.LINUX:
            return set()
        known = self._pool.pids | self._by_pid.keys()
        if orphans := set(facts.children(os.getpid())) - known:
            processes = facts.table()
            for orphan in orphans:
                task.signal_all(facts.tree(orphan, processes) - known, signal.SIGKILL)
        return orphans

    def _exited(self, work: Task, status: int | None, usage: list[float]) -> None:
        """The task's own process is gone; its output may still be on the way."""
        if work.exit is not None:
            return
        work.end(status, usage)
        if not facts.LINUX:
            self._sweep(work)
        work.release()
        self._later(_DRAIN, lambda: self._finish(work))

    def _sweep(self, work: Task) -> None:
        """End what is left of a task that is gone, where its orphans are not ours: as far as its group and session tell."""
        task.signal_all(facts.tree(work.pid, facts.table()) - {work.pid}, signal.SIGKILL)

    def _finish(self, work: Task) -> None:
        if self._tasks.get(work.id) is not work:
            return
        self._drop(work)
        record = work.finish()
        self._ended[work.id] = record, work.home
        self._tell({"exited": record})
        if work.followed_from is not None:
            self._tell({"grew": work.id})
        self._quit_at = time.monotonic() + (0 if self._ephemeral else _LINGER)

    def _drop(self, work: Task) -> None:
        del self._tasks[work.id]
        self._groups.discard(work.group)
        for fd in work.streams:
            if fd in self._selector.get_map():
                self._selector.unregister(fd)

    def _watch_memory(self, work: Task) -> None:
        if work.exit is not None or not work.memory_limit or work.group:
            return
        pids = facts.descendants(work.pid)
        used = facts.resident(pids)
        if used > work.memory_limit:
            used = facts.proportional(pids)
        if used > work.memory_limit:
            work.oom = True
            limit = work.memory_limit >> 20
            work.notice(f"[flyte-unified] killed: the task uses {used >> 20} MiB of memory, its limit is {limit} MiB")
            self._signal([work], signal.SIGKILL)
        else:
            self._later(min(1.0, max(0.05, (work.memory_limit - used) / _FILL)), lambda: self._watch_memory(work))

    # Fork servers

    def _hear_fork_server(self, server: ForkServer, message: dict[str, Any]) -> None:
        if "ready" in message:
            return self._tell({"ready": server.key, "names": message["ready"], "pid": server.pid})
        work = self._tasks.get(next(message[verb] for verb in ("forked", "ended", "refused", "lost") if verb in message))
        if work is None:
            return None
        if "forked" in message:
            self._started(work, message["pid"], warm=True)
        elif "ended" in message:
            if self._by_pid.get(work.pid) is work:
                del self._by_pid[work.pid]
            self._exited(work, message["status"], message["usage"])
            self._kill_orphans()
        elif "refused" in message:
            self._tell({"differs": server.key, "names": message["names"]})
            self._start_cold(work.request)
        elif not task.void(work.home) and (pid := task.identity(work.home)["pid"]):
            self._started(work, pid, warm=True)  # forked, but the server died before it could say so: it is our child now
        elif work.doomed:
            self._exited(work, work.doomed, [0, 0, 0])
        else:  # whatever the dead server did can no longer claim the work
            request = work.request
            self._drop(work)
            work.close()
            task.remove(work.home)
            self._launch(request)
        return None

    # After a keeper's death

    def _adopt(self) -> None:
        """Take over what an earlier keeper left."""
        self._pool.clear()
        root = f"{self._directory}/work"
        os.makedirs(root, exist_ok=True)
        for name in os.listdir(root):
            home = f"{root}/{name}"
            order = task.read_json(home + "/order")
            if record := task.read_json(home + "/exit"):
                self._ended[record["id"]] = record, home
                self._groups.discard(cgroups.of(order))
            elif not order or task.void(home):
                self._groups.discard(cgroups.of(order))
                task.remove(home)  # never started: the server launches it again
            else:
                self._adopt_one(home, order, task.identity(home))

    def _adopt_one(self, home: str, order: dict[str, Any], who: dict[str, Any]) -> None:
        same = who["boot"] == self._boot and facts.start_time(who["pid"]) == who["start"]
        try:
            work = Task(home, order)
        except OSError as error:  # its directory, or the log's, is not what it was: nobody could follow it
            os.write(2, f"{order['id']}: cannot be taken over: {error}\n".encode())
            if same:
                task.signal_all(facts.tree(who["pid"], facts.table()), signal.SIGKILL)
            self._ended[order["id"]] = task.ended(order["id"], who["pid"], None, [0, 0, 0]), home
            return
        self._tasks[work.id] = work
        work.pid = who["pid"]
        work.at = who["at"]
        for fd in work.streams:
            self._selector.register(fd, selectors.EVENT_READ, lambda fd=fd: self._pump(work, fd))
        if not same:
            self._exited(work, None, [0, 0, 0])
            return
        self._when_gone(work)
        self._watch_memory(work)

    def _when_gone(self, work: Task) -> None:
        """Notice the end of a process that is not our child."""
        try:
            handle = facts.end_of(work.pid)
        except ProcessLookupError:
            return self._exited(work, None, [0, 0, 0])

        def gone() -> None:
            self._selector.unregister(handle)
            handle.close()
            self._sweep(work)
            self._exited(work, None, [0, 0, 0])

        self._selector.register(handle, selectors.EVENT_READ, gone)
        return None


def main() -> None:
    """``keeper.py <directory> <ephemeral: 0 or 1>``. Returns to the caller when the keeper listens."""
    directory, ephemeral = os.path.abspath(sys.argv[1]), sys.argv[2] == "1"
    lock = os.open(directory + "/keeper.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    signal.alarm(_LOCK_SECONDS)  # whoever holds it did not answer the server: it is about to end
    fcntl.flock(lock, fcntl.LOCK_EX)
    signal.alarm(0)
    listener, path = listen(directory)
    ready, said = os.pipe()
    if os.fork():
        os.close(said)
        os.read(ready, 1)
        os._exit(0)
    os.setsid()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    log = os.open(directory + "/keeper.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    if os.fstat(log).st_size > _LOG_BYTES:
        os.ftruncate(log, 0)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    adopt_orphans()
    keeper = Keeper(directory, ephemeral=ephemeral)
    task.write_json(directory + "/keeper", {"pid": os.getpid(), "socket": path, "version": VERSION})
    os.write(said, b".")
    os.close(said)
    try:
        keeper.run(listener)
    except BaseException:
        traceback.print_exc()
    finally:
        os.unlink(path)
        if not path.startswith(directory):
            os.rmdir(os.path.dirname(path))
        os._exit(0)


if __name__ == "__main__":
    main()
