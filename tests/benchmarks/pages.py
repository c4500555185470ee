"""How long a page of runs takes among a hundred thousand: ``python -m tests.benchmarks.pages``.

Each list that the SDK asks for, from its first page to its last, by the tokens that the answers bring; over the wire.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from statistics import median

from flyteidl2.workflow import run_service_pb2

from tests.benchmarks.filled import filled
from tests.benchmarks.harness import RawClient, Server, server
from tests.benchmarks.lists import LISTS

RUNS = 100_000
_LIST = "/flyteidl2.workflow.RunService/ListRuns"


def history(directory: Path) -> None:
    """Makes the data of a server that has seen a lot."""
    asyncio.run(filled(directory, RUNS))


async def pages(target: Server, name: str) -> list[float]:
    """Seconds of each page of a list."""
    client = RawClient(target.port)
    message = run_service_pb2.ListRunsRequest()
    message.CopyFrom(LISTS[name])
    times = []
    while True:
        began = time.perf_counter()
        page = await client.call(_LIST, message, run_service_pb2.ListRunsResponse)
        times.append(time.perf_counter() - began)
        assert isinstance(page, run_service_pb2.ListRunsResponse)
        message.request.token = page.token
        if not page.token:
            return times


def main() -> None:
    with server(prepare=history) as target:
        for name in LISTS:
            times = sorted(asyncio.run(pages(target, name)))
            told = f"{len(times):5} pages, median {median(times) * 1000:6.1f} ms, slowest {times[-1] * 1000:6.1f} ms"
            sys.stdout.write(f"{name:<30} {told}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
