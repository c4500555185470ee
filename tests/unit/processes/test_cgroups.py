"""Control groups: where one may be had, and what is written there, on a directory tree that plays the kernel."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flyte_unified.launchers.processes import cgroups, facts

pytestmark = pytest.mark.skipif(not facts.LINUX, reason="control groups are Linux's")

FILES = ("cgroup.controllers", "cgroup.kill", "cgroup.procs", "cgroup.subtree_control")
MEMORY = ("memory.events", "memory.max", "memory.oom.group", "memory.peak", "memory.swap.max")


class Kernel:
    """Directories below ``mount`` have the kernel's files, and those of the memory controller where it is passed on."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.mount = root / "cgroup tree"
        self.proc = root / "proc"
        self.marked: set[Path] = set()
        self.swap = True
        self.busy: set[Path] = set()
        self._mkdir, self._rmdir = os.mkdir, os.rmdir
        for path in (self.mount, self.proc / "self"):
            path.mkdir(parents=True)
        self._fill(self.mount, memory=False)
        (self.mount / "cgroup.controllers").write_text("cpu memory pids\n")
        monkeypatch.setattr(cgroups.os, "mkdir", self.mkdir)
        monkeypatch.setattr(cgroups.os, "rmdir", self.rmdir)
        monkeypatch.setattr(cgroups.os, "getxattr", self.getxattr, raising=False)
        self._write = cgroups._write
        monkeypatch.setattr(cgroups, "_write", self.write)

    def find(self, group: str, *, root: str = "/", options: str = "rw") -> cgroups.Groups:
        """As a process in ``group``, where the tree is mounted from ``root`` on."""
        mount = str(self.mount).replace(" ", "\\040")
        lines = [
            f"24 1 0:22 / /proc {options} - proc proc rw",
            f"30 1 0:26 {root} {mount} {options} shared:4 - cgroup2 none rw",
        ]
        (self.proc / "self/mountinfo").write_text("\n".join(lines) + "\n")
        (self.proc / "self/cgroup").write_text(f"4:memory:/elsewhere\n0::{group}\n")
        return cgroups.find(str(self.proc))

    def group(self, name: str, *pids: int, marked: bool = True) -> Path:
        """A group that exists already."""
        path = self.mount / name
        path.mkdir(parents=True)
        self._fill(path, memory=True)
        (path / "cgroup.controllers").write_text("memory pids\n")
        (path / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
        self.marked |= {path} if marked else set()
        return path

    def _fill(self, path: Path, *, memory: bool) -> None:
        for name in FILES + (MEMORY if memory else ()):
            if self.swap or "swap" not in name:
                (path / name).touch()

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        self._mkdir(path, mode)
        if self.mount in Path(path).parents:
            self._fill(Path(path), memory="memory" in (Path(path).parent / "cgroup.subtree_control").read_text())

    def rmdir(self, path: str) -> None:
        if self.mount in Path(path).parents:
            if Path(path) in self.busy:
                raise OSError(errno.EBUSY, "busy")
            for file in Path(path).iterdir():
                file.unlink()
        self._rmdir(path)

    def getxattr(self, path: str, name: str) -> bytes:
        if Path(path) in self.marked and name == "user.delegate":
            return b"1"
        raise OSError(errno.ENODATA, name)

    def write(self, path: str, text: str) -> None:
        """Processes move; a group that has some passes no controller on, but for the topmost."""
        file = Path(path)
        if file.name == "cgroup.subtree_control" and file.parent != self.mount and (file.parent / "cgroup.procs").read_text():
            raise OSError(errno.EBUSY, "busy")
        self._write(path, text)
        if file.name == "cgroup.procs":
            for other in self.mount.rglob("cgroup.procs"):
                rest = [pid for pid in other.read_text().split() if pid != text or other == file]
                other.write_text("".join(f"{pid}\n" for pid in rest))


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    with monkeypatch.context() as patch:
        yield Kernel(tmp_path, patch)


def test_a_delegated_group_is_made_ready(kernel: Kernel) -> None:
    """Its processes move into a leaf, as a group with processes can pass nothing on; then it passes the controller on."""
    own = kernel.group("system.slice/flyte.service", 7, 8)
    assert kernel.find("/system.slice/flyte.service").root == str(own)
    assert (own / "cgroup.subtree_control").read_text() == "+memory"
    assert (own / "cgroup.procs").read_text() == ""
    assert (own / "flyte-unified").is_dir()


def test_the_root_of_a_container_is_its_own(kernel: Kernel) -> None:
    """With a cgroup namespace the container's group looks like the topmost, and nobody needs to mark it."""
    assert kernel.find("/").root == str(kernel.mount)


def test_the_tree_may_be_mounted_from_below_its_top(kernel: Kernel) -> None:
    """What is mounted begins at the container's group; a process outside of it has no place in it."""
    own = kernel.group("inner")
    assert kernel.find("/docker/c0/inner", root="/docker/c0").root == str(own)
    assert kernel.find("/docker/c00/inner", root="/docker/c0").root is None


def test_a_keeper_that_was_moved_knows_its_group_again(kernel: Kernel) -> None:
    """The next keeper is started by a server in the leaf: its groups stand beside the leaf, not in it."""
    own = kernel.group("flyte.service", 7)
    kernel.find("/flyte.service")
    assert kernel.find("/flyte.service/flyte-unified").root == str(own)


def _foreign(kernel: Kernel) -> None:
    kernel.group("session.scope", 7, marked=False)


def _without_memory(kernel: Kernel) -> None:
    (kernel.group("session.scope", 7) / "cgroup.controllers").write_text("pids\n")


def _read_only(kernel: Kernel) -> None:
    (kernel.group("session.scope") / "cgroup.subtree_control").unlink()


def _absent(kernel: Kernel) -> None:
    """No such group."""


@pytest.mark.parametrize("make", [_foreign, _without_memory, _read_only, _absent])
def test_a_group_of_somebody_else_is_left_alone(kernel: Kernel, make: Callable[[Kernel], None]) -> None:
    """Not delegated, without the controller, not to be written, or not there: the keeper watches, and nothing is moved."""
    make(kernel)
    found = kernel.find("/session.scope")
    assert found.root is None
    assert found.create("flyte-1", 1 << 20) is None
    assert not list(kernel.mount.rglob("flyte*"))


def test_a_work_s_group_has_its_limit(kernel: Kernel) -> None:
    """Its memory, no swap, and one end for all of its processes."""
    group = kernel.find("/").create("flyte-1", 5 << 20)
    assert group is not None
    path = kernel.mount / "flyte-1"
    written = {name: (path / name).read_text() for name in ("memory.max", "memory.swap.max", "memory.oom.group")}
    assert written == {"memory.max": str(5 << 20), "memory.swap.max": "0", "memory.oom.group": "1"}
    group.kill()
    assert (path / "cgroup.kill").read_text() == "1"


def test_a_kernel_that_does_not_count_swap_will_do(kernel: Kernel) -> None:
    """The limit is kept all the same."""
    kernel.swap = False
    assert kernel.find("/").create("flyte-1", 5 << 20) is not None


def test_a_group_that_cannot_be_made_is_none(kernel: Kernel) -> None:
    """Then that work is watched like any."""
    found = kernel.find("/")
    (kernel.mount / "cgroup.subtree_control").write_text("")
    assert found.create("flyte-1", 5 << 20) is None
    assert not (kernel.mount / "flyte-1").exists()


def test_the_kernel_says_how_it_went(kernel: Kernel) -> None:
    """Whether it killed, and the most memory there was; an old kernel does not count that."""
    group = kernel.find("/").create("flyte-1", 5 << 20)
    assert group is not None
    events = kernel.mount / "flyte-1/memory.events"
    events.write_text("low 0\nhigh 0\nmax 8\noom 2\noom_kill 0\n")
    (kernel.mount / "flyte-1/memory.peak").write_text("4096\n")
    assert (group.was_out_of_memory(), group.peak()) == (False, 4096)
    events.write_text("low 0\noom 2\noom_kill 3\n")
    (kernel.mount / "flyte-1/memory.peak").unlink()
    assert (group.was_out_of_memory(), group.peak()) == (True, 0)


def test_a_group_is_removed_when_it_is_empty(kernel: Kernel) -> None:
    """What was killed in it may still be ending; one that is gone already is no concern."""
    found = kernel.find("/")
    path = kernel.mount / "flyte-1"
    group = found.create(path.name, 5 << 20)
    kernel.busy = {path}
    found.discard(group)
    assert path.exists()
    kernel.busy = set()
    found.sweep()
    assert not path.exists()
    found.discard(cgroups.of({"group": str(path)}))
    found.discard(cgroups.of({"group": ""}))


def test_a_process_enters_its_group_before_it_runs(tmp_path: Path) -> None:
    """What a work's new process does first is to go where its memory is counted."""
    from flyte_unified.launchers.processes import task

    (tmp_path / "group").mkdir()
    home = tmp_path / "home"
    home.mkdir()
    for name in ("out", "err"):
        (home / name).touch()
    order = {
        "home": str(home),
        "group": str(tmp_path / "group"),
        "boot": "b",
        "directory": str(tmp_path),
        "command": [sys.executable, "-c", ""],
    }
    pid = task.spawn(order, {})
    assert os.waitpid(pid, 0)[1] == 0, (home / "err").read_text()
    assert (tmp_path / "group/cgroup.procs").read_text() == "0"
