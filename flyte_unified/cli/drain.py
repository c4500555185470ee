"""``flyte-unified drain``: let a running server begin nothing more, before it is stopped or looked after."""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import Any

from flyte_unified.cli import server


def add_to(verbs: Any) -> None:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "drain",
        help="let the server begin no more runs",
        description="Let the server begin no more runs: /readyz says no, new runs are kept, those that have begun go on to "
        "their ends. Lasts until `drain --off` or the next start.",
    )
    parser.add_argument("--wait", action="store_true", help="return when nothing runs on this server any more")
    parser.add_argument("--off", action="store_true", help="begin runs again")
    server.add(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    try:
        asyncio.run(_drain(args))
    except KeyboardInterrupt:
        sys.stdout.write("it stays drained; `flyte-unified drain --off` lets it begin runs again\n")
        raise
    return 0


async def _drain(args: argparse.Namespace) -> None:
    from flyte_unified.operations.messages import DrainRequest

    async with server.operating(args) as manager:
        async for told in manager.drain(DrainRequest(off=args.off, wait=args.wait), timeout=None):
            if args.off:
                sys.stdout.write("runs begin again\n")
            elif told.live:
                sys.stdout.write(f"drained; {told.live} action{'s' * (told.live != 1)} still running\n")
            else:
                sys.stdout.write("drained; nothing runs\n")
            sys.stdout.flush()
