"""``flyte-unified status``: how a running server is."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from flyte_unified.cli import server

if TYPE_CHECKING:
    from flyte_unified.operations.messages import GetStatusResponse

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def add_to(verbs: Any) -> None:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "status",
        help="say how the server is",
        description="Say how the server is. The exit status is 1 when there is none, or when a part of it is not well.",
    )
    parser.add_argument("--json", action="store_true", help="everything that the server says, for programs")
    server.add(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    told = asyncio.run(_ask(args))
    if args.json:
        sys.stdout.write(told.to_json(indent=2, include_default_values=True) + "\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in _lines(told))
    return 0 if all(part.healthy for part in told.components) else 1


async def _ask(args: argparse.Namespace) -> GetStatusResponse:
    async with server.operating(args) as manager:
        return await manager.get_status()


def _lines(told: GetStatusResponse) -> Iterator[str]:
    from flyte_unified.operations.messages import Actions, Database, Storage

    actions, storage = told.actions or Actions(), told.storage or Storage()
    state = (told.state.name or "").lower().replace("_", " ")
    yield f"flyte-unified {told.version} is {state} at {told.address} (pid {told.pid}, up {_time(told.uptime)})"
    slots = f" on {actions.slots:g} slots" if actions.slots else ""
    yield _line("Actions", f"{actions.live} live, {actions.computing} computing{slots}, {actions.waiting} waiting for one")
    yield _line("Tasks", "pods" if told.launcher == "pods" else f"processes of {told.interpreter}")
    yield _line("Data", told.data_dir)
    more = {"database": (told.database or Database()).location}
    if storage.free_bytes is not None:
        more["storage"] = f"{storage.free_bytes / (1 << 30):.1f} GiB free"
    for part in told.components:
        detail = part.detail if part.healthy else f"NOT WELL: {part.detail}"
        yield _line(part.name.capitalize(), ", ".join(filter(None, (detail, more.get(part.name)))))
    for queue in told.queues:
        computing = f", {queue.computing} computing" if queue.computing else ""
        limit = f", at most {queue.limit}" if queue.limit else ""
        yield _line("Queue", f"{queue.name}: {queue.waiting} waiting{computing}{limit}")


def _line(name: str, text: str) -> str:
    return f"  {name:<9} {text}"


def _time(seconds: float) -> str:
    """In the two largest units: ``2 h 3 min``."""
    left, parts = int(seconds), []
    for length, unit in _UNITS:
        count, left = divmod(left, length)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"
