"""Those whom a quota leaves no room, in line per namespace, so that they don't all ask again for each place that gets free.

One is let try at a time. If it gets in, the next may try at once; if not, it goes to the end of the line (one that fits may
stand behind one that doesn't) and all wait for the quota to change, for one of ours to end, or for a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from flyte_unified.kube.client import Kube
from flyte_unified.kube.errors import KubeError
from flyte_unified.kube.informer import Informer, pause
from flyte_unified.kube.kinds import Kind, Object
from flyte_unified.launchers.api import WorkId

_log = structlog.get_logger(__name__)

QUOTAS = Kind("", "v1", "ResourceQuota", "resourcequotas")


class _Line:
    def __init__(self) -> None:
        self.waiting: dict[WorkId, None] = {}
        self.trying: WorkId | None = None
        self.again = False
        """There was news while one tried."""
        self.failures = 0
        self.timer: asyncio.TimerHandle | None = None


class Room:
    """``let`` is told who may try. Quotas of ``namespace`` (empty: all) are watched from the first refusal on."""

    def __init__(self, kube: Kube, *, namespace: str, let: Callable[[WorkId], None]) -> None:
        self._let = let
        self._lines: dict[str, _Line] = {}
        self._quotas = Informer(kube, QUOTAS, namespace=namespace, on_event=self._changed, trim=_named)
        self._watching: asyncio.Task[None] | None = None

    def join(self, namespace: str, work: WorkId) -> None:
        """``work`` was refused, for the first time or after it was let try."""
        line = self._lines.setdefault(namespace, _Line())
        line.waiting.pop(work, None)
        line.waiting[work] = None
        if line.trying == work:
            line.trying = None
            line.failures += 1
            if line.again:
                self.freed(namespace)
        if line.timer is None:
            line.timer = asyncio.get_running_loop().call_later(pause(line.failures + 3), self._timed, namespace)
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch(), name="quotas")

    def leave(self, namespace: str, work: WorkId) -> None:
        """``work`` waits no longer: it got in, or gave up."""
        line = self._lines.get(namespace)
        if line is None or work not in line.waiting:
            return
        del line.waiting[work]
        if line.trying == work:
            line.trying = None
            line.failures = 0
            self.freed(namespace)
        if not line.waiting:
            self._drop(namespace)

    def freed(self, namespace: str) -> None:
        """There may be room: the first in line may try."""
        line = self._lines.get(namespace)
        if line is None or not line.waiting:
            return
        line.again = line.trying is not None
        if line.again:
            return
        line.trying = next(iter(line.waiting))
        self._let(line.trying)

    async def close(self) -> None:
        for namespace in list(self._lines):
            self._drop(namespace)
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await self._quotas.stop()

    def _timed(self, namespace: str) -> None:
        line = self._lines[namespace]
        line.timer = asyncio.get_running_loop().call_later(pause(line.failures + 3), self._timed, namespace)
        line.trying = None  # whoever it was is away for other reasons
        self.freed(namespace)

    def _changed(self, change: str, quota: Object) -> None:
        self.freed(quota["metadata"]["namespace"])

    async def _watch(self) -> None:
        try:
            await self._quotas.start()
        except KubeError as error:
            _log.warning("quotas can't be watched; attempts that wait for room try from time to time", error=error.message)

    def _drop(self, namespace: str) -> None:
        line = self._lines.pop(namespace)
        if line.timer is not None:
            line.timer.cancel()


def _named(quota: Object) -> Object:
    metadata = quota["metadata"]
    return {"metadata": {name: metadata[name] for name in ("name", "namespace")}}
