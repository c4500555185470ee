"""What BuildKit is to find in its directory: a Dockerfile, what the client sent along, the image's name, where secrets are."""

from __future__ import annotations

import asyncio
import posixpath
from pathlib import Path

from flyte_unified.core.images import short, variable
from flyte_unified.images.dockerfile import dockerfile, secrets
from flyte_unified.images.orders import Order, fetched, order
from flyte_unified.plugins import secrets as names
from flyte_unified.storage.transfer import Transfer


async def prepare(transfer: Transfer, inputs: str, to: Path, *, registry: str, uv: str) -> None:
    """For the image that the inputs at an address ask for. Raises FlyteUnifiedError; InvalidArgument for a bad layer."""
    archive = to / "context.tar.gz"
    spec, name = await fetched(transfer, inputs, archive)
    await asyncio.to_thread(_write, order(spec, name, archive, to / "context"), to, registry, uv)


def address(name: str, registry: str) -> str:
    """Where an image goes: the registry that its name says, else ours."""
    return name if "/" in name else f"{registry.rstrip('/')}/{short(name)}"


def _write(wanted: Order, to: Path, registry: str, uv: str) -> None:
    """BuildKit is another user than we are."""
    (to / "Dockerfile").write_text(dockerfile(wanted.spec, uv=uv))
    (to / "image").write_text(address(wanted.name, registry))
    files = {variable(secret): posixpath.join(names.DIRECTORY, names.paths(secret)[0]) for secret in secrets(wanted.spec)}
    (to / "secrets").write_text(" ".join(f"--secret id={name},src={path}" for name, path in files.items()))
    for path in wanted.context.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o644))
