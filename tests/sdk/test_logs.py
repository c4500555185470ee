"""Logs and events through a server as it is run: by attempt, of what waits, runs and has ended, and of any size."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import psutil
from flyteidl2.common import identifier_pb2
from flyteidl2.dataproxy import dataproxy_service_pb2
from flyteidl2.logs.dataplane import payload_pb2
from flyteidl2.workflow import run_service_pb2

from flyte_unified.core.phases import Phase
from tests.sdk.durability.stand import Server, identifier, standing

LINE = 8000
LINES = 130
BLOCKS = 1024
"""Together a gigabyte."""
BOUND = 64 << 20
"""Bytes that a server may grow by while it sends a log of any size."""


async def lines(server: Server, run: str, attempt: int = 0) -> AsyncIterator[list[payload_pb2.LogLine]]:
    """Batches of the root's log, as they come."""
    key = identifier_pb2.ActionIdentifier(run=identifier(run), name="a0")
    message = dataproxy_service_pb2.TailLogsRequest(action_id=key, attempt=attempt)
    answer = dataproxy_service_pb2.TailLogsResponse
    async for reply in server.stream("dataproxy.DataProxyService", "TailLogs", message, answer):
        yield [line for logs in reply.logs for line in logs.lines]


async def events(server: Server, run: str, attempt: int) -> list[str]:
    """The reasons of what happened to the root's attempt, when it is over."""
    key = identifier_pb2.ActionIdentifier(run=identifier(run), name="a0")
    message = run_service_pb2.WatchClusterEventsRequest(id=key, attempt=attempt)
    answer = run_service_pb2.WatchClusterEventsResponse
    updates = server.stream("workflow.RunService", "WatchClusterEvents", message, answer)
    return [event.reason for update in [update async for update in updates] for event in update.cluster_events]


async def test_waiting_running_and_ended(tmp_path: Path) -> None:
    """Who reads an attempt that waits for its turn hears it to its end, and why it ended; the next has a log of its own."""
    async with standing(tmp_path, EXECUTION_SLOTS="1") as (server, gate):
        before = await server.run(gate, "fan", 0)
        ahead = await gate.comes("fan")
        run = await server.run(gate, "stubborn", 7)
        reading = asyncio.create_task(server.log(run, "a0"), name="reader")
        watching = asyncio.create_task(events(server, run, attempt=1), name="watcher")
        ahead.go()
        assert await server.phase(before) is Phase.SUCCEEDED
        first = await gate.comes("stubborn")
        await first.say("once")
        os.kill(first.pid, signal.SIGKILL)
        second = await gate.comes("stubborn", attempt=2)
        told = await reading
        assert await watching == ["Started", "Killed"]
        assert "once\n" in told
        assert told[-1] == (
            "the task's process was ended by signal SIGKILL, which often means that the machine ran out of memory\n"
        )
        assert await server.log(run, "a0", attempt=1) == told
        reading = asyncio.create_task(server.log(run, "a0", attempt=2), name="reader")
        await second.say("again")
        second.go()
        assert await server.phase(run) is Phase.SUCCEEDED
        told = await reading
        assert ("again\n" in told, "once\n" in told) == (True, False)
        assert await server.log(run, "a0", attempt=2) == told
        assert await events(server, run, attempt=2) == ["Started", "Completed"]
        assert {line[-1] for line in told} == {"\n"}


async def test_a_log_of_a_gigabyte(tmp_path: Path) -> None:
    """Every line comes, and the server keeps little of it, also while its reader takes its time."""
    async with standing(tmp_path) as (server, gate):
        run = await server.run(gate, "one", 1)
        assert await server.phase(run) is Phase.SUCCEEDED
        (log,) = [path for path in (server.data / "logs").rglob("*") if path.is_file()]
        began = log.stat().st_size
        block = (b"%016d o " % 1_700_000_000_000_000 + b"x" * LINE + b"\n") * LINES
        with log.open("ab") as file:
            for _ in range(BLOCKS):
                file.write(block)
        assert server.process is not None
        process = psutil.Process(server.process.pid)
        before, most, told = process.memory_info().rss, 0, 0
        async with aclosing(lines(server, run)) as batches:  # type: ignore[type-var]
            async for batch in batches:
                if not told:
                    await still(process)
                told += sum(len(line.message) == LINE + 1 for line in batch)
                most = max(most, process.memory_info().rss)
        assert began < LINE
        assert told == LINES * BLOCKS
        assert most - before < BOUND, f"{(most - before) >> 20} MiB"


async def still(process: psutil.Process) -> None:
    """Returns when the server has nothing more to do, which nothing but its own time tells."""
    spent = -1.0
    while (now := process.cpu_times().user) != spent:
        spent = now
        await asyncio.sleep(0.3)
