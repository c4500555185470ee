"""The launcher port over pods."""

from __future__ import annotations

from collections.abc import Callable

from flyte_unified.core.clock import Clock
from flyte_unified.core.ids import ActionKey
from flyte_unified.kube.client import Kube
from flyte_unified.kube.kinds import PODS, Object
from flyte_unified.launchers.api import Attempt, Event, WorkId
from flyte_unified.launchers.objects.engine import Objects, Owner
from flyte_unified.launchers.objects.events import ClusterEvents
from flyte_unified.launchers.objects.identity import work_of
from flyte_unified.launchers.objects.logs import LogKeeper
from flyte_unified.launchers.pods.reader import PodReader, trim
from flyte_unified.plugins.api import Pod
from flyte_unified.plugins.pods import records
from flyte_unified.plugins.pods.config import Patience
from flyte_unified.plugins.pods.reading import PRIMARY

_NAME_LIMIT = 63


class PodLauncher:
    """``namespace`` is where an action's pod is, ``scope`` the one namespace of all of them, or empty for any.

    Pods outlive this process: ``stop`` ends none of them.
    """

    def __init__(
        self,
        *,
        kube: Kube,
        namespace: Callable[[ActionKey], str],
        scope: str,
        owner: Owner,
        logs: LogKeeper,
        clock: Clock,
        patience: Patience,
        quiet: float = 10.0,
    ) -> None:
        self._namespace = namespace
        self._pods = Objects(
            kube=kube,
            kind=PODS,
            namespace=scope,
            reader=PodReader(patience),
            owner=owner,
            logs=logs,
            clock=clock,
            limit=_NAME_LIMIT,
            quiet=quiet,
            trim=trim,
        )
        self._events = ClusterEvents(kube, kind=PODS.kind, namespace=scope, on_event=self._heard)

    def __len__(self) -> int:
        """How many attempts are followed."""
        return len(self._pods)

    async def start(self, on_event: Callable[[Event], None]) -> list[Event]:
        found = await self._pods.start(on_event)
        self._events.start()
        return found

    async def launch(self, attempt: Attempt) -> None:
        """What keeps a pod from being created is told as an event: another try may bring it about, or none ever."""
        work = attempt.work
        if not isinstance(work, Pod):
            raise TypeError(f"{attempt.id} is no pod")
        manifest = {"apiVersion": "v1", "kind": "Pod", **work.manifest}
        namespace = self._namespace(attempt.id.action)
        self._pods.launch(attempt.id, manifest, namespace=namespace, annotations={PRIMARY: work.primary})

    async def kill(self, work: WorkId, *, grace: float) -> None:
        self._pods.kill(work, grace)

    async def forget(self, work: WorkId) -> None:
        self._pods.forget(work)

    async def clear(self, action: ActionKey, *, attempts: int) -> None:
        """Pods are removed with their TaskAction."""

    async def stop(self, *, grace: float) -> None:
        """Ends nothing."""

    async def close(self) -> None:
        await self._events.close()
        await self._pods.close()

    def _heard(self, event: Object, *, new: bool) -> None:
        about = event.get("involvedObject") or {}
        pod = self._pods.object(about.get("name", ""), about.get("namespace", ""))
        if pod is None or pod["metadata"]["uid"] != about.get("uid"):
            return
        work = work_of(pod, limit=_NAME_LIMIT)
        item = self._pods.item(work) if work is not None else None
        if item is None or (item.started and not new):  # told by whoever led when it started
            return
        if (told := records.cluster_event(event)) is not None:
            self._pods.hear(item, told)
