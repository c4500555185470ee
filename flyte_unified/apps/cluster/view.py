"""What there is of apps in the cluster, as every server sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import structlog

from flyte_unified.apps.cluster.manifests import APP, controlled, key_of, name_of
from flyte_unified.apps.model import AppKey
from flyte_unified.kube.client import Kube
from flyte_unified.kube.errors import Forbidden, Missing
from flyte_unified.kube.informer import Informer
from flyte_unified.kube.kinds import DEPLOYMENTS, KNATIVE_SERVICES, PODS, SERVICES, Kind, Object

_log = structlog.get_logger(__name__)
_MADE = (KNATIVE_SERVICES, DEPLOYMENTS, SERVICES)
"""What may be of an app, beside what controllers make of that."""


class View:
    """Knative's Services, Deployments, Services and pods of apps in ``scope`` (empty: everywhere). ``namespace`` is a domain's,
    by project and domain; ``changed`` is told which app something happened to, None where that can't be known.
    """

    def __init__(
        self,
        kube: Kube,
        *,
        scope: str,
        namespace: Callable[[str, str], str],
        changed: Callable[[AppKey | None], None],
        use_knative: bool,
    ) -> None:
        self._namespace = namespace
        self._use_knative = use_knative
        self._changed = changed
        self._names: dict[str, AppKey] = {}
        self._informers = {
            kind: Informer(kube, kind, namespace=scope, labels=APP, on_event=self._heard) for kind in (*_MADE, PODS)
        }
        self.knative = False
        """Whether apps are Knative's: whether that is installed is asked at the start."""
        self._pods: dict[tuple[str, str], dict[str, Object]] = {}
        self.turn = asyncio.Event()
        """Is set when the next thing happens."""

    async def start(self) -> None:
        """Returns when all there is was seen. Raises KubeError for what waiting does not mend."""
        try:
            self.knative = await self._has_knative() and self._use_knative
            for kind, informer in self._informers.items():
                if kind != KNATIVE_SERVICES:
                    await informer.start()
        except BaseException:
            await self.stop()
            raise

    async def _has_knative(self) -> bool:
        try:
            await self._informers[KNATIVE_SERVICES].start()
        except Missing:
            return False
        except Forbidden as error:  # of a cluster that has it, or of any: not every authorizer asks what there is
            _log.info("apps are Deployments: Knative's Services can't be listed", error=error.message)
            return False
        return True

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

    def made(self, key: AppKey) -> dict[Kind, Object]:
        """What there is of an app, but pods."""
        return {kind: found for kind in _MADE if (found := self.get(kind, key)) is not None}

    def taken(self, kind: Kind, key: AppKey) -> bool:
        """Whether a controller has the app's name for an object of its own: Knative's Services have one before them."""
        found = self._informers[kind].get(name_of(key), self.place(key))
        return found is not None and controlled(found)

    def apps(self) -> Iterator[AppKey]:
        """Those of which there is anything but pods."""
        for kind in _MADE:
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
