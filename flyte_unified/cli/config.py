"""``flyte-unified config``: what the settings are, where each is from, and how a client finds the server."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flyte_unified import settings
from flyte_unified.cli import options
from flyte_unified.core.errors import FailedPrecondition
from flyte_unified.settings import Settings


def add_to(verbs: Any) -> None:
    config: argparse.ArgumentParser = verbs.add_parser("config", help="show the settings, or configure a client")
    nouns = config.add_subparsers(metavar="WHAT", required=True)

    show = nouns.add_parser("show", help="print each setting, its value, and where the value is from")
    options.add(show)
    show.set_defaults(run=run_show)

    client = nouns.add_parser(
        "client",
        help="print the configuration that points the Flyte SDK and CLI here",
        description="Print the configuration that points the Flyte SDK and CLI here. They find it as .flyte/config.yaml in the "
        "working directory, in the root of a git repository or at home.",
    )
    options.add(client, only=options.ADDRESS)
    client.add_argument("--write", metavar="PATH", type=Path, help="write it to PATH, .flyte/config.yaml for instance")
    client.add_argument("--force", action="store_true", help="with --write: replace a file with other content")
    client.set_defaults(run=run_client)

    template = nouns.add_parser("template", help="print a settings file with every default, commented out")
    template.set_defaults(run=run_template)


def run_show(args: argparse.Namespace) -> int:
    loaded = options.load(args)
    rows = [(key, settings.shown(key, value), source) for key, value, source in loaded.values()]
    key_width, value_width = (max(len(row[column]) for row in rows) for column in (0, 1))
    sys.stdout.writelines(f"{key:<{key_width}}  {value:<{value_width}}  {source}\n" for key, value, source in rows)
    return 0


def run_client(args: argparse.Namespace) -> int:
    text = client_config(options.load(args))
    if args.write is None:
        sys.stdout.write(text)
        return 0
    path: Path = args.write.expanduser()
    if path.exists() and path.read_text() != text and not args.force:
        raise FailedPrecondition(f"{path} exists with other content; --force replaces it")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    sys.stdout.write(f"wrote {path}\n")
    return 0


def client_config(loaded: Settings) -> str:
    """A client's configuration in YAML, as the ``flyte`` SDK reads it.

    The image builder is ``remote``, because the server answers for images: nothing is built or pushed for a task that
    runs as a local process.
    """
    url = urlsplit(loaded.base_url(loaded.server.port))
    project = loaded.projects.seed[0] if loaded.projects.seed else "flytesnacks"
    return (
        "admin:\n"
        f"  endpoint: dns:///{url.netloc}\n"
        f"  insecure: {'false' if url.scheme == 'https' else 'true'}\n"
        "image:\n"
        "  builder: remote\n"
        "task:\n"
        f"  project: {project}\n"
        f"  domain: {loaded.projects.domains[0]}\n"
    )


def run_template(_: argparse.Namespace) -> int:
    from flyte_unified.cli.reference import template

    sys.stdout.write(template())
    return 0
