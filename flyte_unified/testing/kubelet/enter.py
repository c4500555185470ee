"""The first moment of a container: its own mounts, its directory, its program. Standard library only, run by path.

``python -I -S enter.py <specification>`` becomes the container's process without another process in between. The
specification is JSON: ``argv``, ``directory``, ``mounts`` (source, target, read_only; parents first), ``stage`` (an empty
directory), ``failure`` (where to write why it could not be) and ``network`` (the file of a network namespace; may be empty).
The environment is the container's already.

How a mount comes to a place that this machine does not have, ``/var/inputs`` say, is told in ``launchers.processes.mounts``.
"""

# ruff: noqa: PTH100, PTH118, PTH123
# pathlib would cost each container its import.

from __future__ import annotations

import errno
import json
import os
import stat
import sys
from typing import Any

if __name__ == "__main__":  # our package without its __init__, which is not a container's business
    import types

    _package = types.ModuleType("flyte_unified")
    _package.__path__ = [os.path.abspath(__file__).rsplit(os.sep, 3)[0]]
    sys.modules["flyte_unified"] = _package

from flyte_unified.launchers.processes import mounts as kernel
from flyte_unified.launchers.processes.mounts import MS_BIND, MS_PRIVATE, MS_RDONLY, MS_REC, MS_REMOUNT

_KEPT = {2: 2, 4: 4, 8: 8, 1024: 1024, 2048: 2048, 4096: 1 << 21}
"""Flags of statvfs(3) that a remount must repeat, as mount(2) knows them: nosuid, nodev, noexec and the access times."""
CANNOT_START = 128


def main(path: str) -> None:
    """Become the container of the specification at ``path``. Exits with 128 when that cannot be."""
    with open(path) as file:
        spec = json.load(file)
    failure = os.open(spec["failure"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        if spec["network"]:
            kernel.enter_network(spec["network"])
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
    kernel.unshare(as_root=True)
    kernel.mount(None, "/", MS_REC | MS_PRIVATE)
    held = {mount["target"]: os.open(mount["source"], os.O_PATH) for mount in mounts}  # a mount may hide another's source
    mirrors: set[int] = set()
    targets: list[str] = []
    if any(not os.path.lexists("/" + mount["target"].split("/")[1]) for mount in mounts):
        mirrors.add(kernel.mirror("/", stage))
        os.chroot(stage)
    for mount in mounts:
        target, source = mount["target"], held[mount["target"]]
        kernel.make(target, mirrors, targets, directory=stat.S_ISDIR(os.fstat(source).st_mode))
        kernel.mount(f"/proc/self/fd/{source}", target, MS_BIND | MS_REC)
        if mount["read_only"]:
            flags = os.statvfs(target).f_flag
            kept = sum(there for here, there in _KEPT.items() if flags & here)
            kernel.mount(None, target, MS_BIND | MS_REMOUNT | MS_RDONLY | kept)
        targets.append(os.path.realpath(target))
    for source in held.values():
        os.close(source)


if __name__ == "__main__":
    main(sys.argv[1])
