"""Memory limits kept by the kernel: a control group for each work that has one. Linux, cgroup v2. Standard library only.

A group may be used where it was handed to us: it is the root of what we can see (a container with a cgroup namespace of its
own), or systemd has marked it (``Delegate=yes``). Elsewhere somebody else is its one writer, even if we had the right to write.
Controllers may be passed on only by a group that has no processes itself; so all that are in ours, the server and the keeper
among them, move into a leaf of it first. Where any of this cannot be had, the keeper watches the memory itself.

Files and rules: docs.kernel.org/admin-guide/cgroup-v2.html; systemd.io/CGROUP_DELEGATION.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Any

_LEAF = "flyte-unified"
_TRIES = 3
"""Processes that start while others are moved are found the next time."""


class Group:
    """The control group of one work."""

    def __init__(self, path: str) -> None:
        self.path = path

    def kill(self) -> None:
        """End all that is in it, however it has daemonized. Linux 5.14."""
        try:
            _write(self.path + "/cgroup.kill", "1")
        except OSError:
            pass

    def was_out_of_memory(self) -> bool:
        """Whether the kernel has killed in it for want of memory."""
        return _counter(self.path + "/memory.events", "oom_kill") > 0

    def peak(self) -> int:
        """The most bytes it ever had, cached files included. 0 before Linux 5.19."""
        try:
            return int(_read(self.path + "/memory.peak"))
        except ValueError:
            return 0

    def remove(self) -> bool:
        """False when something in it still has to end."""
        try:
            os.rmdir(self.path)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True


class Groups:
    """The groups below ``root``, which was handed to us; none where nothing was."""

    def __init__(self, root: str | None) -> None:
        self.root = root
        self._left: list[Group] = []

    def create(self, name: str, limit: int) -> Group | None:
        """A group whose processes are killed together when they need more than ``limit`` bytes. None: it cannot be had."""
        if self.root is None:
            return None
        group = Group(f"{self.root}/{name}")
        try:
            os.mkdir(group.path)
            _write(group.path + "/memory.max", str(limit))
            _write(group.path + "/memory.oom.group", "1")
        except OSError:
            group.remove()
            return None
        try:
            _write(group.path + "/memory.swap.max", "0")
        except OSError:  # the kernel does not count swap
            pass
        return group

    def discard(self, group: Group | None) -> None:
        """Remove ``group`` as soon as it is empty."""
        if group is not None:
            self._left.append(group)
            self.sweep()

    def sweep(self) -> None:
        """To be called when a process has ended."""
        self._left = [group for group in self._left if not group.remove()]


def find(proc: str = "/proc") -> Groups:
    """Prepare our own group to hold others, where that can and may be."""
    own = _ours(proc)
    if own is None:
        return Groups(None)
    try:
        _pass_on(own)
    except OSError:  # read-only, as in most containers; or not ours
        return Groups(None)
    return Groups(own)


def delegated(proc: str = "/proc") -> bool:
    """Whether ``find`` is likely to find them; changes nothing."""
    own = _ours(proc)
    return own is not None and os.access(own + "/cgroup.subtree_control", os.W_OK)


def of(order: dict[str, Any]) -> Group | None:
    """The group of a work, from its order."""
    return Group(order["group"]) if order.get("group") else None


def _ours(proc: str) -> str | None:
    """The directory of the group that may be ours, where it counts memory."""
    own = _own(_read(proc + "/self/cgroup"), _read(proc + "/self/mountinfo")) if sys.platform == "linux" else None
    return own if own is not None and "memory" in _read(own + "/cgroup.controllers").split() else None


def _own(membership: str, mounts: str) -> str | None:
    """The directory of the group that may be ours, from ``/proc/self/cgroup`` and ``/proc/self/mountinfo``."""
    path = next((line[3:] for line in membership.splitlines() if line.startswith("0::")), None)
    for line in mounts.splitlines():
        ours, _, theirs = line.partition(" - ")
        if path is not None and theirs.split()[0] == "cgroup2":
            root, mount = (part.encode().decode("unicode_escape") for part in ours.split()[3:5])
            if os.path.basename(path) == _LEAF:  # where an earlier keeper has moved us
                path = os.path.dirname(path)
            if path != root and not path.startswith(root.rstrip("/") + "/"):
                return None
            own = (mount + "/" + path[len(root.rstrip("/")) :].lstrip("/")).rstrip("/")
            return own if path == "/" or _delegated(own) else None
    return None


def _delegated(path: str) -> bool:
    """Whether systemd says so. It leaves the mark to the owner, where he is not root, since version 251."""
    for name in ("user.delegate", "trusted.delegate"):
        try:
            if os.getxattr(path, name) == b"1":
                return True
        except OSError:
            pass
    return False


def _pass_on(own: str) -> None:
    """Have the groups below ``own`` count memory."""
    if "memory" in _read(own + "/cgroup.subtree_control").split():
        return
    leaf = f"{own}/{_LEAF}"
    for remaining in reversed(range(_TRIES)):
        try:
            _write(own + "/cgroup.subtree_control", "+memory")
            return
        except OSError as error:
            if error.errno != errno.EBUSY or not remaining:
                raise
        if not os.path.isdir(leaf):
            os.mkdir(leaf)
        for pid in _read(own + "/cgroup.procs").split():
            try:
                _write(leaf + "/cgroup.procs", pid)
            except ProcessLookupError:
                pass


def _counter(path: str, name: str) -> int:
    rows = (line.split() for line in _read(path).splitlines())
    return next((int(row[1]) for row in rows if row[0] == name), 0)


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
