"""The log of an attempt as a stream: from its first line to its last, waiting for those that are still to come.

The ledger says when an attempt is over, the source of lines says what it wrote; the stream ends when both are done. Why the
attempt ended is told at last, as far as the task did not write it itself: whoever follows a log looks nowhere else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Iterable, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple, Protocol

from flyteidl2.logs.dataplane import payload_pb2

from flyte_unified.core.clock import Micros, micros, timestamp
from flyte_unified.core.errors import NotFound
from flyte_unified.core.ids import ActionKey
from flyte_unified.core.phases import Phase
from flyte_unified.ledger.api import ActionType, Ledger

_TAIL = 64 * 1024
"""Characters at the end of a log in which an attempt may have told itself why it failed."""

_QUIET = 10.0
"""Seconds without a word after which there is an empty one: `flyte run --follow` of the SDK 2.12.1 waits for 30, and fails."""

_ELSEWHERE = "a tracked run: its client carries it out, and has its log\n"


class Line(NamedTuple):
    """One line, with its own end (clients print lines as they come); without one it goes on in the next."""

    at: Micros
    text: str
    system: bool = False
    """Whether it is a notice of ours and not the task's own output."""


class Lines(Protocol):
    """Where the lines of attempts are kept."""

    def follow(self, key: ActionKey, attempt: int, over: asyncio.Event) -> AsyncGenerator[Sequence[Line]]:
        """Batches of bounded size from the first line on, as they are written, be the attempt yet to start.

        Ends when ``over`` is set (nothing more will be written) and everything was yielded.
        """


class LogTail:
    """Streams logs by action and attempt."""

    def __init__(self, *, ledger: Ledger, lines: Lines) -> None:
        self._ledger = ledger
        self._lines = lines

    async def follow(self, key: ActionKey, attempt: int) -> AsyncGenerator[Sequence[Line]]:
        """The lines of an attempt; 0 means the latest. A batch without lines says that there are none yet.

        Raises NotFound for an attempt that has not begun.
        """
        action = await self._ledger.action(key)
        number = attempt or action.attempt
        if number > action.attempt:
            raise NotFound(f"action {key} has no attempt {attempt}; its latest is {action.attempt}")
        if action.tracked:
            yield [Line(action.created_at, _ELSEWHERE, system=True)]
        if action.tracked or action.action_type is not ActionType.TASK:
            return
        over = asyncio.Event()
        said = ""
        watching = asyncio.create_task(self._watch(key, number, over), name=f"log of {key}, attempt {number}")
        try:
            async with aclosing(self._lines.follow(key, number, over)) as lines, aclosing(_never_quiet(lines)) as batches:
                async for batch in batches:
                    said = (said + "".join(line.text for line in batch))[-_TAIL:]
                    yield batch
            if watching.done():
                watching.result()
            if reason := await self._unsaid(key, number, said):
                yield reason
        finally:
            watching.cancel()
            await asyncio.wait((watching,))

    async def _unsaid(self, key: ActionKey, attempt: int, said: str) -> list[Line]:
        """Lines of the reason for which an attempt ended that are not in what it ``said``."""
        details = await self._ledger.details(key)
        record = next((record for record in details.attempts if record.attempt == attempt), None)
        if record is None or not record.HasField("end_time"):
            return []
        reason = record.error_info.message
        if record.phase == Phase.ABORTED:
            reason = f"aborted: {details.action.reason}"
        at = micros(record.end_time)
        return [Line(at, f"{text}\n", system=True) for text in reason.splitlines() if text and text not in said]

    async def _watch(self, key: ActionKey, attempt: int, over: asyncio.Event) -> None:
        """Sets ``over`` when the attempt has ended, or when the server stops telling."""
        try:
            async with aclosing(self._ledger.watch_action(key)) as states:
                async for action in states:
                    if action.terminal or action.attempt > attempt:
                        return
        finally:
            over.set()


async def _never_quiet(batches: AsyncGenerator[Sequence[Line]]) -> AsyncGenerator[Sequence[Line]]:
    """The same, and an empty one whenever there was none for a while."""
    while True:
        step = asyncio.ensure_future(anext(batches, None))
        try:
            while not (await asyncio.wait((step,), timeout=_QUIET))[0]:
                yield ()
        finally:
            step.cancel()
            await asyncio.wait((step,))
        if (batch := step.result()) is None:
            return
        yield batch


def log_lines(batch: Iterable[Line]) -> list[payload_pb2.LogLine]:
    """A batch as both services send it."""
    return [
        payload_pb2.LogLine(
            timestamp=timestamp(line.at),
            message=line.text,
            originator=payload_pb2.SYSTEM if line.system else payload_pb2.USER,
        )
        for line in batch
    ]


async def first(step: Coroutine[Any, Any, None], over: asyncio.Event) -> None:
    """Returns when ``step`` has, or the attempt is over."""
    tasks = asyncio.create_task(step), asyncio.create_task(over.wait())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if not tasks[0].cancelled():
        tasks[0].result()
