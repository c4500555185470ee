"""Servers and one cluster: whoever leads makes it as apps are wanted, and everybody relays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from flyte_unified.apps.cluster.launcher import ClusterApps, Rules
from flyte_unified.apps.cluster.manifests import ASLEEP, DEPLOYED, VISITED, deployed, name_of
from flyte_unified.apps.model import App, AppKey, Phase, Substate, Told, observed
from flyte_unified.core.clock import SystemClock
from flyte_unified.core.errors import NotFound, Unavailable
from flyte_unified.kube.client import Kube
from flyte_unified.kube.informer import Informer
from flyte_unified.kube.kinds import DEPLOYMENTS, PODS, SERVICES, Object
from flyte_unified.plugins.pods.config import PodConfig
from flyte_unified.testing.fake_kube import FakeKube
from tests.unit.apps.test_cluster_manifests import CONTAINER, SURROUNDINGS, app_of

KEY = AppKey("p", "d", "hello")
SPACE = "work"
NAME = name_of(KEY)
SECONDS = 10.0


class Stage:
    """A cluster, the table of apps, and servers."""

    def __init__(self, cluster: FakeKube, kubeconfig: Path) -> None:
        self.cluster = cluster
        self.rows: dict[AppKey, App] = {}
        self.told: list[Told] = []
        self._kubeconfig = kubeconfig
        self.news = asyncio.Event()

    async def find(self, key: AppKey) -> App | None:
        return self.rows.get(key)

    async def observe(self, key: AppKey, deployment: str, told: Told) -> None:
        known = self.rows[key]
        after = observed(known, told, now=SystemClock().now())
        if known.deployment == deployment and after is not None:
            self.rows[key] = after
            self.told.append(told)
            self.news.set()

    async def until(self, what: Callable[[], object]) -> None:
        async with asyncio.timeout(SECONDS):
            while True:
                self.news.clear()
                if what():
                    return
                await self.news.wait()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Stage]:
        """Looks on."""
        kube = Kube(kubeconfig=self._kubeconfig)
        await kube.start()
        informers = [
            Informer(kube, kind, on_event=lambda change, obj: self.news.set()) for kind in (DEPLOYMENTS, SERVICES, PODS)
        ]
        for informer in informers:
            await informer.start()
        try:
            yield self
        finally:
            for informer in informers:
                await informer.stop()
            await kube.stop()

    @asynccontextmanager
    async def server(self, *, leads: bool, use_knative: bool = True) -> AsyncIterator[ClusterApps]:
        kube = Kube(kubeconfig=self._kubeconfig)
        apps = ClusterApps(
            kube=kube,
            scope=SPACE,
            namespace=lambda project, domain: SPACE,
            surroundings=SURROUNDINGS,
            find=self.find,
            rules=Rules(idle=600.0, wake=SECONDS, request=1.0),
            clock=SystemClock(),
            use_knative=use_knative,
        )
        await apps.start(list(self.rows.values()), self.observe)
        if leads:
            apps.lead(kube, PodConfig())
        try:
            yield apps
        finally:
            await apps.close()

    def put(self, app: App) -> App:
        self.rows[app.key] = app
        return app

    def objects(self) -> list[Object]:
        """Deployments and Services."""
        return [*self.cluster.objects("deployments", group="apps"), *self.cluster.objects("services")]

    def deployment(self) -> Object | None:
        return next((one for one in self.cluster.objects("deployments", group="apps") if one["metadata"]["name"] == NAME), None)

    def pod(self, name: str, app: App) -> None:
        """One as the cluster's controllers make it."""
        deployment = self.deployment()
        assert deployment is not None
        template = deployment["spec"]["template"]
        assert template["metadata"]["annotations"][DEPLOYED] == deployed(app)
        ready_now = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        made = self.cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {**template["metadata"], "name": name, "namespace": SPACE},
                "spec": template["spec"],
            }
        )
        status = {"phase": "Running", "podIP": f"10.0.0.{name}", "conditions": [ready_now]}
        self.cluster.apply({**made, "status": status}, subresource="status")


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Callable[[Stage], Awaitable[None]]], Awaitable[None]]:
    async def running(test: Callable[[Stage], Awaitable[None]]) -> None:
        async with FakeKube.running() as cluster:
            cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}})
            async with Stage(cluster, cluster.kubeconfig(tmp_path / "kubeconfig")).open() as stage:
                await test(stage)

    return running


Run = Callable[[Callable[[Stage], Awaitable[None]]], Awaitable[None]]


async def test_the_next_leader_goes_on(run: Run) -> None:
    """It writes nothing where all is as it shall be, and removes what was deleted while nobody led."""

    async def test(stage: Stage) -> None:
        app = stage.put(app_of(KEY, container=CONTAINER, autoscaling={"replicas": {"min": 1}}))
        async with stage.server(leads=True):
            await stage.until(lambda: len(stage.objects()) == 2)
            stage.pod("1", app)
            await stage.until(lambda: stage.rows[KEY].substate == Substate.RUNNING)
        before = [obj["metadata"]["resourceVersion"] for obj in stage.objects()]
        async with stage.server(leads=True):
            stage.pod("2", app)
            await stage.until(lambda: stage.rows[KEY].status.current_replicas == 2)
        assert [obj["metadata"]["resourceVersion"] for obj in stage.objects()] == before
        del stage.rows[KEY]
        async with stage.server(leads=True):
            await stage.until(lambda: not stage.objects())

    await run(test)


async def test_any_server_wakes(run: Run) -> None:
    """A visitor of one that doesn't lead leaves the time at the Deployment; the leader scales it up; the pod is asked."""

    async def test(stage: Stage) -> None:
        app = stage.put(app_of(KEY))
        async with stage.server(leads=True), stage.server(leads=False) as follower:
            await stage.until(lambda: stage.deployment() is not None)
            stage.pod("1", app)  # ready since long, and nobody asked: it falls asleep
            await stage.until(lambda: (stage.deployment() or {})["metadata"]["annotations"].get(ASLEEP) == "1")
            stage.cluster.delete("pods", "1", namespace=SPACE)
            await stage.until(lambda: stage.rows[KEY].substate == Substate.SCALED_TO_ZERO)

            async def visit() -> str:
                async with follower.site(KEY).visit() as upstream:
                    return f"{upstream.host}:{upstream.port} {upstream.http2}"

            visitor = asyncio.create_task(visit())
            await stage.until(lambda: stage.rows[KEY].substate == Substate.SCALING_FROM_ZERO)
            deployment = stage.deployment()
            assert deployment is not None
            assert deployment["spec"]["replicas"] == 1
            assert VISITED in deployment["metadata"]["annotations"]
            stage.pod("2", app)
            assert await visitor == "10.0.0.2:9000 True"

    await run(test)


async def test_what_is_no_pod(run: Run) -> None:
    """A field that no pod has is the app's failure, in the API server's words."""

    async def test(stage: Stage) -> None:
        stage.put(app_of(KEY, pod={"podSpec": {"containers": [{"name": "app", "image": "i", "colour": "red"}]}}))
        async with stage.server(leads=True):
            await stage.until(lambda: stage.rows[KEY].phase == Phase.DEPLOYMENT_STATUS_FAILED)
        assert ".containers[0].colour: field not declared in schema" in stage.told[-1].message

    await run(test)


async def test_the_size(run: Run) -> None:
    """Between the least and the most it is as somebody scaled it; what else is changed of a Deployment is mended."""

    async def test(stage: Stage) -> None:
        scaling = {"replicas": {"min": 2, "max": 4}}
        app = stage.put(app_of(KEY, container=CONTAINER, autoscaling=scaling))
        async with stage.server(leads=True):
            await stage.until(lambda: stage.deployment() is not None)
            for wanted, kept in ((3, 3), (9, 4), (1, 2)):
                deployment = stage.deployment()
                assert deployment is not None
                image = deployment["spec"]["template"]["spec"]["containers"][0]
                image["image"] = "foreign"
                stage.cluster.apply({**deployment, "spec": {**deployment["spec"], "replicas": wanted}})

                def mended(kept: int = kept) -> bool:
                    spec = (stage.deployment() or {})["spec"]
                    return bool(spec["replicas"] == kept and spec["template"]["spec"]["containers"][0]["image"] == "shop:1")

                await stage.until(mended)
        assert app.wanted

    await run(test)


async def test_why_there_is_nobody(run: Run) -> None:
    """Visitors of an app that fails, is stopped or is none are told so at once."""

    async def test(stage: Stage) -> None:
        broken = stage.put(app_of(KEY, pod={"podSpec": {"containers": [{"name": "app"}]}}))
        async with stage.server(leads=True) as apps:
            await stage.until(lambda: stage.rows[KEY].phase == Phase.DEPLOYMENT_STATUS_FAILED)
            assert "has no image" in stage.told[-1].message
            stopped = type(broken.spec).FromString(broken.spec.SerializeToString())
            stopped.desired_state = stopped.DESIRED_STATE_STOPPED
            apps.wanted(App(**{name: getattr(broken, name) for name in App.__slots__} | {"spec": stopped}))
            with pytest.raises(Unavailable, match="is stopped"):
                async with apps.site(KEY).visit():
                    pass
            apps.unwanted(KEY)
            with pytest.raises(NotFound):
                apps.site(KEY)

    await run(test)
