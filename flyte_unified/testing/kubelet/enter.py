"""The first moment of a container: its own mounts, its directory, its program. Standard library only, run by path.

``python -I -S enter.py <specification>`` becomes the container's process without another process in between. The
specification is JSON: ``argv``, ``directory``, ``mounts`` (source, target, read_only; parents first), ``stage`` (an empty
directory) and ``failure`` (where to write why it could not be). The environment is the container's already.

A mount needs a place to be mounted on, and ``/var/inputs`` has none on this machine. So the deepest directory that does
exist is replaced, in this mount namespace alone, by a memory file system with every entry of the original bound into
it; there the missing rest can be made. Nothing of the machine's own is written to; what it gets in that very directory later,
the container does not see.
"""

# ruff: noqa: PTH102, PTH103, PTH110, PTH112, PTH115, PTH116, PTH118, PTH120, PTH123, PTH208, PTH211
# pathlib would cost each container its import.

from __future__ import annotations

import ctypes
import errno
import json
import os
import stat
import sys
from typing import Any

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
_KEPT = {2: 2, 4: 4, 8: 8, 1024: 1024, 2048: 2048, 4096: 1 << 21}
"""Flags of statvfs(3) that a remount must repeat, as mount(2) knows them: nosuid, nodev, noexec and the access times."""
CANNOT_START = 128


def main(path: str) -> None:
    """Become the container of the specification at ``path``. Exits with 128 when that cannot be."""
    with open(path) as file:
        spec = json.load(file)
    failure = os.open(spec["failure"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        if spec["mounts"]:
            _mount_all(spec["mounts"], spec["stage"])
        os.chdir(spec["directory"])
        _execute(spec["argv"])
    except OSError as error:
        os.write(failure, _told(error, spec).encode())
        os._exit(CANNOT_START)


def _told(error: OSError, spec: dict[str, Any]) -> str:
    """As runc says it, since that is what people search for."""
    program = json.dumps(spec["argv"][0])
    if error.filename == spec["argv"][0]:
        if error.errno == errno.ENOENT and os.sep not in spec["argv"][0]:
            return f"exec: {program}: executable file not found in $PATH"
        return f"exec: {program}: stat {spec['argv'][0]}: {os.strerror(error.errno or 0).lower()}"
    return f"{error.filename or program}: {os.strerror(error.errno or 0).lower()}"


def _execute(argv: list[str]) -> None:
    last = FileNotFoundError(errno.ENOENT, "", argv[0])
    for place in [""] if os.sep in argv[0] else os.environ.get("PATH", os.defpath).split(os.pathsep):
        try:
            os.execv(os.path.join(place, argv[0]), argv)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            last = type(last)(error.errno, "", argv[0])
    raise last


def _mount_all(mounts: list[dict[str, Any]], stage: str) -> None:
    _unshare()
    _mount(None, "/", MS_REC | MS_PRIVATE)
    held = {mount["target"]: os.open(mount["source"], os.O_PATH) for mount in mounts}  # a mount may hide another's source
    mirrors: set[int] = set()
    targets: list[str] = []
    if any(not os.path.lexists("/" + mount["target"].split("/")[1]) for mount in mounts):
        mirrors.add(_mirror("/", stage))
        os.chroot(stage)
    for mount in mounts:
        target, source = mount["target"], held[mount["target"]]
        _make(target, mirrors, targets, directory=stat.S_ISDIR(os.fstat(source).st_mode))
        _mount(f"/proc/self/fd/{source}", target, MS_BIND | MS_REC)
        if mount["read_only"]:
            flags = os.statvfs(target).f_flag
            kept = sum(there for here, there in _KEPT.items() if flags & here)
            _mount(None, target, MS_BIND | MS_REMOUNT | MS_RDONLY | kept)
        targets.append(os.path.realpath(target))
    for source in held.values():
        os.close(source)


def _unshare() -> None:
    """A mount namespace of our own: as root, else in a user namespace where we are root."""
    uid, gid = os.getuid(), os.getgid()
    try:
        _call("unshare", CLONE_NEWNS)
    except PermissionError:
        _call("unshare", CLONE_NEWNS | CLONE_NEWUSER)
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)


def _make(target: str, mirrors: set[int], targets: list[str], *, directory: bool) -> None:
    """See that ``target`` can be mounted on; what is missing is made in a mirror or in a volume, never in the machine's own."""
    if os.path.exists(target):
        return
    ancestor = os.path.dirname(target)
    while not os.path.isdir(ancestor):
        ancestor = os.path.dirname(ancestor)
    real = os.path.realpath(ancestor)
    ours = os.stat(real).st_dev in mirrors or any(real == place or real.startswith(place + "/") for place in targets)
    if not ours:
        mirrors.add(_mirror(real, real))
    os.makedirs(target if directory else os.path.dirname(target), exist_ok=True)
    if not directory:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT, 0o644))


def _mirror(original: str, copy: str) -> int:
    """Mount on ``copy`` a directory in memory that has the entries of ``original``. Returns its device."""
    held = os.open(original, os.O_PATH)
    names = os.listdir(original)
    _mount("tmpfs", copy, 0, kind="tmpfs", data="mode=755")
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
            _mount(source, target, MS_BIND | MS_REC)
        except OSError:  # it is gone by now, or nobody may bind it: the container goes without it
            continue
    os.close(held)
    return os.stat(copy).st_dev


_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *args: Any) -> None:
    if getattr(_libc, name)(*args):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)


def _mount(source: str | None, target: str, flags: int, *, kind: str | None = None, data: str | None = None) -> None:
    words = [word.encode() if word is not None else None for word in (source, target, kind, data)]
    try:
        _call("mount", words[0], words[1], words[2], ctypes.c_ulong(flags), words[3])
    except OSError as error:
        error.filename = f"mount {target}"
        raise


if __name__ == "__main__":
    main(sys.argv[1])
