"""Apps as Deployments of a cluster, or as Services of Knative's where that is installed.

Every server sees what there is of them, relays requests to their pods and reads their logs. The one that leads makes the
cluster as they are wanted (``term``). Who asks for an app leaves the time at its Deployment, where the leader finds it: so one
that sleeps is woken by any server, and is not put to sleep while another one's visitors are there. Knative does so itself.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import structlog

from flyte_unified.apps.api import Observe, Output
from flyte_unified.apps.cluster import knative, logs
from flyte_unified.apps.cluster.manifests import TOUCHES, VISITED, Surroundings, is_ready, name_of
from flyte_unified.apps.cluster.status import status
from flyte_unified.apps.cluster.term import Term
from flyte_unified.apps.cluster.view import View
from flyte_unified.apps.model import App, AppKey, Phase, Substate, Told
from flyte_unified.core.clock import Clock, seconds
from flyte_unified.core.errors import NotFound, Unavailable
from flyte_unified.core.sites import Site, Upstream
from flyte_unified.kube.client import Kube
from flyte_unified.kube.errors import KubeError, Missing
from flyte_unified.kube.informer import pause
from flyte_unified.kube.kinds import DEPLOYMENTS, KNATIVE_SERVICES, Object
from flyte_unified.plugins.pods.config import PodConfig
from flyte_unified.plugins.pods.serving import asked_at

_log = structlog.get_logger(__name__)
_HTTP2 = "h2c"
"""The name of a port that says so (as Knative has it)."""
_CROWD = 1000
"""Requests to one app that may be under way, or wait, at one time, at one server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Seconds, for apps that say nothing else."""

    idle: float
    wake: float
    request: float


class ClusterApps:
    """An ``AppLauncher``. ``kube`` is its own, ``find`` reads an app as it is now; ``use_knative``: where it is installed."""

    cluster = "kubernetes"

    def __init__(
        self,
        *,
        kube: Kube,
        scope: str,
        namespace: Callable[[str, str], str],
        surroundings: Surroundings,
        find: Callable[[AppKey], Awaitable[App | None]],
        rules: Rules,
        clock: Clock,
        use_knative: bool = True,
    ) -> None:
        self._kube = kube
        self._surroundings = surroundings
        self._find = find
        self._rules = rules
        self._clock = clock
        self._view = View(kube, scope=scope, namespace=namespace, changed=self._look, use_knative=use_knative)
        self._apps: dict[AppKey, App] = {}
        self._places: dict[AppKey, _Place] = {}
        self._observe: Observe
        self._seen = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self._term: Term | None = None
        self._running: asyncio.Task[None] | None = None

    # The port

    async def start(self, apps: Sequence[App], observe: Observe) -> None:
        """A cluster that is away is waited for, but not here."""
        self._observe = observe
        self._apps = {app.key: app for app in apps}
        await self._kube.start()
        self._watching = asyncio.create_task(self._watch(), name="apps in the cluster")

    def wanted(self, app: App) -> None:
        self._apps[app.key] = app
        self._view.wake()
        self._look(app.key)

    def unwanted(self, key: AppKey) -> None:
        self._apps.pop(key, None)
        self._places.pop(key, None)
        self._view.wake()
        self._look(key)

    def site(self, key: AppKey) -> Site:
        if key not in self._apps:
            raise NotFound(f"there is no app {key}")
        if key not in self._places:
            self._places[key] = _Place(key, self)
        return self._places[key]

    async def follow(self, key: AppKey, replica: str) -> AsyncGenerator[Output]:
        if key not in self._apps:
            raise NotFound(f"there is no app {key}")
        await self._seen.wait()

        def active() -> bool:
            app = self._apps.get(key)
            return bool(self._view.pods(key)) or (app is not None and app.wanted and not self._asleep(app))

        async for output in logs.follow(self._kube, self._view, key, replica, active=active):
            yield output

    async def stop(self, *, grace: float) -> None:
        """Whatever runs in the cluster goes on."""
        await self.close()

    async def close(self) -> None:
        await self.depose()
        await asyncio.gather(*(place.close() for place in self._places.values()))
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait((self._watching,))
            self._watching = None
            await self._view.stop()
            await self._kube.stop()

    # The lead

    def lead(self, kube: Kube, config: PodConfig) -> None:
        """``kube`` is for the term's writes."""
        self._running = asyncio.create_task(self._lead(kube, config), name="apps as they are wanted")

    async def depose(self) -> None:
        """Nothing is written any more when it returns."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait((self._running,))
            self._running = None

    async def _lead(self, kube: Kube, config: PodConfig) -> None:
        await self._seen.wait()
        term = Term(
            kube=kube,
            config=config,
            view=self._view,
            surroundings=self._surroundings,
            find=self._find,
            observe=self._observe,
            idle=self._rules.idle,
            clock=self._clock,
        )
        self._term = term
        try:
            for key in {*self._apps, *self._view.apps()}:
                term.look(key)
            await term.run()
        finally:
            self._term = None

    def _look(self, key: AppKey | None) -> None:
        if self._term is not None:
            for changed in (key,) if key is not None else tuple(self._apps):
                self._term.look(changed)

    async def _watch(self) -> None:
        failures = 0
        while not self._seen.is_set():
            try:
                await self._view.start()
                self._seen.set()
            except KubeError as error:
                failures += 1
                _log.error("apps in the cluster can't be seen", error=error.message)
                await asyncio.sleep(pause(failures))

    # What visitors need

    async def ready(self, key: AppKey) -> tuple[str, Upstream]:
        """Who is to be asked, and its name: a pod, or Knative. Raises NotFound and Unavailable, in words for the visitor."""
        try:
            async with asyncio.timeout(self._rules.wake):
                await self._seen.wait()
                while True:
                    turn = self._view.turn
                    if (found := self._find_upstream(key)) is not None:
                        return found
                    self._refuse(key)
                    await turn.wait()
        except TimeoutError:
            raise Unavailable(f"app {key} is not ready after {self._rules.wake:g} s; ask again") from None

    def _refuse(self, key: AppKey) -> None:
        app = self._apps.get(key)
        if app is None:
            raise NotFound(f"there is no app {key}")
        if not app.wanted:
            raise Unavailable(f"app {key} is stopped; `flyte update app {key.name} --activate` starts it")
        told = self._status(app)
        if told is not None and told.phase == Phase.DEPLOYMENT_STATUS_FAILED:
            raise Unavailable(f"app {key} fails: {told.message}")

    def _status(self, app: App) -> Told | None:
        """Of one that is awake."""
        pods = self._view.pods(app.key)
        if self._view.knative:
            return knative.status(app, self._view.get(KNATIVE_SERVICES, app.key), pods)
        return status(app, self._view.get(DEPLOYMENTS, app.key), pods, asleep=False)

    def _asleep(self, app: App) -> bool:
        if self._view.knative:
            told = self._status(app)
            return told is not None and told.substate == Substate.SCALED_TO_ZERO
        deployment = self._view.get(DEPLOYMENTS, app.key)
        return deployment is not None and deployment["spec"].get("replicas") == 0

    def _find_upstream(self, key: AppKey) -> tuple[str, Upstream] | None:
        if self._view.knative:
            service = self._view.get(KNATIVE_SERVICES, key)
            if service is None or (url := knative.address(service)) is None:
                return None
            upstream = self._upstream(key, service["spec"]["template"], host=url.host or "", port=url.port or 80)
            return name_of(key), replace(upstream, authority=url.authority)
        if pods := [pod for pod in self._view.pods(key) if is_ready(pod)]:
            inside = self._places[key].inside if key in self._places else Counter[str]()
            pod = min(pods, key=lambda pod: inside[pod["metadata"]["name"]])
            return pod["metadata"]["name"], self._upstream(key, pod, host=pod["status"]["podIP"])
        return None

    def _upstream(self, key: AppKey, pod: Object, *, host: str, port: int = 0) -> Upstream:
        """``pod`` may be a template. Without a ``port`` it is asked at its own."""
        own, protocol = asked_at(pod)
        app = self._apps.get(key)
        patience = seconds(app.spec.timeouts.request_timeout) if app is not None else 0.0
        return Upstream(host=host, port=port or own, http2=protocol == _HTTP2, patience=patience or self._rules.request)

    def patience(self, key: AppKey) -> float | None:
        """After how many seconds without a visitor it may be put to sleep by us; None: never."""
        app = self._apps.get(key)
        if app is None or not app.wanted or self._view.knative:
            return None
        scaling = app.spec.autoscaling
        if scaling.HasField("replicas") and scaling.replicas.min > 0:
            return None
        return seconds(scaling.scaledown_period) if scaling.HasField("scaledown_period") else self._rules.idle

    async def touch(self, key: AppKey) -> None:
        """Has it known that somebody asks."""
        patch = {"metadata": {"annotations": {VISITED: str(self._clock.now())}}}
        try:
            await self._kube.patch(DEPLOYMENTS, name_of(key), patch, namespace=self._view.place(key))
        except Missing:  # it is made in a moment, awake
            return
        except KubeError as error:
            _log.warning("a visit could not be noted", app=str(key), error=error.message)


class _Place:
    """The site of one app."""

    def __init__(self, key: AppKey, apps: ClusterApps) -> None:
        self._key = key
        self._apps = apps
        self._visits = self._visitors = 0
        self._noting: asyncio.Task[None] | None = None
        self.inside: Counter[str] = Counter()
        """Requests under way, by whom they are with."""

    @asynccontextmanager
    async def visit(self) -> AsyncIterator[Upstream]:
        if self._visitors >= _CROWD:
            raise Unavailable(f"app {self._key} has {_CROWD} requests under way")
        self._visits += 1
        self._visitors += 1
        if self._noting is None or self._noting.done():
            self._noting = asyncio.create_task(self._note(), name=f"visitors of app {self._key}")
        try:
            name, upstream = await self._apps.ready(self._key)
            self.inside[name] += 1
            try:
                yield upstream
            finally:
                self.inside[name] -= 1
                self.inside += Counter()  # without those at which nobody is
        finally:
            self._visitors -= 1

    async def _note(self) -> None:
        """For as long as somebody comes, and once more."""
        while (patience := self._apps.patience(self._key)) is not None:
            seen = self._visits
            await self._apps.touch(self._key)
            await asyncio.sleep(patience / TOUCHES)
            if not self._visitors and self._visits == seen:
                return

    async def close(self) -> None:
        if self._noting is not None:
            self._noting.cancel()
            await asyncio.wait((self._noting,))
