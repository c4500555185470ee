"""``flyte-unified version``: what runs, and on what."""

from __future__ import annotations

import argparse
import platform
import sys
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from typing import Any

from flyte_unified import __version__


def add_to(verbs: Any) -> None:
    parser: argparse.ArgumentParser = verbs.add_parser("version", help="print versions, for a bug report")
    parser.set_defaults(run=run)


def run(_: argparse.Namespace) -> int:
    lines = {"flyte-unified": __version__, "python": f"{platform.python_version()} ({sys.executable})"}
    for package in ("flyteidl2", "flyte"):
        try:
            lines[package] = installed(package)
        except PackageNotFoundError:
            lines[package] = "not installed"
    lines["platform"] = platform.platform()
    sys.stdout.writelines(f"{name:<14} {value}\n" for name, value in lines.items())
    return 0
