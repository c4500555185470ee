"""Whether an environment has what a process needs, before it starts there: said in one sentence, not in a traceback."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from flyte_unified.launchers.api import Unlaunchable
from flyte_unified.launchers.processes.answers import answer
from flyte_unified.plugins.api import Need

_SECONDS = 30.0
_LOOK = "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)"


class Needs:
    """What was there once is not looked for again; what is missing is, as that can be mended."""

    def __init__(self) -> None:
        self._met: set[tuple[Path, str, str, str]] = set()

    async def check(self, needs: Iterable[Need], interpreter: Path, environment: Mapping[str, str]) -> None:
        """Raises Unlaunchable saying what to install."""
        for need in needs:
            key = (interpreter, environment.get("PATH", ""), environment.get("PYTHONPATH", ""), need.name)
            if key in self._met:
                continue
            if need.program:
                found = _on_path(need.name, environment)
            else:
                found = await _importable(need.name, interpreter, environment)
            if not found:
                kind = "program" if need.program else "module"
                where = "the task's PATH" if need.program else str(interpreter)
                advice = need.advice.format(python=interpreter)
                raise Unlaunchable("MissingLibrary", f"the task needs the {kind} {need.name!r}, and {where} has none: {advice}")
            self._met.add(key)


def _on_path(program: str, environment: Mapping[str, str]) -> bool:
    home = environment.get("JAVA_HOME")
    places = [environment.get("PATH", ""), *([f"{home}/bin"] if home else [])]
    return shutil.which(program, path=os.pathsep.join(places)) is not None


async def _importable(module: str, interpreter: Path, environment: Mapping[str, str]) -> bool:
    """Looked for, not imported: that may take seconds."""
    try:
        answered = await answer(str(interpreter), "-c", _LOOK, module, seconds=_SECONDS, environment=environment)
    except (TimeoutError, OSError):
        return False
    return answered.code == 0
