"""The virtual environments of this machine, and the names of images by which they are found. All of it is in one directory.

An environment is built where it stays, as it knows its own path, and counts from the moment that its record is there: written
last, in one step. Who dies in the middle leaves a directory that is never used, and that a later build takes away. Both locks
end with the process that has them: one on the content, so that the same is not built twice at a time, one on the directory.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flyte_unified.core.images import OURS, short

_RECENT = 600.0
"""Seconds for which an environment is safe after it was asked for: what is to run there may not have started yet."""
_RECORD = "image.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """One that is complete."""

    path: Path
    key: str
    """Of the content that it was made from."""
    variables: Sequence[tuple[str, str]]
    """In order: a later one may refer to those before as ``$NAME``."""
    run: str
    """``project/domain/run`` of its build."""
    size: int
    """Bytes, though uv may share files with its cache."""

    @property
    def python(self) -> Path:
        return self.path / "bin" / "python"

    @property
    def files(self) -> Path:
        """What was copied, as tasks are to find it in their working directory."""
        return files_of(self.path)

    @property
    def usable(self) -> bool:
        """Not so where the Python that it was made with is there no longer."""
        return self.python.exists()


class Environments:
    """Those in ``directory``. Methods read and write files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._names = directory / "names"
        self._places = directory / "environments"
        self._lock = directory / "lock"

    def named(self, image: str) -> Environment | None:
        """The environment of an image, whatever stands before ``name:tag``. It counts as used now."""
        try:
            found = _used_now(self._places / json.loads(self._name(image).read_bytes())["environment"])
        except FileNotFoundError:
            return None
        return found if found.usable else None

    def of(self, key: str) -> Environment | None:
        """One that was made from this content. It counts as used now."""
        with _locked(self._places):
            found = next((each for each in self._by_use() if each.key == key and each.usable), None)
            return _used_now(found.path) if found is not None else None

    def name(self, image: str, environment: Environment) -> str:
        """From now on ``image`` is ``environment``. Returns the address by which tasks name it."""
        self._names.mkdir(parents=True, exist_ok=True)
        _write(self._name(image), {"image": short(image), "environment": environment.path.name})
        return OURS + short(image)

    @contextlib.contextmanager
    def alone(self, key: str, *, waiting: Callable[[], None]) -> Iterator[None]:
        """Nobody else builds this content meanwhile. ``waiting`` is called where somebody does."""
        self._places.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._lock.open("a") as file:
            place = int(key[:12], 16)
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
            except BlockingIOError:
                waiting()
                fcntl.lockf(file, fcntl.LOCK_EX, 1, place)
            yield

    @contextlib.contextmanager
    def new(self, key: str) -> Iterator[Path]:
        """A directory for an environment of ``key``; it is gone again unless ``add`` was called."""
        path = self._places / f"{key}-{uuid.uuid4().hex[:8]}"
        with contextlib.ExitStack() as building:
            with _locked(self._places):
                path.mkdir()
                building.enter_context(_locked(path))
            try:
                yield path
            finally:
                if not (path / _RECORD).exists():
                    shutil.rmtree(path)

    def add(self, path: Path, *, key: str, variables: Sequence[tuple[str, str]], run: str) -> Environment:
        """What was built in ``path`` is complete."""
        size = sum(entry.lstat().st_size for entry in path.rglob("*"))
        _write(path / _RECORD, {"key": key, "variables": list(variables), "run": run, "size": size})
        return Environment(path=path, key=key, variables=variables, run=run, size=size)

    def prune(self, *, age: float, size: int, busy: Collection[str]) -> list[Path]:
        """Removes those unused for ``age`` seconds, and those unused for longest while there are more than ``size`` bytes.

        Returns them. Those in ``busy`` and those used of late stay. What a build left that died goes too.
        """
        with _locked(self._places):
            gone = self._superfluous(age, size, busy)
            for path in gone:
                (path / _RECORD).unlink()
            for path in self._places.glob("*-*"):
                # Those that a build removes itself, as it failed, may be gone by now.
                with contextlib.suppress(BlockingIOError, FileNotFoundError), _locked(path, wait=False):
                    if not (path / _RECORD).exists():
                        shutil.rmtree(path)
            for name in self._names.glob("[!.]*"):
                if not (self._places / json.loads(name.read_bytes())["environment"]).exists():
                    name.unlink()
        return gone

    def _superfluous(self, age: float, size: int, busy: Collection[str]) -> list[Path]:
        now, gone = time.time(), []
        environments = self._by_use()
        total = sum(each.size for each in environments)
        for environment in reversed(environments):
            unused = now - _used(environment.path)
            if unused <= age and total <= size:
                break
            if unused > _RECENT and str(environment.path) not in busy:
                total -= environment.size
                gone.append(environment.path)
        return gone

    def _by_use(self) -> list[Environment]:
        """The one used last first."""
        places = [place for place in self._places.iterdir() if (place / _RECORD).exists()]
        return [_read(place) for place in sorted(places, key=_used, reverse=True)]

    def _name(self, image: str) -> Path:
        return self._names / hashlib.sha256(short(image).encode()).hexdigest()[:32]


def files_of(environment: Path) -> Path:
    """Where copied files are kept in an environment's directory."""
    return environment / "files"


@contextlib.contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Raises BlockingIOError where somebody else has it, and this is not to wait."""
    directory = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(directory)


def _read(path: Path) -> Environment:
    record = json.loads((path / _RECORD).read_bytes())
    return Environment(path=path, variables=[(name, value) for name, value in record.pop("variables")], **record)


def _used_now(path: Path) -> Environment:
    os.utime(path / _RECORD)
    return _read(path)


def _used(path: Path) -> float:
    return (path / _RECORD).stat().st_mtime


def _write(path: Path, content: dict[str, Any]) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(json.dumps(content))
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)
