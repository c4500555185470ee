"""Containers as processes: a program of ours runs podman or docker between an attempt's inputs and outputs.

The keeper owns that program like any task's, with what it starts; so logs, ends and aborts are those of processes. A container
that outlives it, as docker's do, is found by a note in the attempt's directory and removed before anything else happens to
the action: no attempt begins beside the one before. Where its engine fails at that, the note is kept elsewhere, and it is tried
again before the next container and when a server starts.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import structlog

from flyte_unified.dataside import HANDED, NOTE
from flyte_unified.launchers.api import Unlaunchable
from flyte_unified.launchers.processes.answers import answer
from flyte_unified.launchers.processes.engines import Engine, Engines
from flyte_unified.plugins import secrets as names
from flyte_unified.plugins.api import Container

_log = structlog.get_logger(__name__)

_SECONDS = 60.0
"""For the removal of a container; it is given some to end by itself."""
_AROUND = 128 << 20
"""Bytes that our program and podman need themselves."""
_ENGINES = (
    *("BUILDAH_", "CONTAINER", "DBUS_", "DOCKER_", "HTTP", "HOME", "LD_", "NO_PROXY", "PATH", "PODMAN_", "REGISTRY_"),
    *("STORAGE_", "TMPDIR", "USER", "XDG_", "http", "no_proxy"),
)
"""Prefixes of variables that podman and docker read themselves: the container's are told on the command line, but no secret."""


class Contained(NamedTuple):
    """A process around a container."""

    engine: str
    """Its program"""
    command: tuple[str, ...]
    variables: dict[str, str]
    """Beyond its own environment."""
    memory_limit: int | None
    """Of all processes, where the engine can't keep the container's, and they are ours to watch."""


class Containers:
    """``engine`` as in the settings; ``left`` is the directory for the notes of those that could not be removed."""

    def __init__(self, *, engine: str, left: Path) -> None:
        self._engines = Engines(engine)
        self._left = left

    async def prepare(
        self,
        work: Container,
        directory: Path,
        *,
        gpus: tuple[int, ...],
        secrets: Mapping[str, str],
        files: Mapping[str, bytes],
        environment: Mapping[str, str],
    ) -> Contained:
        """Raises Unlaunchable."""
        engine = await self._engines.find(environment)
        await self.sweep()
        name = f"flyte-{hashlib.sha256(str(directory).encode()).hexdigest()[:24]}"
        private = _private(name) if files else None
        note = {"engine": engine.path, "name": name, "private": str(private or "")}
        await asyncio.to_thread(_lay_out, directory, note, private, files)
        variables = {**work.environment, **work.system, **secrets}
        own = {key: value for key, value in variables.items() if key.startswith(_ENGINES) and key not in secrets}
        words = [
            *("--log-driver=none", "--security-opt=label=disable", f"--volume={directory}/outputs:{work.outputs}"),
            *([f"--volume={directory}/inputs:{work.inputs}"] if work.inputs else []),
            *([f"--volume={private}:{names.DIRECTORY}:ro"] if private is not None else []),
            *([f"--entrypoint={work.entrypoint}"] if work.entrypoint else []),
            *(f"--env={key}={own[key]}" if key in own else f"--env={key}" for key in variables),
            *_limits(work, engine),
            *((f"--device=nvidia.com/gpu={gpu}" for gpu in gpus) if engine.podman else _docker_gpus(gpus)),
            *(work.image, *work.arguments),
        ]
        data = [word for word in work.data if work.inputs or not word.startswith("--from=")]
        command = (sys.executable, "-P", "-m", "flyte_unified", "data", "run", f"--directory={directory}", *data, "--", *words)
        return Contained(
            engine.path,
            command,
            {f"{HANDED}{key}": value for key, value in variables.items() if key not in own},
            _watched(work, engine),
        )

    async def remove(self, directory: Path) -> None:
        """Whatever is left of an attempt's container. Nothing for an attempt that had none."""
        note = directory / NOTE
        if complaint := await _removed(note):
            kept = self._left / f"{directory.name}.json"
            kept.parent.mkdir(exist_ok=True)
            note.replace(kept)
            _log.warning("a container could not be removed; it is tried again", error=complaint, note=str(kept))

    async def sweep(self) -> None:
        """Removes what could not be removed before, if that can be done now."""
        await asyncio.gather(*map(_removed, self._left.glob("*.json")))


async def _removed(path: Path) -> str:
    """What is noted at ``path`` is no more, nor is the note; or the engine's complaint."""
    note = _noted(path)
    if note is None:
        return ""
    try:
        said = await answer(note["engine"], "rm", "--force", note["name"], seconds=_SECONDS)
        if said.code and "no such container" not in said.last_words.lower():
            return said.last_words or f"exit {said.code}"
    except FileNotFoundError:
        pass  # an engine that was taken away has nothing that runs
    except (TimeoutError, OSError) as error:
        return str(error) or f"no answer for {_SECONDS:g} seconds"
    await asyncio.to_thread(_discard, path, note["private"])
    return ""


def _noted(path: Path) -> Mapping[str, str] | None:
    try:
        note: Mapping[str, str] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:  # it comes before the container, so whoever died writing it made none
        path.unlink()
        return None
    return note


def _discard(path: Path, private: str) -> None:
    if private:
        shutil.rmtree(private, ignore_errors=True)
    path.unlink(missing_ok=True)


def _watched(work: Container, engine: Engine) -> int | None:
    """Docker's containers are no processes below ours."""
    limit = work.resources.memory_limit
    return limit + _AROUND if limit and engine.podman and "memory" not in engine.limits else None


def _limits(work: Container, engine: Engine) -> list[str]:
    asked = work.resources
    memory = [f"--memory={asked.memory_limit}"] if asked.memory_limit and "memory" in engine.limits else []
    return memory + ([f"--cpus={asked.cpu_limit:g}"] if asked.cpu_limit and "cpu" in engine.limits else [])


def _docker_gpus(gpus: tuple[int, ...]) -> list[str]:
    return [f'--gpus="device={",".join(map(str, gpus))}"'] if gpus else []


def _private(name: str) -> Path:
    """A place in memory for its secrets. Raises Unlaunchable where there is none."""
    for place in filter(None, (os.environ.get("XDG_RUNTIME_DIR"), "/dev/shm")):
        if os.access(place, os.W_OK):
            return Path(place, f"flyte-unified-{os.getuid()}", name)
    raise Unlaunchable(
        "SecretUnavailable",
        "the task asks for secrets as files, for which this machine has no directory in memory; ask for them as variables",
    )


def _lay_out(directory: Path, note: Mapping[str, str], private: Path | None, files: Mapping[str, bytes]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / NOTE).write_text(json.dumps(note))
    if private is None:
        return
    private.parent.mkdir(mode=0o700, exist_ok=True)  # which keeps others out; whoever the container runs as gets in
    owned = private.parent.lstat()
    if (owned.st_uid, owned.st_mode & 0o077) != (os.getuid(), 0):
        raise Unlaunchable(
            "SecretUnavailable", f"{private.parent} is to keep secrets, and others have made it theirs: remove it"
        )
    for name, content in files.items():
        path = private / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o444)
