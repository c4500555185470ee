"""Mounts that one process and its descendants see, and nobody else. Standard library only.

Read by path in a task's own interpreter (see ``forkserver.enter``), which need not know this project, and used by the process
kubelet for its containers' volumes. A mount namespace is root's to make, or anybody's within a user namespace, where the
kernel allows that.

A mount needs a place to be mounted on, and ``/etc/flyte/secrets`` is none on most machines. So the deepest directory that does
exist is replaced, in this mount namespace alone, by a memory file system with every entry of the original bound into
it; there the missing rest can be made. Nothing of the machine's own is written to; what it gets in that very directory later,
the process does not see.
"""

from __future__ import annotations

import binascii
import ctypes
import os
import stat
import sys

TYPE_CHECKING = False  # importing typing costs time, and this file runs where a task's start is measured
if TYPE_CHECKING:
    from typing import Any

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 32, 4096, 16384, 1 << 18
_CAPABILITIES = 0x20080522
"""_LINUX_CAPABILITY_VERSION_3 of linux/capability.h: two words for each set."""


def keep_private(directory: str, files: dict[str, str]) -> None:
    """Have ``files`` (by their paths below it, in base64) in ``directory``, in memory and read-only, for this process alone.

    The process has one thread, and stays who it is. Raises OSError where the kernel allows it to nobody but root.
    """
    within = unshare(as_root=False)
    mount(None, "/", MS_REC | MS_PRIVATE)
    make(directory, set(), [], directory=True)
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    mount("tmpfs", directory, flags, kind="tmpfs", data="mode=700")
    for name, content in files.items():
        path = directory + "/" + name
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
        with open(file, "wb") as opened:
            opened.write(binascii.a2b_base64(content))
    mount(None, directory, MS_REMOUNT | MS_RDONLY | flags)
    if within and os.getuid():
        _renounce()


def unshare(*, as_root: bool) -> bool:
    """A mount namespace of our own: root's, else in a user namespace, where we are ourselves or root. True for the latter."""
    uid, gid = os.getuid(), os.getgid()
    try:
        _call("unshare", CLONE_NEWNS)
    except PermissionError:
        _call("unshare", CLONE_NEWNS | CLONE_NEWUSER)
        inside = (0, 0) if as_root else (uid, gid)
        for name, text in (("setgroups", "deny"), ("uid_map", f"{inside[0]} {uid} 1"), ("gid_map", f"{inside[1]} {gid} 1")):
            with open("/proc/self/" + name, "w") as file:
                file.write(text)
        return True
    return False


def make(target: str, mirrors: set[int], targets: list[str], *, directory: bool) -> None:
    """See that ``target`` can be mounted on; what is missing is made in a mirror or in a volume, never in the machine's own.

    ``mirrors`` are the devices of mirrors so far, ``targets`` what is mounted already.
    """
    if os.path.exists(target):
        return
    ancestor = os.path.dirname(target)
    while not os.path.isdir(ancestor):
        ancestor = os.path.dirname(ancestor)
    real = os.path.realpath(ancestor)
    ours = os.stat(real).st_dev in mirrors or any(real == place or real.startswith(place + "/") for place in targets)
    if not ours:
        mirrors.add(mirror(real, real))
    os.makedirs(target if directory else os.path.dirname(target), exist_ok=True)
    if not directory:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT, 0o644))


def mirror(original: str, copy: str) -> int:
    """Mount on ``copy`` a directory in memory that has the entries of ``original``. Returns its device."""
    held = os.open(original, os.O_PATH)
    names = os.listdir(original)
    mount("tmpfs", copy, 0, kind="tmpfs", data="mode=755")
    for name in names:
        source, target = f"/proc/self/fd/{held}/{name}", f"{copy.rstrip('/')}/{name}"
        try:
            mode = os.lstat(source).st_mode
            if stat.S_ISLNK(mode):
                os.symlink(os.readlink(source), target)
                continue
            if stat.S_ISDIR(mode):
                os.mkdir(target)
            else:
                os.close(os.open(target, os.O_WRONLY | os.O_CREAT, 0o600))
            mount(source, target, MS_BIND | MS_REC)
        except OSError:  # it is gone by now, or nobody may bind it: the process goes without it
            continue
    os.close(held)
    return os.stat(copy).st_dev


def mount(source: str | None, target: str, flags: int, *, kind: str | None = None, data: str | None = None) -> None:
    """mount(2)"""
    words = [word.encode() if word is not None else None for word in (source, target, kind, data)]
    try:
        _call("mount", words[0], words[1], words[2], ctypes.c_ulong(flags), words[3])
    except OSError as error:
        error.filename = f"mount {target}"
        raise


def enter_network(path: str) -> None:
    """The network namespace of the file at ``path`` becomes ours."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    _call("setns", file, CLONE_NEWNET)
    os.close(file)


def _renounce() -> None:
    """Give up what a user namespace's maker may do in it, as an exec would."""
    header, nothing = (ctypes.c_uint32 * 2)(_CAPABILITIES, 0), (ctypes.c_uint32 * 6)()
    _call("capset", header, nothing)


_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *args: Any) -> None:
    if getattr(_libc, name)(*args):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)


def main() -> None:
    """``mounts.py <directory>``: whether a directory of one's own can be had there; if not, says why and exits with 1."""
    try:
        keep_private(sys.argv[1], {"probe": ""})
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}")


if __name__ == "__main__":
    main()
