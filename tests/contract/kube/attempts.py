"""Attempts as objects in a cluster: launchers that may be restarted, what they tell, and a kubelet played by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from flyte_unified.core.clock import SystemClock
from flyte_unified.core.ids import ActionKey, RunKey
from flyte_unified.core.names import object_name
from flyte_unified.kube.client import Kube
from flyte_unified.kube.informer import Informer
from flyte_unified.kube.kinds import PODS, Kind, Object
from flyte_unified.launchers.api import Attempt, Event, Launcher, Progress, WorkId
from flyte_unified.launchers.kept_logs import address
from flyte_unified.launchers.objects.logs import LogKeeper
from flyte_unified.launchers.objects.times import rfc3339
from flyte_unified.launchers.pods.launcher import PodLauncher
from flyte_unified.plugins.api import Pod
from flyte_unified.plugins.pods.config import Patience
from flyte_unified.storage.local import LocalStore
from flyte_unified.storage.signing import Signer

E = TypeVar("E", bound=Event)

RUN = RunKey("p", "development", "r1")
WORK = WorkId(RUN.action("a0"), 1)
FINALIZER = "flyte.org/finalizer-k8s"
PATIENCE = 10.0


class Bell:
    """Wakes all who wait."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def notify(self) -> None:
        self._next.set()
        self._next = asyncio.Event()

    async def wait(self) -> None:
        await self._next.wait()


class Stand:
    """One namespace, its launcher of pods, and everything that was told."""

    def __init__(self, kube: Kube, namespace: str, directory: Path, *, limit: int = 1 << 20) -> None:
        self.kube = kube
        self.namespace = namespace
        self.clock = SystemClock()
        self.store = LocalStore({"logs": directory / "logs"}, signer=Signer(b"k" * 32), clock=self.clock)
        self.events: list[Event] = []
        self.limit = limit
        self.owners: dict[ActionKey, Mapping[str, Any]] = {}
        self._news = Bell()
        self._changed = Bell()
        self._informers: dict[Kind, Informer] = {}
        self._launchers: list[Launcher] = []
        self.launcher: Launcher

    def pods(self, *, quiet: float = 0.2, kube: Kube | None = None, patience: float = 0.5, lost: float = 5.0) -> PodLauncher:
        return PodLauncher(
            kube=kube or self.kube,
            namespace=lambda _: self.namespace,
            scope=self.namespace,
            owner=self.owners.get,
            logs=self.keeper(patience),
            clock=self.clock,
            patience=Patience(lost=lost),
            quiet=quiet,
        )

    def keeper(self, patience: float = 0.5) -> LogKeeper:
        base = self.store.base("logs")
        return LogKeeper(kube=self.kube, store=self.store, base=base, limit=self.limit, clock=self.clock, patience=patience)

    async def start(self, launcher: Launcher | None = None) -> list[Event]:
        self.launcher = self.pods() if launcher is None else launcher
        self._launchers.append(self.launcher)
        return await self.launcher.start(self._told)

    async def restart(self, launcher: Launcher | None = None) -> list[Event]:
        """As a new leader: the old one knows nothing any more."""
        await self.launcher.close()
        self.events.clear()
        return await self.start(launcher)

    async def close(self) -> None:
        for part in self._launchers:
            await part.close()
        for informer in self._informers.values():
            await informer.stop()

    async def launch(self, work: WorkId = WORK, **spec: Any) -> str:
        """The name of its pod."""
        await self.launcher.launch(Attempt(id=work, work=Pod(manifest=manifest(**spec), primary="main")))
        return object_name(work.action, work.attempt)

    async def until(self, kind: type[E], work: WorkId = WORK, *, number: int = 1) -> E:
        """The event, when it is told."""
        return (await self._matching(lambda: [e for e in self.events if isinstance(e, kind) and e.id == work], number))[
            number - 1
        ]

    async def told(self, text: str) -> Event:
        """The first event with such a cluster event."""
        return (await self._matching(lambda: [e for e in self.events if text in " ".join(cluster_events(e))]))[0]

    async def _matching(self, find: Callable[[], list[E]], number: int = 1) -> list[E]:
        try:
            async with asyncio.timeout(PATIENCE):
                while len(found := find()) < number:
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"not told; but {self.events}") from None
        return found

    async def seen(self, name: str, holds: Callable[[Object | None], Any] = bool, *, kind: Kind = PODS) -> Object:
        """The object, once ``holds`` of it (None: it is not there)."""
        if kind not in self._informers:
            informer = Informer(self.kube, kind, namespace=self.namespace, on_event=lambda *_: self._changed.notify())
            self._informers[kind] = informer
            await informer.start()
        async with asyncio.timeout(PATIENCE):
            while not holds(obj := self._informers[kind].get(name, self.namespace)):
                await self._changed.wait()
        return obj or {}

    async def seen_any(self, names: Iterable[str]) -> None:
        """Returns when one of the pods is there."""
        waits = [asyncio.create_task(self.seen(name)) for name in names]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    async def status(self, name: str, state: Object | None = None, **more: Any) -> None:
        """What a kubelet writes. ``state`` is the primary container's."""
        status = dict(more)
        if state is not None:
            status["containerStatuses"] = [container_status("main", state)]
        await self.kube.patch(PODS, name, {"status": status}, namespace=self.namespace, subresource="status")

    async def run(self, name: str) -> None:
        await self.status(name, running(), phase="Running")

    async def succeed(self, name: str, code: int = 0) -> None:
        await self.status(name, terminated(code), phase="Failed" if code else "Succeeded")

    async def log(self, work: WorkId = WORK) -> str:
        """As it is kept, without times."""
        content = await self.store.get(address(self.store.base("logs"), work))
        return "\n".join(line.partition(" ")[2] for line in content.decode().splitlines())

    def of(self, kind: type[E], work: WorkId = WORK) -> list[E]:
        return [event for event in self.events if isinstance(event, kind) and event.id == work]

    def _told(self, event: Event) -> None:
        self.events.append(event)
        self._news.notify()


def manifest(**spec: Any) -> Object:
    container = {"name": "main", "image": "registry.invalid/nothing", "command": ["true"]}
    return {
        "metadata": {"labels": {"run": "r1"}, "annotations": {"a": "b"}},
        "spec": {"containers": [container], "nodeName": "by-hand", "restartPolicy": "Never", **spec},
    }


def container_status(name: str, state: Object) -> Object:
    image = "registry.invalid/nothing"
    return {"name": name, "image": image, "imageID": "", "ready": False, "restartCount": 0, "state": state}


def now() -> str:
    return rfc3339(SystemClock().now())[:19] + "Z"


def running() -> Object:
    return {"running": {"startedAt": now()}}


def terminated(code: int = 0, reason: str = "") -> Object:
    reason = reason or ("Error" if code else "Completed")
    return {"terminated": {"exitCode": code, "reason": reason, "startedAt": now(), "finishedAt": now()}}


def waiting(reason: str, message: str = "") -> Object:
    return {"waiting": {"reason": reason, "message": message}}


def cluster_events(event: Event) -> list[str]:
    return [told.message for told in event.details.cluster_events] if event.details is not None else []


def kinds(events: Iterable[Event]) -> list[str]:
    """What was told, in short."""
    return [event.phase.name if isinstance(event, Progress) else type(event).__name__ for event in events]


def event_of(pod: Object, name: str, message: str) -> Object:
    metadata = pod["metadata"]
    about = {"kind": "Pod", "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]}
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": metadata["namespace"]},
        "involvedObject": about,
        "reason": "Because",
        "message": message,
        "type": "Normal",
        "firstTimestamp": now(),
        "lastTimestamp": now(),
        "count": 1,
    }
