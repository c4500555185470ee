"""What BuildKit is to find in its directory: a Dockerfile, what the client sent along, the image's name, where secrets are."""

from __future__ import annotations

import asyncio
import posixpath
import re
from collections.abc import Iterable
from pathlib import Path

from flyteidl2.core import security_pb2

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.images import short, variable
from flyte_unified.images.dockerfile import dockerfile, secrets
from flyte_unified.images.orders import Order, fetched, order
from flyte_unified.plugins import secrets as names
from flyte_unified.storage.transfer import Transfer

_NAME = re.compile(r"[-\w./:@]+", re.ASCII)
"""What means nothing to a shell, nor in buildctl's lists of options."""


async def prepare(transfer: Transfer, inputs: str, to: Path, *, registry: str, uv: str) -> None:
    """For the image that the inputs at an address ask for. Raises FlyteUnifiedError; InvalidArgument for a bad layer."""
    archive = to / "context.tar.gz"
    spec, name = await fetched(transfer, inputs, archive)
    await asyncio.to_thread(_write, order(spec, name, archive, to / "context"), to, registry, uv)


def address(name: str, registry: str) -> str:
    """Where an image goes: the registry that its name says, else ours. Raises InvalidArgument."""
    if not _NAME.fullmatch(name):
        raise InvalidArgument(f"{name!r} is no name for an image")
    return name if "/" in name else f"{registry.rstrip('/')}/{short(name)}"


def mounts(wanted: Iterable[security_pb2.Secret]) -> dict[str, str]:
    """Where those are that the pod has as files, by the names that layers have for them. Raises InvalidArgument."""
    files = {variable(secret): posixpath.join(names.DIRECTORY, names.paths(secret)[0]) for secret in wanted}
    for path in files.values():
        if not _NAME.fullmatch(path):
            raise InvalidArgument(f"the secret {path!r} has no name for a file that a build can be given")
    return files


def _write(wanted: Order, to: Path, registry: str, uv: str) -> None:
    """BuildKit is another user than we are. Its words for secrets are for a shell to part at the blanks."""
    made = dockerfile(wanted.spec, uv=uv)
    (to / "Dockerfile").write_text(made.text)
    (to / "image").write_text(address(wanted.name, registry))
    for name, text in made.hidden.items():
        (to / name).write_text(text)
    files = {**mounts(secrets(wanted.spec)), **{name: name for name in made.hidden}}
    (to / "secrets").write_text(" ".join(f"--secret id={name},src={path}" for name, path in files.items()))
    for path in wanted.context.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o644))
