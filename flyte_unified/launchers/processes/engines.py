"""Which program runs containers on this machine, and what it can: podman or docker, whichever answers."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flyte_unified.launchers.api import Unlaunchable
from flyte_unified.launchers.processes.answers import answer

_KNOWN = ("podman", "docker")
_SECONDS = 30.0
_ADVICE = "install podman (apt-get install podman, dnf install podman, brew install podman) or start docker"


@dataclass(frozen=True, slots=True)
class Engine:
    """``path`` takes podman's words, which are docker's."""

    path: str
    podman: bool
    limits: frozenset[str] = frozenset({"cpu", "memory"})
    """What it can keep a container from using more of."""


class Engines:
    """``chosen`` is a program's name or path; empty: the first that answers. Asked once, and again while none does."""

    def __init__(self, chosen: str) -> None:
        self._names = (chosen,) if chosen else _KNOWN
        self._found: Engine | None = None
        self._asking = asyncio.Lock()

    async def find(self, environment: Mapping[str, str]) -> Engine:
        """Raises Unlaunchable, saying how one is come by."""
        async with self._asking:
            if self._found is None:
                self._found = await self._ask(environment)
            return self._found

    async def _ask(self, environment: Mapping[str, str]) -> Engine:
        refusals = []
        for name in self._names:
            path = shutil.which(name, path=environment.get("PATH"))
            if path is None:
                refusals.append(f"{name} is not installed")
                continue
            answer = await _podman(path, environment) if "podman" in Path(path).name else await _docker(path, environment)
            if isinstance(answer, Engine):
                return answer
            refusals.append(f"{name} does not work ({answer})")
        told = "; ".join(refusals)
        raise Unlaunchable("NoContainerEngine", f"the task's image takes podman or docker to run: {told}; {_ADVICE}")


async def _podman(path: str, environment: Mapping[str, str]) -> Engine | str:
    """Without root it can limit what was delegated to the user."""
    code, out = await _said(environment, path, "info", "--format", "json")
    if code:
        return out
    host = json.loads(out)["host"]
    return Engine(path, podman=True, limits=frozenset(host.get("cgroupControllers") or ()))


async def _docker(path: str, environment: Mapping[str, str]) -> Engine | str:
    code, out = await _said(environment, path, "version", "--format", "{{.Server.Version}}")
    return out if code else Engine(path, podman=False)


async def _said(environment: Mapping[str, str], *command: str) -> tuple[int, str]:
    """Its exit code with what it said, or the last line of its complaint."""
    try:
        answered = await answer(*command, seconds=_SECONDS, environment=environment)
    except TimeoutError:
        return 1, f"no answer for {_SECONDS:g} seconds"
    if answered.code:
        return answered.code, answered.last_words or f"exit {answered.code}"
    return 0, answered.out.decode()
