"""What there is of apps in the cluster, as every server sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from flyte_unified.apps.cluster.manifests import APP, key_of, name_of
from flyte_unified.apps.model import AppKey
from flyte_unified.kube.client import Kube
from flyte_unified.kube.informer import Informer
from flyte_unified.kube.kinds import DEPLOYMENTS, PODS, SERVICES, Kind, Object


class View:
    """Deployments, Services and pods of apps in ``scope`` (empty: everywhere). ``namespace`` is a domain's, by project and
    domain; ``changed`` is told which app something happened to, None where that can't be known.
    """

    def __init__(
        self, kube: Kube, *, scope: str, namespace: Callable[[str, str], str], changed: Callable[[AppKey | None], None]
    ) -> None:
        self._namespace = namespace
        self._changed = changed
        self._names: dict[str, AppKey] = {}
        self._informers = {
            kind: Informer(kube, kind, namespace=scope, labels=APP, on_event=self._heard)
            for kind in (DEPLOYMENTS, SERVICES, PODS)
        }
        self._pods: dict[tuple[str, str], dict[str, Object]] = {}
        self.turn = asyncio.Event()
        """Is set when the next thing happens."""

    async def start(self) -> None:
        """Returns when all there is was seen. Raises KubeError for what waiting does not mend."""
        try:
            for informer in self._informers.values():
                await informer.start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        await asyncio.gather(*(informer.stop() for informer in self._informers.values()))

    def place(self, key: AppKey) -> str:
        return self._namespace(key.project, key.domain)

    def get(self, kind: Kind, key: AppKey) -> Object | None:
        """The app's object."""
        found = self._informers[kind].get(name_of(key), self.place(key))
        return found if found is not None and key_of(found) == key else None

    def pods(self, key: AppKey) -> list[Object]:
        """The oldest first."""
        found = self._pods.get((self.place(key), name_of(key)), {}).values()
        return sorted(found, key=lambda pod: (pod["metadata"].get("creationTimestamp", ""), pod["metadata"]["name"]))

    def pod(self, key: AppKey, name: str) -> Object | None:
        return self._pods.get((self.place(key), name_of(key)), {}).get(name)

    def apps(self) -> Iterator[AppKey]:
        """Those that have a Deployment or a Service."""
        for kind in (DEPLOYMENTS, SERVICES):
            yield from (key for obj in self._informers[kind] if (key := key_of(obj)) is not None)

    def wake(self) -> None:
        turn, self.turn = self.turn, asyncio.Event()
        turn.set()

    def _heard(self, change: str, obj: Object) -> None:
        metadata = obj["metadata"]
        name = metadata["labels"][APP]
        key = key_of(obj)
        if key is not None:
            self._names[name] = key
        elif obj.get("kind", PODS.kind) == PODS.kind:
            mine = self._pods.setdefault((metadata["namespace"], name), {})
            if change == "DELETED":
                mine.pop(metadata["name"], None)
            else:
                mine[metadata["name"]] = obj
        self.wake()
        self._changed(self._names.get(name))
