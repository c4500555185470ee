"""Tasks that ask for secrets. They tell digests of what they got, so that a value found anywhere else has leaked."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import flyte
from flyte.remote import Secret
from speak import say, tell

FILES = Path("/etc/flyte/secrets")

plain = flyte.TaskEnvironment(name="plain", env_vars={"TOKEN": "of the task"}, secrets="token")
several = flyte.TaskEnvironment(
    name="several",
    secrets=[
        flyte.Secret("token", as_env_var="RENAMED"),
        flyte.Secret("token", group="grouped"),
        flyte.Secret("token", mount=FILES),
        flyte.Secret("certificate", mount=FILES),
    ],
)
hopeful = flyte.TaskEnvironment(name="hopeful", secrets="nobody-has-it")
binary = flyte.TaskEnvironment(name="binary", secrets="certificate")


def digest(value: str | bytes) -> str:
    return hashlib.sha256(value if isinstance(value, bytes) else value.encode()).hexdigest()


@plain.task
async def variable() -> str:
    return digest(os.environ["TOKEN"])


@several.task
async def everything() -> dict[str, str]:
    """By where it was found."""
    files = {path.name: digest(path.read_bytes()) for path in FILES.rglob("*") if path.is_file()}
    found = {name: digest(os.environ[name]) for name in ("RENAMED", "GROUPED_TOKEN")}
    try:
        (FILES / "token").write_text("mine now")
    except OSError as error:
        found["written"] = type(error).__name__
    return {**found, **files}


@hopeful.task
async def hopeless() -> str:
    return "ran"


@binary.task
async def unreadable() -> str:
    return "ran"


@plain.task
async def waits(gate: str) -> str:
    """Says so in a pipe, and runs until another is written to."""
    Path(gate, "began").write_text("x")
    Path(gate, "end").read_text()
    return digest(os.environ["TOKEN"])


def obey(verb: str, *words: str) -> None:
    """One order of the test that watches."""
    if verb == "create":
        Secret.create(words[0], words[1])
        say("create")
    elif verb == "list":
        say("list", names=[secret.name for secret in Secret.listall(limit=2)], one=Secret.get(words[0]).to_dict())
    elif verb == "waits":
        run = flyte.run(waits, gate=words[0])
        say("started", run=run.name)
        sys.stdin.readline()
        tell("waits", run)
    else:
        tell(verb, flyte.run({task.short_name: task for task in (variable, everything, hopeless, unreadable)}[verb]))


if __name__ == "__main__":
    flyte.init_from_config()
    for line in sys.stdin:
        obey(*line.split())
