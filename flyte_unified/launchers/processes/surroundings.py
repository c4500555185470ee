"""What a local process has of the server's own environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from flyte_unified.launchers.api import INTERPRETER

_NOT_INHERITED = frozenset(
    {
        "EAGER_API_KEY",
        "FLYTECTL_CONFIG",
        "FLYTE_API_KEY",
        INTERPRETER,
        "PYTHONHOME",
        "UCTL_CONFIG",
        "_UNION_EAGER_API_KEY",
    }
)
"""Would point the process's SDK at another server, or at another Python's library."""
_LOCAL_NAMES = "localhost,127.0.0.1,::1"


class Surroundings:
    """``inherited`` is what every process gets, unless it is told otherwise."""

    def __init__(self, inherited: Mapping[str, str]) -> None:
        self.inherited = {key: value for key, value in inherited.items() if key not in _NOT_INHERITED}

    def environment(self, asked: Mapping[str, str], system: Mapping[str, str], interpreter: Path) -> dict[str, str]:
        """The whole of it; ``system`` has the last word, and ``interpreter`` is the first that a PATH leads to."""
        path = os.pathsep.join(
            filter(None, (str(interpreter.parent), asked.get("PATH") or self.inherited.get("PATH", os.defpath)))
        )
        proxies = ",".join(filter(None, (self.inherited.get("NO_PROXY", ""), _LOCAL_NAMES)))
        return {**self.inherited, **asked, **system, "PATH": path, "NO_PROXY": proxies}
