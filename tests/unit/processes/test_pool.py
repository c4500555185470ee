"""Which works get a fork server, and how many servers there are. No process here: servers are the ends of socket pairs."""

from __future__ import annotations

import selectors
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flyte_unified.launchers.processes import forkserver
from flyte_unified.launchers.processes.forkserver import Frames
from flyte_unified.launchers.processes.pool import ForkServer, Pool


class Served(Pool):
    """Remembers what it is asked for."""

    def __init__(self, directory: Path) -> None:
        self.cold: list[str] = []
        self.unfit: list[tuple[str, str]] = []
        self.heard: list[dict[str, Any]] = []
        self.selector = selectors.DefaultSelector()
        self.theirs: dict[str, list[socket.socket]] = {}
        self._directory_of_test = directory
        super().__init__(
            directory=str(directory),
            boot="",
            selector=self.selector,
            nofile=(0, 0),
            message=lambda _, message: self.heard.append(message),
            cold=lambda request: self.cold.append(request["id"]),
            unfit=lambda key, reason: self.unfit.append((key, reason)),
        )

    def _start(self, key: str) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        server = ForkServer(key, 0, ours, scratch=str(self._directory_of_test / key))
        self._servers.append(server)
        self.selector.register(ours, selectors.EVENT_READ, lambda: self._read(server))
        self.theirs.setdefault(key, []).append(theirs)

    def say(self, key: str, message: dict[str, Any]) -> None:
        """Let the key's newest server speak."""
        self.theirs[key][-1].sendall(Frames.pack(message))
        for ready, _ in self.selector.select(0):
            ready.data()

    def given(self, key: str) -> list[str]:
        """The works that the key's newest server has got since last asked."""
        end = self.theirs[key][-1]
        end.setblocking(False)
        try:
            return [order["id"] for order in Frames().feed(end.recv(1 << 20))]
        except BlockingIOError:
            return []

    def keys(self) -> set[str]:
        return {server.key for server in self._servers}


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Served]:
    pool = Served(tmp_path)
    yield pool
    for key in [*pool.selector.get_map().values()]:
        assert isinstance(key.fileobj, socket.socket)
        key.fileobj.close()
    pool.selector.close()
    for ends in pool.theirs.values():
        for end in ends:
            end.close()


def test_works_wait_for_their_server_in_order(pool: Served) -> None:
    """The first key gets a server at once; what comes before it is ready waits, a few are handed over at a time."""
    for n in range(40):
        pool.dispatch(_request("key", f"w{n}"))
    assert pool.given("key") == []
    pool.say("key", {"ready": []})
    first = pool.given("key")
    assert first == [f"w{n}" for n in range(len(first))]
    assert 0 < len(first) < 40
    for work in first:
        pool.say("key", {"forked": work, "pid": 1})
    assert pool.given("key")[0] == f"w{len(first)}"
    assert pool.cold == []


def test_a_new_key_gets_a_server_when_it_comes_again(pool: Served) -> None:
    """Beside other servers a single work with an environment of its own starts plainly."""
    pool.prepare(_config("first"))
    pool.dispatch(_request("second", "a"))
    assert pool.cold == ["a"]
    pool.dispatch(_request("second", "b"))
    assert pool.cold == ["a"]
    assert pool.keys() == {"first", "second"}


def test_the_key_longest_unused_makes_room(pool: Served) -> None:
    """There are at most four keys; one that serves nobody goes first, and when all serve a new one gets none."""
    for key in "abcd":
        pool.prepare(_config(key))
        pool.say(key, {"ready": []})
    pool.dispatch(_request("a", "used"))
    pool.say("a", {"forked": "used", "pid": 1})
    assert pool.prepare(_config("e"))
    assert pool.keys() == {"a", "c", "d", "e"}
    for key in "acde":
        pool.say(key, {"ready": []})
        pool.dispatch(_request(key, f"busy {key}"))
    assert not pool.prepare(_config("f"))
    assert pool.keys() == {"a", "c", "d", "e"}


def test_a_server_that_cannot_fork_is_given_up_with_its_reason(pool: Served) -> None:
    """Who waits starts plainly, and so does who comes later; the reason is told once."""
    pool.dispatch(_request("key", "a"))
    pool.say("key", {"unfit": "no threads, please", "avoid": ""})
    pool.dispatch(_request("key", "b"))
    assert pool.cold == ["a", "b"]
    assert pool.unfit == [("key", "no threads, please")]


def test_a_package_that_starts_a_thread_is_avoided_by_the_next_server(pool: Served) -> None:
    """One bad package is no reason to give up: the next server is told not to import it."""
    request = _request("key", "a")
    pool.dispatch(request)
    pool.say("key", {"unfit": "it started a thread", "avoid": "bad"})
    pool.theirs["key"][-1].close()
    for ready, _ in pool.selector.select(0):
        ready.data()
    assert len(pool.theirs["key"]) == 2
    assert request["warm"]["avoid"] == ["bad"]
    pool.say("key", {"ready": []})
    assert pool.given("key") == ["a"]
    assert pool.unfit == []


def test_a_server_that_will_do_better_is_not_waited_for_twice(pool: Served) -> None:
    """The work that found a package out may have lost patience; the next one finds a server."""
    pool.prepare(_config("key"))
    pool.say("key", {"unfit": "it started a thread", "avoid": "bad"})
    pool.theirs["key"][-1].close()
    for ready, _ in pool.selector.select(0):
        ready.data()
    assert len(pool.theirs["key"]) == 2


def test_a_package_whose_modules_all_start_a_thread_costs_one_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is avoided whole, however many of its modules a task imports; what is beside it is imported ahead still."""
    (tmp_path / "threads").mkdir()
    (tmp_path / "threads/__init__.py").write_text("import threading\n(work := threading.Timer(60, print)).start()\n")
    (tmp_path / "threads/inner.py").touch()
    (tmp_path / "threads_beside.py").touch()
    (tmp_path / "modules").write_text("threads.inner\nthreads\nthreads_beside")
    monkeypatch.syspath_prepend(tmp_path)
    config: dict[str, Any] = {"avoid": [], "env": {}, "single": False}
    with socket.socket() as control:
        server = forkserver.Server(control, config)
        with pytest.raises(forkserver._Unfit) as unfit:
            server._learn(f"{tmp_path}/modules", trusted=True)
        del sys.modules["threads.inner"]
        work = sys.modules.pop("threads").work
        config["avoid"].append(unfit.value.args[1])
        with pytest.raises(forkserver._Unfit, match="threads_beside"):
            server._learn(f"{tmp_path}/modules", trusted=True)
    work.cancel()
    work.join()


def test_a_server_that_keeps_ending_is_given_up(pool: Served) -> None:
    """A crash at start is tried again a few times, and not for ever."""
    pool.dispatch(_request("key", "a"))
    while not pool.cold:
        pool.theirs["key"][-1].close()
        for ready, _ in pool.selector.select(0):
            ready.data()
    assert pool.cold == ["a"]
    assert 1 < len(pool.theirs["key"]) < 20


def test_a_work_does_not_wait_for_ever(pool: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """When no server gets ready in time, the work starts plainly, while the server may still get ready for others."""
    pool.dispatch(_request("key", "a"))
    pool.expire()
    assert pool.cold == []
    assert pool.deadline is not None
    now = pool.deadline
    monkeypatch.setattr(time, "monotonic", lambda: now)
    pool.expire()
    assert pool.cold == ["a"]
    assert pool.keys() == {"key"}


def test_a_work_that_waits_can_be_withdrawn(pool: Served) -> None:
    """Until it is handed over, a work is still the keeper's."""
    pool.dispatch(_request("key", "a"))
    assert pool.withdraw("a")
    assert not pool.withdraw("a")
    pool.say("key", {"ready": []})
    assert pool.given("key") == []


def _config(key: str) -> dict[str, Any]:
    return {"key": key, "single": False, "avoid": []}


def _request(key: str, work: str) -> dict[str, Any]:
    return {"id": work, "warm": _config(key), "order": {"id": work}, "env": {}}
