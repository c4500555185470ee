"""The options of the command line that are settings, derived from their declarations."""

from __future__ import annotations

import argparse
import os
from collections.abc import Container
from typing import Any

from flyte_unified import settings
from flyte_unified.settings import FIELDS, Settings

DATA = ("data.dir",)
"""Where the data is, and so which server is meant."""
ADDRESS = ("server.host", "server.port", "server.insecure_public")


def add(parser: argparse.ArgumentParser, *, only: Container[str] = FIELDS) -> None:
    """Add ``--config`` and every setting that has a flag, or those of ``only`` for a verb that looks at no others."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="settings file; else $FLYTE_UNIFIED_CONFIG, ./flyte.yaml, ~/.flyte-unified/flyte.yaml",
    )
    for key, declared in FIELDS.items():
        if not (flag := declared.metadata["flag"]) or key not in only:
            continue
        described: dict[str, Any] = {"dest": key, "default": None, "help": _help(key)}
        if declared.type == "bool":
            parser.add_argument(flag, action="store_const", const="true", **described)
        else:
            choices = declared.metadata["choices"]
            metavar = "{" + ",".join(choices) + "}" if choices else str(declared.type).upper()
            parser.add_argument(flag, metavar={"STR": "TEXT", "INT": "N"}.get(metavar, metavar), **described)


def load(args: argparse.Namespace) -> Settings:
    """The settings as the file, the environment and ``args`` have them."""
    flags = {key: value for key, value in vars(args).items() if key in FIELDS and value is not None}
    return settings.load(file=settings.find_file(args.config, environ=os.environ), environ=os.environ, flags=flags)


def _help(key: str) -> str:
    declared = FIELDS[key]
    text = str(declared.metadata["doc"]).replace("`", "").removesuffix(".").replace("%", "%%")
    default = settings.written(key, declared.default)
    return text if declared.type == "bool" or default == '""' else f"{text} (default: {default})"
