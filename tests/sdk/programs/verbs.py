"""Verbs of the SDK's command line, one after the other in one process, as starting it costs a second each.

``verbs.py tree`` tells every verb that there is, ``verbs.py`` runs those that no other program does.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from click.testing import CliRunner
from flyte.cli import main
from speak import say

OWN_FILES = ("build", "deploy", "run", "serve")
"""Verbs whose nouns are the user's files."""


def verbs(command: click.Command, path: Sequence[str] = ()) -> Iterator[str]:
    if not isinstance(command, click.Group):
        yield " ".join(path)
        return
    if path and path[0] in OWN_FILES:
        yield " ".join(path)
        if len(path) > 1:
            return
    context = click.Context(command, info_name="flyte")
    for name in command.list_commands(context):
        if not name.endswith(".py"):
            found = command.get_command(context, name)
            assert found is not None
            yield from verbs(found, (*path, name))


def type_in(*arguments: str) -> str:
    """Runs a verb and tells what came of it."""
    done = CliRunner().invoke(main, arguments)
    raised = "" if done.exception is None or isinstance(done.exception, SystemExit) else repr(done.exception)
    say(" ".join(arguments), code=done.exit_code, output=done.output, raised=raised)
    return done.output


def run_all(directory: Path) -> None:
    found = re.search(r"Created Run: (\w+)", type_in("run", "--follow", "hello.py", "main"))
    assert found
    run = found[1]
    say("run", name=run)
    type_in("get", "code", run, "--dest", str(directory / "code"))
    type_in("rerun", run)
    again = re.search(r"Created Run: (\w+)", type_in("rerun", "--follow", run, "--n", "3"))
    assert again
    type_in("get", "io", again[1], "--outputs-only")
    type_in("build", "hello.py", "env")
    type_in("get", "config")
    config = ("--project", "p", "--domain", "development")
    type_in("create", "config", "--endpoint", "localhost:7", "--insecure", *config, "-o", str(directory / "own.yaml"))
    type_in("create", "config", "--devbox", "-o", str(directory / "devbox.yaml"))
    type_in("gen", "docs", "--type", "markdown")
    type_in("run", "--follow", "hello")
    script = directory / "script.py"
    script.write_text("import sys\nprint('script says', sys.argv[1:])\n")
    type_in("run", "--follow", "python-script", str(script), "--image", "ghcr.io/acme/tool:1", "--extra-args", "a,b")
    type_in("run", "--debug", "hello.py", "main")


if __name__ == "__main__":
    if sys.argv[1] == "tree":
        say("tree", verbs=sorted(set(verbs(main))))
    else:
        run_all(Path(sys.argv[1]))
