"""Several launchers as one: each attempt goes to the one for its kind of work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog

from flyte_unified.core.ids import ActionKey
from flyte_unified.launchers.api import Attempt, Event, Launcher, WorkId
from flyte_unified.plugins.api import Runnable

_log = structlog.get_logger(__name__)


class Launchers:
    """``launchers`` by the type of work. An attempt that none was heard of is asked of all: each ignores others'."""

    def __init__(self, launchers: Mapping[type[Runnable], Launcher]) -> None:
        self._by_type = dict(launchers)
        self._all = list(dict.fromkeys(launchers.values()))
        self._known: dict[WorkId, Launcher] = {}

    async def start(self, on_event: Callable[[Event], None]) -> list[Event]:
        found: list[Event] = []
        for launcher in self._all:
            events = await launcher.start(self._remembering(launcher, on_event))
            self._known.update((event.id, launcher) for event in events)
            found += events
        return found

    async def launch(self, attempt: Attempt) -> None:
        launcher = self._by_type.get(type(attempt.work))
        if launcher is None:
            raise TypeError(f"{attempt.id}: nothing here launches a {type(attempt.work).__name__}")
        self._known[attempt.id] = launcher
        await launcher.launch(attempt)

    async def kill(self, work: WorkId, *, grace: float) -> None:
        for launcher in self._of(work):
            await launcher.kill(work, grace=grace)

    async def forget(self, work: WorkId) -> None:
        for launcher in self._of(work):
            await launcher.forget(work)
        self._known.pop(work, None)

    async def clear(self, action: ActionKey, *, attempts: int) -> None:
        for launcher in self._all:
            await launcher.clear(action, attempts=attempts)

    async def stop(self, *, grace: float) -> None:
        await asyncio.gather(*(launcher.stop(grace=grace) for launcher in self._all))

    async def close(self) -> None:
        """All of them: one that fails to is told in the log, as whoever closes us has more to close."""
        ends = await asyncio.gather(*(launcher.close() for launcher in self._all), return_exceptions=True)
        for launcher, end in zip(self._all, ends, strict=True):
            if end is not None:
                _log.error("a launcher did not close", launcher=type(launcher).__name__, exc_info=end)

    def _of(self, work: WorkId) -> list[Launcher]:
        known = self._known.get(work)
        return self._all if known is None else [known]

    def _remembering(self, launcher: Launcher, on_event: Callable[[Event], None]) -> Callable[[Event], None]:
        def heard(event: Event) -> None:
            self._known.setdefault(event.id, launcher)
            on_event(event)

        return heard
