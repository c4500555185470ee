"""What the operating system knows of processes: identity, descent, memory. Standard library only; the keeper's eyes.

A process id alone is no identity, since ids are reused. Boot id, id and start time together are: a record that bears
all three names one process for ever. Linux is read from ``/proc``; elsewhere ``ps`` and ``sysctl`` answer.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

LINUX = sys.platform == "linux"
_UNTOLD = -1
"""In place of a session where ``ps`` tells none: nobody's."""
_PAGE = os.sysconf("SC_PAGE_SIZE")
_SYS_PIDFD_OPEN = 434
"""pidfd_open(2): system calls of that age have one number on all architectures that Python runs on."""


class Process(NamedTuple):
    """One row of the process table."""

    parent: int
    group: int
    session: int


def boot_id() -> str:
    """Changes with every boot of the machine."""
    if LINUX:
        return _read("/proc/sys/kernel/random/boot_id").decode().strip()
    return _run("sysctl", "-n", "kern.bootsessionuuid")


def start_time(pid: int) -> str:
    """When ``pid`` was started, in the system's own words; empty when it does not live. A zombie does not live."""
    if not LINUX:
        state, _, start = _run("ps", "-o", "stat=,lstart=", "-p", str(pid)).partition(" ")
        return "" if state.startswith("Z") else start.strip()
    fields = _stat(pid)
    return "" if not fields or fields[0] in (b"Z", b"X") else fields[19].decode()


def table() -> dict[int, Process]:
    """Every process of the machine."""
    if LINUX:
        rows = ((int(name), _stat(int(name))) for name in os.listdir("/proc") if name.isdigit())
        return {pid: Process(int(row[1]), int(row[2]), int(row[3])) for pid, row in rows if row}
    lines = (line.split() for line in _run("ps", "-axo", "pid=,ppid=,pgid=").splitlines())
    return {int(line[0]): Process(int(line[1]), int(line[2]), _UNTOLD) for line in lines if len(line) == 3}


def tree(root: int, processes: Mapping[int, Process]) -> set[int]:
    """``root``, its descendants, and whoever is in its group or session.

    A task leads its own session, and on Linux adopts its orphans, so that its descendants stay below it whatever they
    do; the group catches what is left where there is no such adoption. What never had a process (0) has no tree: in the
    groups and sessions of that number is everything else that runs.
    """
    if root <= 0:
        return set()
    children: dict[int, list[int]] = {}
    for pid, process in processes.items():
        children.setdefault(process.parent, []).append(pid)
    found = {pid for pid, process in processes.items() if root in (process.group, process.session)}
    found.add(root)
    pending = list(found)
    while pending:
        for child in children.get(pending.pop(), ()):
            if child not in found:
                found.add(child)
                pending.append(child)
    return found


def children(pid: int) -> list[int]:
    """The direct children of ``pid``."""
    if LINUX:
        return [int(child) for child in _read(f"/proc/{pid}/task/{pid}/children").split()]
    return [child for child, process in table().items() if process.parent == pid]


def descendants(root: int) -> list[int]:
    """``root`` and everything below it. On Linux the cost grows with this tree only, not with the machine's."""
    if not LINUX:
        return list(tree(root, table()))
    found, pending = [root], [root]
    while pending:
        pid = pending.pop()
        for thread in _listdir(f"/proc/{pid}/task"):
            below = [int(child) for child in _read(f"/proc/{pid}/task/{thread}/children").split()]
            found += below
            pending += below
    return found


def resident(pids: Iterable[int]) -> int:
    """Resident bytes of ``pids``; pages that several share count for each of them."""
    if LINUX:
        return sum(int(fields[1]) for pid in pids if (fields := _read(f"/proc/{pid}/statm").split())) * _PAGE
    return sum(int(row) for row in _run("ps", "-o", "rss=", "-p", ",".join(map(str, pids))).split()) * 1024


def proportional(pids: Iterable[int]) -> int:
    """Resident bytes of ``pids``, each shared page divided among those who share it: exact, and dear to read."""
    if not LINUX:
        return resident(pids)
    total = 0
    for pid in pids:
        for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
            if line.startswith(b"Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def raise_descriptor_limit() -> tuple[int, int]:
    """Allow this process as many descriptors as it may have, up to 65,536. Returns the limits that it had."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        wanted = 1 << 16 if hard == resource.RLIM_INFINITY else min(hard, 1 << 16)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    except (OSError, ValueError):
        pass
    return soft, hard


class Handle(Protocol):
    """What a selector can wait on."""

    def fileno(self) -> int: ...

    def close(self) -> None: ...


class _PidFd:
    def __init__(self, pid: int) -> None:
        self._fd = _pidfd_open(pid)

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        os.close(self._fd)


def end_of(pid: int) -> Handle:
    """Becomes readable when ``pid`` ends, whoever's child it is. Raises ProcessLookupError."""
    if LINUX:
        return _PidFd(pid)
    import select

    queue = select.kqueue()  # type: ignore[attr-defined]  # BSD only, as are the constants
    exit_of = select.KQ_FILTER_PROC, select.KQ_EV_ADD | select.KQ_EV_ONESHOT, select.KQ_NOTE_EXIT  # type: ignore[attr-defined]
    queue.control([select.kevent(pid, *exit_of)], 0)  # type: ignore[attr-defined]
    return queue  # type: ignore[no-any-return]


def _pidfd_open(pid: int) -> int:
    """As ``os.pidfd_open``, which a Python lacks that was built with old kernel headers, as those that uv fetches are."""
    if hasattr(os, "pidfd_open"):
        return os.pidfd_open(pid)
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    handle: int = libc.syscall(_SYS_PIDFD_OPEN, pid, 0)
    if handle < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return handle


def _stat(pid: int) -> list[bytes]:
    """The fields of ``/proc/<pid>/stat`` after the command's name (proc_pid_stat(5)), from the state on."""
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""


def _listdir(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []


def _run(*argv: str) -> str:
    import subprocess  # only where there is no /proc

    environment = {"LC_ALL": "C", "PATH": "/bin:/usr/bin:/sbin:/usr/sbin"}  # without a PATH, /usr/sbin is not looked at
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=environment).stdout.strip()
