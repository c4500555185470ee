"""The clients of this user: which configuration the SDK and its command line find here, and whether it leads to this server."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from flyte_unified.cli.datadir import server_port
from flyte_unified.cli.doctor.finding import Check, Finding, error, ok, warning
from flyte_unified.settings import LOOPBACK, Settings

_SUBJECT = "client"
_VARIABLES = ("UCTL_CONFIG", "FLYTECTL_CONFIG")


async def _client(settings: Settings) -> AsyncIterator[Finding]:
    if settings.execution.launcher == "pods":  # its clients are elsewhere
        return
    port = server_port(settings.data.dir) or settings.server.port
    url = urlsplit(settings.base_url(port))
    write = f"flyte-unified config client --port {port} --write .flyte/config.yaml --force"
    path = config_path(Path.cwd(), os.environ)
    if path is None:
        yield warning(_SUBJECT, "the SDK finds no configuration from here", write.removesuffix(" --force"))
        return
    try:
        config = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as raised:
        yield error(_SUBJECT, f"the SDK cannot read {path}: {raised}", write)
        return
    for text in _wrong(config if isinstance(config, Mapping) else {}, secure=url.scheme == "https", netloc=url.netloc):
        yield warning(_SUBJECT, f"{path}: {text}", write)
        return
    yield ok(_SUBJECT, f"{path} leads here")


def _wrong(config: Mapping[str, Any], *, secure: bool, netloc: str) -> Iterator[str]:
    admin, image = config.get("admin") or {}, config.get("image") or {}
    endpoint = str(admin.get("endpoint", "")).removeprefix("dns:///")
    if _place(endpoint, secure) != _place(netloc, secure):
        yield f"admin.endpoint leads to {endpoint or 'nowhere'}, not to {netloc}"
    elif bool(admin.get("insecure", False)) == secure:
        yield f"admin.insecure must be {'false' if secure else 'true'}"
    elif image.get("builder") != "remote":
        yield "image.builder is not `remote`, so the SDK would build images with Docker"


def _place(netloc: str, secure: bool) -> tuple[str, int]:
    parts = urlsplit(f"//{netloc.partition('://')[2] or netloc}")
    host = parts.hostname or ""
    return "localhost" if host in LOOPBACK else host, parts.port or (443 if secure else 80)


def config_path(directory: Path, environ: Mapping[str, str]) -> Path | None:
    """The file that the SDK reads when it is started in ``directory``."""
    home = Path(environ.get("HOME") or Path.home())
    root = next((parent for parent in (directory, *directory.parents) if (parent / ".git").exists()), None)
    near = [directory / "config.yaml", directory / ".flyte/config.yaml", *([root / ".flyte/config.yaml"] if root else [])]
    if (found := next((path for path in near if path.exists()), None)) is not None:
        return found
    if named := next((environ[name] for name in _VARIABLES if environ.get(name)), None):
        return Path(named)
    return next((path for path in (home / ".union/config.yaml", home / ".flyte/config.yaml") if path.exists()), None)


CHECKS = [Check(_SUBJECT, _client, "flyte-unified config client --write .flyte/config.yaml")]
