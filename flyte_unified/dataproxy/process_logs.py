"""Lines of attempts that ran as local processes: what the keeper wrote, read while it is written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from functools import partial

from flyte_unified.core.clock import Micros
from flyte_unified.core.ids import ActionKey
from flyte_unified.dataproxy.logs import Line
from flyte_unified.launchers.api import WorkId
from flyte_unified.launchers.processes import logs
from flyte_unified.launchers.processes.attempts import ProcessAttempts


class ProcessLines:
    """The ``Lines`` of ``attempts``."""

    def __init__(self, attempts: ProcessAttempts) -> None:
        self._attempts = attempts

    async def follow(self, key: ActionKey, attempt: int, over: asyncio.Event) -> AsyncGenerator[Sequence[Line]]:
        work = WorkId(key, attempt)
        path = self._attempts.log_path(work)
        processes = self._attempts.processes
        await self._begun(work, over)
        offset = 0
        running, grown = partial(processes.running, str(work)), partial(processes.grown, str(work))
        async for batch in logs.follow(path, running=running, grown=grown):
            offset = batch.offset
            yield list(_lines(batch.lines))
        # The process may have been out of sight only: a keeper that died was replaced, and the task went on.
        await over.wait()
        async for batch in logs.follow(path, running=lambda: False, grown=grown, offset=offset):
            yield list(_lines(batch.lines))

    async def _begun(self, work: WorkId, over: asyncio.Event) -> None:
        """Returns when the attempt has a process, had one, or will have none."""
        begun = asyncio.create_task(self._attempts.begun(work), name=f"begin of {work}")
        ended = asyncio.create_task(over.wait(), name=f"end of {work}")
        try:
            await asyncio.wait((begun, ended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (begun, ended):
                task.cancel()
            await asyncio.gather(begun, ended, return_exceptions=True)


def _lines(lines: Sequence[logs.LogLine]) -> Iterator[Line]:
    """With the end that the reader took off. A notice without a time of its own has that of its neighbour."""
    at = next((line.at for line in lines if line.at), 0)
    for line in lines:
        at = line.at or at
        yield Line(Micros(at), line.text if line.goes_on else f"{line.text}\n", line.stream == "system")
