"""From a container's words to a local command: which program, and which part of the environment an import can see."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flyte_unified.launchers.processes.interpreters import Interpreter

RUNTIME = str(Path(__file__).with_name("a0.py"))
"""The SDK's task program: what its console script ``a0`` does, and more."""

_FORMS = {name: str(Path(__file__).with_name(f"{name}.py")) for name in ("a0_clustered", "a0_dask", "a0_pytorch")}
"""The same within the local form of what takes several machines elsewhere."""

_LIBRARIES = (
    *("PYTHON", "LD_", "DYLD_", "GLIBC_", "MALLOC_", "LC_", "SSL_", "OPENSSL_", "FSSPEC_"),
    *("OMP_", "MKL_", "OPENBLAS_", "GOTO_", "BLIS_", "KMP_", "VECLIB_", "NUMEXPR_"),
)
"""Prefixes of variables that libraries read while they are loaded, some of them out of Python's sight."""

_ORDINARY = frozenset({"HOME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER", "VIRTUAL_ENV"})


@dataclass(frozen=True, slots=True)
class Program:
    """How to run it: ``command`` starts a new process, ``source`` and ``argv`` are for a Python that runs already."""

    command: tuple[str, ...]
    source: str = ""
    """A script's path, or empty when it is not Python's."""
    argv: tuple[str, ...] = ()


def resolve(argv: tuple[str, ...], interpreter: Interpreter, *, env: Mapping[str, str]) -> Program:
    """What ``argv`` means for tasks of ``interpreter``."""
    name, rest = argv[0], argv[1:]
    if name in ("python", "python3"):
        return Program((str(interpreter.path), *rest))
    if name == "a0":
        return Program((str(interpreter.path), RUNTIME, *rest), RUNTIME, (RUNTIME, *rest))
    if name in _FORMS:
        return Program((str(interpreter.path), _FORMS[name], *rest))
    script = _find(name, interpreter, env)
    if script is None:
        return Program(argv)
    if _is_python(script):
        return Program((str(interpreter.path), str(script), *rest), str(script), (str(script), *rest))
    return Program((str(script), *rest))


def inherited(env: Mapping[str, str], *, also: set[str]) -> dict[str, str]:
    """The part of ``env`` that a preloading process must share with the task."""
    return {k: v for k, v in env.items() if k in _ORDINARY or k in also or k.startswith(_LIBRARIES)}


def _find(name: str, interpreter: Interpreter, env: Mapping[str, str]) -> Path | None:
    if os.sep in name:
        return Path(name)
    places = [interpreter.path.parent, interpreter.scripts, *map(Path, filter(None, env.get("PATH", "").split(":")))]
    return next((place / name for place in places if (place / name).is_file()), None)


def _is_python(path: Path) -> bool:
    """Whether ``path`` is a script for Python: installers write its path, or a shell line when that is too long."""
    try:
        with path.open("rb") as file:
            start = file.read(1024)
    except OSError:
        return False
    first, _, rest = start.partition(b"\n")
    return first.startswith(b"#!") and (b"python" in first or (first.endswith(b"/sh") and rest.startswith(b"'''exec'")))
