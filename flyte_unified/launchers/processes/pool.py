"""The keeper's fork servers: started per key, replaced when used up. Standard library only.

A key stands for everything that two tasks must share to start from one server: the launcher derives it. Where forking
after imports is not safe (macOS), a key has a few single-use processes instead, started ahead.
"""

from __future__ import annotations

import os
import resource
import selectors
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from flyte_unified.launchers.processes import facts
from flyte_unified.launchers.processes.forkserver import Frames
from flyte_unified.launchers.processes.task import read_json, remove, signal_all, write_json

_MAXIMUM = 4
_SPARE = 2
_READY_SECONDS = 90
_PATIENCE = 15.0
"""Seconds that a work waits for a server to get ready; one takes 1.5 s of CPU."""
_RESTARTS = 8
_IN_FLIGHT = 16
_REMEMBERED = 1000


class ForkServer:
    """One process that starts tasks."""

    def __init__(self, key: str, pid: int, control: socket.socket, *, scratch: str) -> None:
        self.key = key
        self.pid = pid
        self.control = control
        self.scratch = scratch
        self.frames = Frames()
        self.ready = False
        self.sent: set[str] = set()
        """Works handed over whose process is not known yet."""
        self.promising = False
        """The next one will do better: it need not wait for a work."""
        self.started = time.monotonic()


class Pool:
    """All fork servers of one keeper, and the works that wait for one."""

    def __init__(
        self,
        *,
        directory: str,
        boot: str,
        selector: selectors.BaseSelector,
        nofile: tuple[int, int],
        message: Callable[[ForkServer, dict[str, Any]], None],
        cold: Callable[[dict[str, Any]], None],
        unfit: Callable[[str, str], None],
    ) -> None:
        self._directory = directory + "/servers"
        self._boot = boot
        self._selector = selector
        self._nofile = nofile
        self._message = message
        self._cold = cold
        self._unfit = unfit
        self._configs: dict[str, dict[str, Any]] = {}
        self._queues: dict[str, list[dict[str, Any]]] = {}
        self._servers: list[ForkServer] = []
        self.pids: set[int] = set()
        """Every server not reaped yet, those dismissed included."""
        self._restarts: dict[str, int] = {}
        self._hopeless: set[str] = set()
        self._seen: set[str] = set()

    @property
    def deadline(self) -> float | None:
        """When ``expire`` has something to do."""
        servers = [server.started + _READY_SECONDS for server in self._servers if not server.ready]
        works = [queue[0]["since"] + _PATIENCE for queue in self._queues.values() if queue]
        return min(servers + works, default=None)

    def clear(self) -> None:
        """End the servers that an earlier keeper has left, with what they are just trying out."""
        for path, _, files in os.walk(self._directory):
            for who in (read_json(f"{path}/{name}") for name in ("server", "pid") if name in files):
                if who and who["boot"] == self._boot and facts.start_time(who["pid"]) == who["start"]:
                    signal_all([who["pid"]], signal.SIGKILL)
        remove(self._directory)

    def prepare(self, config: dict[str, Any]) -> bool:
        """Have a server for ``config["key"]``. False when there can be none."""
        key = config["key"]
        if key in self._hopeless:
            return False
        present = len(self._of(key))
        if not present and not self._make_room():
            return False
        self._configs.setdefault(key, config)
        for _ in range((_SPARE if config["single"] else 1) - present):
            self._start(key)
        return True

    def dispatch(self, request: dict[str, Any]) -> None:
        """Have the work started by a server of its key, now or when one is ready; plainly when there is none.

        A key that is new beside others gets a server when it comes again: an environment of its own for each task must
        not mean a server for each task.
        """
        key = request["warm"]["key"]
        new = key not in self._seen and key not in self._configs
        if len(self._seen) >= _REMEMBERED:
            self._seen.clear()
        self._seen.add(key)
        if (new and self._servers) or not self.prepare(request["warm"]):
            return self._cold(request)
        self._queues.setdefault(key, []).append({**request, "since": time.monotonic()})
        return self._pass_on(key)

    def withdraw(self, work: str) -> bool:
        """Take a work back that still waits here."""
        for queue in self._queues.values():
            for request in queue:
                if request["id"] == work:
                    queue.remove(request)
                    return True
        return False

    def gone(self, pid: int) -> ForkServer | None:
        """A process ended: if it was a server, read its last words, then replace it for those who wait."""
        self.pids.discard(pid)
        server = next((server for server in self._servers if server.pid == pid), None)
        if server is not None:
            self._read(server)
            self._drop(server)
        return server

    def expire(self) -> None:
        """Give up servers that do not get ready; start works plainly that have waited for one for too long."""
        now = time.monotonic()
        for queue in self._queues.values():
            while queue and now >= queue[0]["since"] + _PATIENCE:
                self._cold(queue.pop(0))
        for server in list(self._servers):
            if not server.ready and now > server.started + _READY_SECONDS:
                server.started = float("inf")
                os.kill(server.pid, signal.SIGKILL)
                self._give_up(server.key, f"the fork server was not ready after {_READY_SECONDS} seconds")

    def close(self) -> None:
        """End every server; what they started goes on."""
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)
        for pid in self.pids:
            os.waitpid(pid, 0)
        for server in self._servers:
            remove(server.scratch)

    def _of(self, key: str) -> list[ForkServer]:
        return [server for server in self._servers if server.key == key]

    def _start(self, key: str) -> None:
        config = self._configs[key]
        ours, theirs = socket.socketpair()
        config = {**config, "boot": self._boot, "learned": f"{self._directory}/{key}.modules"}
        config["scratch"] = f"{self._directory}/{key}-{time.monotonic_ns()}"
        os.makedirs(config["scratch"])
        pid = self._spawn(config, theirs.fileno())
        theirs.close()
        write_json(config["scratch"] + "/server", {"pid": pid, "start": facts.start_time(pid), "boot": self._boot})
        ours.sendall(Frames.pack(config))
        ours.setblocking(False)
        server = ForkServer(key, pid, ours, scratch=config["scratch"])
        self.pids.add(pid)
        self._servers.append(server)
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._read(server))

    def _spawn(self, config: dict[str, Any], control: int) -> int:
        pid = os.fork()
        if pid == 0:
            try:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os.umask(0o022)
                resource.setrlimit(resource.RLIMIT_NOFILE, self._nofile)
                os.chdir(config["scratch"])
                log = os.open(config["scratch"] + "/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                os.dup2(log, 1)
                os.dup2(log, 2)
                os.set_inheritable(control, True)
                os.execve(config["command"][0], [*config["command"], str(control)], config["env"])
            finally:
                os._exit(127)
        return pid

    def _make_room(self) -> bool:
        """Dismiss the key longest unused if there are as many as may be. False when all are in use."""
        if len({server.key for server in self._servers}) < _MAXIMUM:
            return True
        for server in list(self._servers):
            if server.ready and not server.sent and not self._queues.get(server.key):
                for each in self._of(server.key):
                    self._drop(each)
                return True
        return False

    def _pass_on(self, key: str) -> None:
        queue = self._queues.get(key, [])
        for server in self._of(key):
            while queue and server.ready and len(server.sent) < _IN_FLIGHT:
                request = queue.pop(0)
                self._servers.remove(server)
                self._servers.append(server)
                server.sent.add(request["id"])
                server.ready = not self._configs[key]["single"]
                server.control.setblocking(True)
                try:
                    server.control.sendall(Frames.pack({**request["order"], "env": request["env"]}))
                except OSError:
                    server.sent.discard(request["id"])
                    queue.insert(0, request)
                    self._drop(server)
                    break
                server.control.setblocking(False)

    def _read(self, server: ForkServer) -> None:
        while server in self._servers:
            try:
                data = server.control.recv(1 << 16)
            except BlockingIOError:
                return None
            except OSError:
                data = b""
            if not data:
                return self._drop(server)
            for message in server.frames.feed(data):
                self._hear(server, message)
        return None

    def _hear(self, server: ForkServer, message: dict[str, Any]) -> None:
        if "ready" in message:
            server.ready = True
            self._restarts.pop(server.key, None)
            self._message(server, message)
            self._pass_on(server.key)
        elif "unfit" in message:
            server.ready = False
            avoid = message["avoid"]
            if avoid and avoid not in self._configs[server.key]["avoid"]:
                self._configs[server.key]["avoid"].append(avoid)
                server.promising = True
            elif message["unfit"]:
                self._give_up(server.key, message["unfit"])
        else:
            server.sent -= {message.get("forked", ""), message.get("refused", "")}
            self._message(server, message)
            self._pass_on(server.key)
            if self._configs[server.key]["single"] and "forked" in message:
                self._servers.remove(server)
                self._selector.unregister(server.control)
                server.control.close()
                self.prepare(self._configs[server.key])

    def _drop(self, server: ForkServer) -> None:
        if server not in self._servers:
            return
        self._servers.remove(server)
        self._selector.unregister(server.control)
        server.control.close()
        remove(server.scratch)
        for work in server.sent:
            self._message(server, {"lost": work})
        if server.promising or self._queues.get(server.key):
            self._restarts[server.key] = self._restarts.get(server.key, 0) + 1
            if self._restarts[server.key] > _RESTARTS:
                self._give_up(server.key, "the fork server keeps ending")
            else:
                self.prepare(self._configs[server.key])

    def _give_up(self, key: str, reason: str) -> None:
        self._hopeless.add(key)
        self._unfit(key, reason)
        for request in self._queues.pop(key, []):
            self._cold(request)
