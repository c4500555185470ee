"""How a verb finds the running server, and proves that it may operate it."""

from __future__ import annotations

import argparse
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from flyte_unified.cli import options
from flyte_unified.cli.datadir import server_port
from flyte_unified.core.errors import FailedPrecondition
from flyte_unified.settings import Settings

if TYPE_CHECKING:
    from flyte_unified.operations.messages import ManagerServiceStub

_SECONDS = 20.0


def add(parser: argparse.ArgumentParser) -> None:
    """The options that say which server is meant."""
    parser.add_argument("--endpoint", metavar="URL", help="of the server (default: the one that holds the data directory)")
    options.add(parser, only=options.DATA)


@asynccontextmanager
async def operating(args: argparse.Namespace) -> AsyncGenerator[ManagerServiceStub]:
    """Its ManagerService. Raises FailedPrecondition when no server runs."""
    from flyte_unified.net.grpc import channel
    from flyte_unified.operations.admission import headers
    from flyte_unified.operations.messages import ManagerServiceStub

    loaded = options.load(args)
    key = _key(loaded)
    async with channel(args.endpoint or _local(loaded)) as opened:
        yield ManagerServiceStub(opened, timeout=_SECONDS, metadata=headers(key) if key is not None else None)


def _local(loaded: Settings) -> str:
    port = server_port(loaded.data.dir)
    if port is None:
        raise FailedPrecondition(
            f"no server runs on {loaded.data.dir}; start one: flyte-unified start "
            "(or name another with --data-dir or --endpoint)"
        )
    return loaded.local_url(port)


def _key(loaded: Settings) -> bytes | None:
    """The server's, as far as this user can read it."""
    from flyte_unified.storage.signing import load_key, read_key

    if loaded.server.key:
        return read_key(loaded.server.key)
    file = loaded.data.dir / "key"
    return load_key(file) if file.is_file() else None
