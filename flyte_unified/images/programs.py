"""The steps of a build, carried out: uv and other programs, whose output is the build's log, and files put in place."""

from __future__ import annotations

import base64
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType

import psutil
from flyteidl2.core import security_pb2

from flyte_unified.core.errors import FailedPrecondition
from flyte_unified.core.images import VARIABLES, expanded, variable
from flyte_unified.images.environments import files_of
from flyte_unified.images.layers import LOGIN, Copy, Need, Run, Step, Take
from flyte_unified.launchers.processes import mounts
from flyte_unified.plugins import secrets as names

_TAIL = 20
"""Lines of a failed program that its error quotes."""
_COMMANDS = {"build-essential": ("cc", "make"), "ca-certificates": ()}
"""What packages bring that the SDK's own images have, where they have other names. Python has a trust store anyway."""
_VERSION = "import sys; print('%d.%d' % sys.version_info[:2])"
_SDK = "from importlib.metadata import version; print(version('flyte'))"


class Programs:
    """What a build runs, for the virtual environment at ``environment``.

    ``default`` is the Python of tasks without an image. ``environ`` is the build's own, with the values of its secrets.
    Methods raise FailedPrecondition, with the last words of what failed.
    """

    def __init__(self, environment: Path, *, default: Path, environ: Mapping[str, str]) -> None:
        self._environment = environment
        self._python = environment / "bin" / "python"
        self._files = files_of(environment)
        self._default = default
        self._environ = environ
        self.uv = _find_uv()

    def create(self, python: str) -> None:
        """An empty environment of a version of Python, of tasks' default if none is named."""
        self._run((self.uv, "venv", "--no-project", "--allow-existing", "--python", self._find(python), str(self._environment)))
        self._files.mkdir()

    def install_sdk(self, version: str) -> None:
        """From uv's cache, else from the index: the cache alone is four times as fast, and enough without a network."""
        argv = self._installing(f"flyte=={version}")
        if _answer((*argv, "--offline")) is None:
            self._run(argv)
        else:
            say(f"flyte {version}, from uv's cache")

    def check(self) -> None:
        """A task can start there. An image that doesn't bring the SDK gets the one that tasks have without an image."""
        if _answer((str(self._python), "-c", _SDK)) is None:
            version = _answer((str(self._default), "-c", _SDK))
            say("the image brings no flyte: installing the one that tasks have here")
            self._run(self._installing(f"flyte=={version}" if version else "flyte"))
        self._run((str(self._python), "-c", "import flyte._bin.runtime"))

    def carry_out(self, step: Step, variables: Sequence[tuple[str, str]]) -> None:
        """``variables`` are the image's."""
        match step:
            case Run():
                self._step(step, variables)
            case Take():
                shutil.copyfile(step.source, step.target)
            case Copy():
                _copy(Path(step.source), self._files, step.target)
            case Need():
                _need(step.packages)

    def _step(self, step: Run, variables: Sequence[tuple[str, str]]) -> None:
        environ, files = self._secrets(step.secrets)
        argv = step.argv
        if step.lines:
            file = Path.cwd() / "requirements.txt"
            file.touch(mode=0o600)
            file.write_text("\n".join(step.lines))
            argv = (*argv, str(file))
        own = {
            "POETRY_VIRTUALENVS_CREATE": "false",
            "VIRTUAL_ENV": str(self._environment),
            "PATH": os.pathsep.join((str(self._python.parent), self._environ.get("PATH", os.defpath))),
        }
        inherited = {**_plain(self._environ), **own}
        self._run(
            argv,
            environ={**inherited, **expanded(variables, inherited), **own, **environ},
            variables=dict(step.variables),
            directory=step.directory or str(self._files),
            files=files,
            hidden=[self._environ[variable(secret)] for secret in step.secrets],
        )

    def _secrets(self, secrets: Sequence[security_pb2.Secret]) -> tuple[dict[str, str], dict[str, str]]:
        """As variables, and as files (in base64) by their paths below the directory of secrets."""
        environ: dict[str, str] = {}
        files: dict[str, str] = {}
        for secret in secrets:
            value = self._environ.get(variable(secret))
            if value is None:
                raise FailedPrecondition(f"secret {secret.key!r} of a layer was not given to the build")
            if names.is_file(secret):
                files |= dict.fromkeys(names.paths(secret), base64.b64encode(value.encode()).decode())
            else:
                environ |= dict.fromkeys(names.names(secret), value)
        if files and (refused := _probe()):
            raise FailedPrecondition(
                f"a secret is asked for as a file in {names.DIRECTORY}, which this machine cannot give to one process alone "
                f"({refused}): ask for it as a variable, flyte.Secret(key=..., as_env_var=...)"
            )
        return environ, files

    def _find(self, version: str) -> str:
        """The interpreter of tasks or of the server if it is of that version, else one that uv finds or fetches."""
        for python in (str(self._default), sys.executable):
            if version in ("", _answer((python, "-c", _VERSION))):
                return python
        find = (self.uv, "python", "find", "--system", "--no-project", version)
        if found := _answer((*find, "--no-python-downloads")):
            return found
        say(f"Python {version} is not on this machine: fetching it")
        try:
            self._run((self.uv, "python", "install", "--no-bin", version))
        except FailedPrecondition as error:
            here = _answer((str(self._default), "-c", _VERSION)) or "3.12"
            raise FailedPrecondition(
                f"the image asks for Python {version}, which is not on this machine and could not be fetched: {error.message}\n"
                f"Install Python {version} where the server's PATH leads, or ask for one that is here: "
                f"Image.from_debian_base(python_version=({here.replace('.', ', ')}))"
            ) from error
        return _answer((*find, "--managed-python")) or version

    def _installing(self, package: str) -> tuple[str, ...]:
        return (self.uv, "pip", "install", "--python", str(self._python), package)

    def _run(
        self,
        argv: Sequence[str],
        *,
        environ: Mapping[str, str] | None = None,
        variables: Mapping[str, str] = MappingProxyType({}),
        directory: str = ".",
        files: Mapping[str, str] | None = None,
        hidden: Sequence[str] = (),
    ) -> None:
        """``variables`` are for ``environ`` too, and the log shows them, as it does ``argv``, but for logins.

        ``hidden`` are values that it must not show, whatever the program says.
        """
        masked = re.compile(
            "|".join(re.escape(part) for value in hidden for part in value.splitlines() if part.strip()).encode() or b"(?!)"
        )
        say("$ " + LOGIN.sub("***@", shlex.join([*(f"{name}={value}" for name, value in variables.items()), *argv])))
        process = subprocess.Popen(
            argv,
            cwd=directory,
            env={**(_plain(self._environ) if environ is None else environ), **variables, "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=partial(mounts.keep_private, names.DIRECTORY, dict(files)) if files else None,  # noqa: PLW1509  # one thread
        )
        last: deque[str] = deque(maxlen=_TAIL)
        with process:
            assert process.stdout is not None
            for said in process.stdout:
                line = masked.sub(b"***", said)
                sys.stdout.buffer.write(line)
                sys.stdout.buffer.flush()
                last.append(line.decode(errors="replace"))
        if process.returncode:
            raise FailedPrecondition(
                f"{Path(argv[0]).name} {argv[1]} failed with exit code {process.returncode}:\n{''.join(last).strip()}"
            )


def say(text: str) -> None:
    """A line of ours in the log."""
    sys.stdout.write(f"[build-image] {text}\n")
    sys.stdout.flush()


def busy(images: Path) -> set[str]:
    """The environments in ``images`` whose Python runs, by what this machine's processes say."""
    found = set()
    for process in psutil.process_iter(["cmdline"]):
        program = Path(next(iter(process.info["cmdline"] or ()), ""))
        if program.is_relative_to(images):
            found.add(str(program.parent.parent))
    return found


def _find_uv() -> str:
    try:
        from uv import find_uv_bin
    except ModuleNotFoundError:
        found = shutil.which("uv")
    else:
        found = os.fspath(find_uv_bin())
    if not found:
        raise FailedPrecondition("building images needs uv: pip install 'flyte-unified[laptop]'")
    return found


def _plain(environ: Mapping[str, str]) -> dict[str, str]:
    """Without the secrets of layers."""
    return {name: value for name, value in environ.items() if not name.startswith(VARIABLES)}


def _answer(argv: Sequence[str]) -> str | None:
    """What a program says in one line; None where it fails."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _probe() -> str:
    """Why a process can't have secrets as files here; empty if it can."""
    argv = [sys.executable, "-I", "-S", mounts.__file__, names.DIRECTORY]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else ""


def _copy(source: Path, files: Path, target: str) -> None:
    place = files / target
    if source.is_dir():
        shutil.copytree(source, place, symlinks=True, dirs_exist_ok=True)
        return
    if target.endswith("/") or place.is_dir():
        place /= source.name
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, place)


def _need(packages: Sequence[str]) -> None:
    """The machine has them: by its package manager, or what they are wanted for."""
    for package in packages:
        name = package.partition("=")[0]
        state = _answer(("dpkg-query", "--show", "--showformat=${db:Status-Status}", name))
        if state != "installed" and not all(map(shutil.which, _COMMANDS.get(name, (name,)))):
            raise FailedPrecondition(
                f"the image needs the package {name} of the operating system, which a virtual environment shares with this "
                f"machine, and it is not installed here: sudo apt-get install {name} (or what your system calls it), and build "
                "again; or take it out of the image"
            )
        say(f"{name}: this machine has it")
