"""Which Python runs the tasks, and what is installed there.

The server's own interpreter is seldom the one that has the user's libraries, so the default is chosen as a user would
expect: the one named, else the active environment, else the project's beside the working directory, else our own.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flyte_unified.core.errors import FailedPrecondition
from flyte_unified.launchers.processes.answers import answer

_CHECK_SECONDS = 30
_CHECK = """
import json, sys, sysconfig
from importlib import metadata
try:
    flyte = metadata.version("flyte")
except metadata.PackageNotFoundError:
    flyte = None
paths = sysconfig.get_paths()
sites = sorted({path for path in [*sys.path, paths["purelib"], paths["platlib"]] if path.endswith("-packages")})
print(json.dumps([list(sys.version_info[:3]), flyte, paths["scripts"], sites]))
"""


class BadInterpreter(FailedPrecondition):
    """The Python that tasks should run in cannot be used."""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python and its surroundings."""

    path: Path
    version: tuple[int, int, int]
    flyte: str | None
    """The version of the SDK it has, if any."""
    scripts: Path
    sites: tuple[Path, ...]

    def fingerprint(self) -> str:
        """Changes when a package is installed, removed or replaced. Reads directories: keep it off the event loop."""
        digest = hashlib.sha256(repr((str(self.path), _mtime(self.path))).encode())
        for site in self.sites:
            names = sorted(name for name in _listdir(site) if name.endswith((".dist-info", ".egg-info", ".pth")))
            digest.update(repr((str(site), _mtime(site), names)).encode())
        return digest.hexdigest()


class Interpreters:
    """Interpreters looked at, each again when what is installed there has changed."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[Interpreter, str]] = {}
        self._locks: dict[Path, asyncio.Lock] = {}

    async def inspect(self, path: Path) -> tuple[Interpreter, str]:
        """What ``path`` is, and its fingerprint. Raises BadInterpreter, saying how to choose another."""
        async with self._locks.setdefault(path, asyncio.Lock()):
            if path in self._known:
                interpreter, mark = self._known[path]
                if await asyncio.to_thread(interpreter.fingerprint) == mark:
                    return interpreter, mark
            interpreter = await _inspect(path)
            self._known[path] = interpreter, await asyncio.to_thread(interpreter.fingerprint)
            return self._known[path]


def choose(explicit: str | None, *, env: Mapping[str, str], directory: Path) -> tuple[Path, str]:
    """The default interpreter and why it is the one.

    ``explicit`` is what ``--python`` said: a path, or an environment's directory. An environment without the SDK is
    passed over, unless it was named. Raises BadInterpreter when what was named does not exist.
    """
    if explicit:
        path = Path(explicit).expanduser().absolute()
        path = path / "bin" / "python" if path.is_dir() else path
        if not os.access(path, os.X_OK):
            raise BadInterpreter(f"execution.python (--python) = {explicit!r}: there is no Python interpreter at {path}")
        return path, "--python"
    candidates = [(Path(env[name]), name) for name in ("VIRTUAL_ENV", "CONDA_PREFIX") if env.get(name)]
    candidates += [(directory / name, f"./{name}") for name in (".venv", "venv")]
    for prefix, reason in candidates:
        python = prefix.absolute() / "bin" / "python"
        if os.access(python, os.X_OK) and any(prefix.glob("lib/python3*/site-packages/flyte/__init__.py")):
            return python, reason
    return Path(sys.executable), "the server's own"


async def _inspect(path: Path) -> Interpreter:
    advice = "choose another with --python, or with FLYTE_UNIFIED_PYTHON in the run's environment"
    try:
        answered = await answer(str(path), "-c", _CHECK, seconds=_CHECK_SECONDS, directory=".")
    except TimeoutError:
        raise BadInterpreter(f"the interpreter {path} gave no answer for {_CHECK_SECONDS} seconds; {advice}") from None
    except OSError as error:
        raise BadInterpreter(f"the interpreter {path} cannot be run ({error.strerror}); {advice}") from error
    if answered.code:
        raise BadInterpreter(f"the interpreter {path} does not work ({answered.last_words}); {advice}")
    try:
        version, flyte, scripts, sites = json.loads(answered.out)
    except ValueError:
        raise BadInterpreter(f"{path} does not answer as a Python would; {advice}") from None
    major, minor, micro = version
    return Interpreter(
        path=path,
        version=(major, minor, micro),
        flyte=flyte,
        scripts=Path(scripts),
        sites=tuple(Path(site) for site in sites),
    )


def _mtime(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _listdir(path: Path) -> list[str]:
    try:
        return [entry.name for entry in path.iterdir()]
    except OSError:
        return []
