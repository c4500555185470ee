"""Makes the cluster as apps are wanted, and tells how they are: while this server leads.

Of each app in turn the row is read, what stands in the cluster is looked at, and what is different is applied: whatever
happened, however often, and whoever led before. Nothing is remembered but what need not be written again.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypedDict

import orjson
import structlog
from flyteidl2.app import app_definition_pb2 as idl

from flyte_unified.apps.api import Observe
from flyte_unified.apps.cluster import knative
from flyte_unified.apps.cluster.manifests import (
    ASLEEP,
    TOUCHES,
    Surroundings,
    annotation,
    is_ready,
    manifests,
    visited,
)
from flyte_unified.apps.cluster.status import status
from flyte_unified.apps.cluster.view import View
from flyte_unified.apps.model import App, AppKey, Phase, Told
from flyte_unified.core.clock import SECOND, Clock, Micros, seconds
from flyte_unified.core.errors import FlyteUnifiedError, InvalidArgument
from flyte_unified.kube.client import APPLY, Kube
from flyte_unified.kube.errors import Away, Conflict, KubeError, Missing, Throttled
from flyte_unified.kube.informer import pause
from flyte_unified.kube.kinds import DEPLOYMENTS, KNATIVE_SERVICES, SERVICES, Kind, Object
from flyte_unified.plugins.pods import reading
from flyte_unified.plugins.pods.config import PodConfig

_log = structlog.get_logger(__name__)
_LATER = (Away, Throttled, Conflict)
"""What says nothing of the app."""


class _Common(TypedDict):
    namespace: str
    surroundings: Surroundings
    config: PodConfig


@dataclass(frozen=True, slots=True)
class Size:
    replicas: int
    asleep: bool = False
    again: float | None = None
    """Seconds until that may be another one, though nothing happens."""


class Term:
    """``find`` reads an app as it is now; ``idle`` is in seconds, for apps that say nothing else."""

    def __init__(
        self,
        *,
        kube: Kube,
        config: PodConfig,
        view: View,
        surroundings: Surroundings,
        find: Callable[[AppKey], Awaitable[App | None]],
        observe: Observe,
        idle: float,
        clock: Clock,
    ) -> None:
        self._kube = kube
        self._config = config
        self._view = view
        self._surroundings = surroundings
        self._find = find
        self._observe = observe
        self._idle = idle
        self._clock = clock
        self._due: dict[AppKey, None] = {}
        self._woken = asyncio.Event()
        self._timers: dict[AppKey, asyncio.TimerHandle] = {}
        self._failures: dict[AppKey, int] = {}
        self._applied: dict[tuple[Kind, AppKey], tuple[str, str]] = {}
        """What was applied, as a digest, and the version that the object had then."""

    def look(self, key: AppKey) -> None:
        """Something may be different."""
        self._due[key] = None
        self._woken.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        try:
            while True:
                await self._woken.wait()
                self._woken.clear()
                while self._due:
                    key = next(iter(self._due))
                    del self._due[key]
                    await self._try(key)
        finally:
            for timer in self._timers.values():
                timer.cancel()

    async def _try(self, key: AppKey) -> None:
        try:
            again = await self._see_to(key)
        except Exception as error:  # without this loop no app would be seen to
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            again = pause(failures)
            foreseen = isinstance(error, FlyteUnifiedError)
            _log.warning("an app could not be seen to", app=str(key), error=str(error), exc_info=not foreseen)
        else:
            self._failures.pop(key, None)
        if (timer := self._timers.pop(key, None)) is not None:
            timer.cancel()
        if again is not None:
            self._timers[key] = asyncio.get_running_loop().call_later(again, self.look, key)

    async def _see_to(self, key: AppKey) -> float | None:
        """After how many seconds to look again."""
        app = await self._find(key)
        if app is None or app.spec.cluster:
            await self._remove(key, self._view.made(key))
            return None
        made, pods = self._view.made(key), self._view.pods(key)
        size = Size(0) if self._view.knative else self._size(app, made.get(DEPLOYMENTS), pods)
        try:
            await self._make(key, self._manifests(app, size), made)
        except InvalidArgument as error:
            await self._say(app, Told(phase=Phase.DEPLOYMENT_STATUS_FAILED, message=error.message))
            return None
        except _LATER:
            raise
        except KubeError as error:
            await self._say(app, Told(phase=Phase.DEPLOYMENT_STATUS_FAILED, message=error.message))
            raise
        if self._view.knative:
            told = knative.status(app, made.get(KNATIVE_SERVICES), pods)
        else:
            told = status(app, made.get(DEPLOYMENTS), pods, asleep=size.asleep)
        if told is not None:
            await self._say(app, told)
        return size.again

    def _manifests(self, app: App, size: Size) -> dict[Kind, Object]:
        """What there shall be of it."""
        common: _Common = {
            "namespace": self._view.place(app.key),
            "surroundings": self._surroundings,
            "config": self._config,
        }
        if self._view.knative:  # one that is scaled to nothing would still be woken by whoever asks it
            return {KNATIVE_SERVICES: knative.manifest(app, idle=self._idle, **common)} if app.wanted else {}
        made = manifests(app, replicas=size.replicas, asleep=size.asleep, **common)
        return dict(zip((DEPLOYMENTS, SERVICES), made, strict=True))

    async def _make(self, key: AppKey, wanted: dict[Kind, Object], made: dict[Kind, Object]) -> None:
        """What is there and not wanted goes first: both kinds of Services need the one name."""
        await self._remove(key, {kind: obj for kind, obj in made.items() if kind not in wanted})
        if made.keys() - wanted.keys() or any(self._view.taken(kind, key) for kind in wanted):
            return  # its end is news
        for kind, manifest in wanted.items():
            await self._apply(kind, key, manifest)

    def _size(self, app: App, deployment: Object | None, pods: list[Object]) -> Size:
        scaling = app.spec.autoscaling
        if not app.wanted:
            return Size(0)
        awake = Size(_between(scaling.replicas, deployment))
        if scaling.replicas.min or deployment is None or app.phase == Phase.DEPLOYMENT_STATUS_PENDING:
            return awake
        idle = seconds(scaling.scaledown_period) if scaling.HasField("scaledown_period") else self._idle
        now, asked = self._clock.now(), visited(deployment)
        if annotation(deployment, ASLEEP) == str(app.revision):
            return awake if asked + idle * SECOND > now else Size(0, asleep=True)
        since = max((at for pod in pods if (at := _ready_since(pod)) is not None), default=None)
        if since is None:
            return awake
        left = max(asked, since) / SECOND + idle * (1 + 1 / TOUCHES) - now / SECOND
        return replace(awake, again=left) if left > 0 else Size(0, asleep=True)

    async def _apply(self, kind: Kind, key: AppKey, manifest: Object) -> None:
        """If it is another one than was applied last, or somebody changed it since."""
        digest = hashlib.sha256(orjson.dumps(manifest, option=orjson.OPT_SORT_KEYS)).hexdigest()
        known = self._view.get(kind, key)
        if known is not None and self._applied.get((kind, key)) == (digest, _version(known)):
            return
        metadata = manifest["metadata"]
        applied = await self._kube.patch(kind, metadata["name"], manifest, namespace=metadata["namespace"], content_type=APPLY)
        self._applied[(kind, key)] = (digest, _version(applied))

    async def _remove(self, key: AppKey, made: dict[Kind, Object]) -> None:
        for kind, known in made.items():
            self._applied.pop((kind, key), None)
            metadata = known["metadata"]
            if "deletionTimestamp" in metadata:
                continue
            try:
                await self._kube.delete(kind, metadata["name"], namespace=metadata["namespace"], uid=metadata["uid"])
            except Missing:
                continue

    async def _say(self, app: App, told: Told) -> None:
        await self._observe(app.key, app.deployment, told)


def _between(replicas: idl.Replicas, deployment: Object | None) -> int:
    """The least, or what somebody scaled it to, up to the most."""
    least = max(1, replicas.min)
    there = reading.whole(deployment["spec"].get("replicas")) if deployment is not None else None
    return int(min(max(least, there or 0), max(least, replicas.max)))


def _version(obj: Object) -> str:
    """What changes when somebody changes what it shall be."""
    metadata = obj["metadata"]
    return f"{metadata.get('uid')} {metadata.get('generation') or metadata.get('resourceVersion')}"


def _ready_since(pod: Object) -> Micros | None:
    return reading.read(pod).conditions["Ready"].at if is_ready(pod) else None
