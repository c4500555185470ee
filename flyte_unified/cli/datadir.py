"""The data directory of a server: private to its user, and held by one server at a time."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import IO

from flyte_unified.core.errors import FailedPrecondition

LOCK = "server.lock"
_KEEPERS_LOCK = "keeper/keeper.lock"
_PREFIX = "flyte-unified-"
_OTHERS = 0o077


@contextlib.contextmanager
def held(directory: Path, *, port: int | None) -> Iterator[None]:
    """Hold ``directory`` (made, and closed to other users, if need be) until the end of the block.

    ``port`` is a server's, None for a verb that is soon done. The lock is the kernel's, so it ends with the process
    however that ends. Raises FailedPrecondition naming who holds it.
    """
    import fcntl  # not on Windows, which shall hear so in words

    try:
        _make_private(directory)
        opened = open(directory / LOCK, "a+", opener=private)  # noqa: SIM115 - closed below
    except OSError as error:
        raise FailedPrecondition(
            f"cannot use {directory} as data directory: {error.strerror}; choose another with --data-dir"
        ) from error
    with opened as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FailedPrecondition(
                f"{directory} is in use by {_holder(lock)}; stop that, or choose another directory with --data-dir"
            ) from None
        except OSError as error:
            raise FailedPrecondition(f"cannot lock {directory}: {error.strerror}; it must be on a local disk") from error
        lock.truncate(0)
        json.dump({"pid": os.getpid(), "port": port, "since": datetime.now().astimezone().isoformat("T", "seconds")}, lock)
        lock.flush()
        yield


@contextlib.contextmanager
def temporary() -> Iterator[Path]:
    """A new directory that is removed at the end of the block, whatever is in it.

    Those whose server was killed before it could do so are removed first.
    """
    _sweep()
    path = Path(tempfile.mkdtemp(prefix=_PREFIX)).resolve()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def server_port(directory: Path) -> int | None:
    """The port of the server that holds ``directory``; None when none does. Raises FailedPrecondition for another user's."""
    try:
        with (directory / LOCK).open("r+") as lock:
            return None if _free(lock) else json.load(lock)["port"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        raise FailedPrecondition(f"{directory} belongs to another user; choose another with --data-dir") from None
    except ValueError:
        raise FailedPrecondition(f"a server on {directory} is just starting") from None


def _sweep() -> None:
    """What has no lock file, or an empty one, is no server's, or that of one which is just starting."""
    for directory in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError), (directory / LOCK).open("r+") as lock:
            if lock.read() and directory.stat().st_uid == os.getuid() and _free(lock) and _keeper_is_gone(directory):
                shutil.rmtree(directory, ignore_errors=True)


def _free(lock: IO[str]) -> bool:
    import fcntl

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _keeper_is_gone(directory: Path) -> bool:
    """It follows its server within seconds, and ends the tasks before."""
    try:
        with (directory / _KEEPERS_LOCK).open("r+") as lock:
            return _free(lock)
    except FileNotFoundError:
        return True


def private(path: str, flags: int) -> int:
    """For ``open``: a new file is its user's alone."""
    return os.open(path, flags, 0o600)


def _make_private(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not directory.stat().st_mode & _OTHERS:
        return
    if not (directory / LOCK).exists() and any(directory.iterdir()):
        raise FailedPrecondition(
            f"{directory} is open to other users and holds other things; choose an empty directory with --data-dir, "
            "or close this one (chmod 700)"
        )
    directory.chmod(0o700)


def _holder(lock: IO[str]) -> str:
    """Who wrote the lock; a server that was just starting may not have written yet."""
    lock.seek(0)
    try:
        told = json.load(lock)
        what = "a server" if told["port"] else "a command"
        where = f" on port {told['port']}" if told["port"] else ""
        return f"{what} with pid {told['pid']}{where} since {told['since']}"
    except (ValueError, KeyError):
        return "a server that is just starting"
