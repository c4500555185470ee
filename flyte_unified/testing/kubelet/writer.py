"""Keeps the API's idea of a pod's status equal to the node's: the latest one is written, until it is taken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from flyte_unified.kube.client import Kube
from flyte_unified.kube.errors import Forbidden, Invalid, KubeError, Missing
from flyte_unified.kube.kinds import PODS
from flyte_unified.testing.kubelet.environment import Object
from flyte_unified.testing.kubelet.services import Backoff, Pace

_log = structlog.get_logger(__name__)
_GATHER = 0.005
"""Seconds in which changes that come together become one write."""


class StatusWriter:
    """Writes what ``status`` gives for ``pod`` after each ``changed``, until ``gone`` is set: there is no such pod any more.

    A pod of the same name with another uid is a Conflict, as a write that lost is: whoever follows the pods knows which.
    """

    def __init__(self, pod: Object, status: Callable[[], Object], *, kube: Kube, pace: Pace) -> None:
        self.gone = asyncio.Event()
        self._metadata = pod["metadata"]
        self._status = status
        self._kube = kube
        self._backoff = Backoff(pace.write, pace.write_most)
        self._dirty = asyncio.Event()
        self._clean = asyncio.Event()
        self._sent: Object | None = None
        self._version = 0
        self._task = asyncio.create_task(self._run(), name=f"status of {self._metadata['namespace']}/{self._metadata['name']}")

    def changed(self) -> None:
        self._clean.clear()
        self._dirty.set()

    def overwritten(self, pod: Object) -> None:
        """The API has ``pod``: if somebody changed what was written, it is written again."""
        newer = int(pod["metadata"]["resourceVersion"]) > self._version
        if self._sent is not None and newer and _gist(pod.get("status") or {}) != _gist(self._sent):
            self._sent = None
            self.changed()

    async def settled(self) -> None:
        """The API has the present status, or no such pod."""
        while not self.gone.is_set() and not self._clean.is_set():
            waits = [asyncio.create_task(event.wait()) for event in (self.gone, self._clean)]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
                await asyncio.gather(*waits, return_exceptions=True)

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._dirty.wait()
            await asyncio.sleep(_GATHER)
            self._dirty.clear()
            status = self._status()
            if self.gone.is_set():
                return
            if status != self._sent and not await self._write(status):
                continue
            if not self._dirty.is_set():
                self._clean.set()

    async def _write(self, status: Object) -> bool:
        metadata = self._metadata
        patch = {"metadata": {"uid": metadata["uid"]}, "status": status}
        try:
            name, namespace = metadata["name"], metadata["namespace"]
            written = await self._kube.patch(PODS, name, patch, namespace=namespace, subresource="status")
        except Missing:
            self.gone.set()
            return True
        except KubeError as error:
            if isinstance(error, Invalid | Forbidden):
                _log.error("a pod's status is refused", pod=metadata["name"], error=error.message)
            await asyncio.sleep(max(error.retry_after or 0.0, self._backoff.next()))
            self._dirty.set()
            return False
        self._backoff.reset()
        self._sent = status
        self._version = int(written["metadata"]["resourceVersion"])
        return True


def _gist(status: Object) -> list[object]:
    """What shows that somebody else wrote: the phase, and how often each container was started."""
    shown = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    return [status.get("phase"), *sorted((c["name"], c.get("restartCount"), *sorted(c.get("state") or ())) for c in shown)]
