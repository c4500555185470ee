"""What an app is where Knative is installed: what it is asked for, what its word means, and a life with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from flyteidl2.app import app_definition_pb2 as idl
from yarl import URL

from flyte_unified.apps.cluster.knative import address, manifest, status
from flyte_unified.apps.cluster.launcher import ClusterApps
from flyte_unified.apps.cluster.manifests import manifests, name_of
from flyte_unified.apps.model import App, AppKey, Phase, Substate
from flyte_unified.core.errors import InvalidArgument, Unavailable
from flyte_unified.core.sites import Site
from flyte_unified.kube.client import Kube
from flyte_unified.kube.informer import Informer
from flyte_unified.kube.kinds import KNATIVE_SERVICES, SERVICES, Object
from flyte_unified.plugins.pods.config import PodConfig
from flyte_unified.testing.fake_kube import FakeKube
from tests.contract.kube.objects import definition
from tests.edge.service import serving
from tests.unit.apps.test_cluster_launcher import KEY, NAME, SPACE, Stage
from tests.unit.apps.test_cluster_manifests import CONTAINER, SURROUNDINGS, app_of
from tests.unit.apps.test_cluster_status import UNSCHEDULED, gone, pod, waiting

WEB = {**CONTAINER, "ports": [{"containerPort": 9000}]}
SCALING = "autoscaling.knative.dev/"
ACTIVE, FAILED = Phase.DEPLOYMENT_STATUS_ACTIVE, Phase.DEPLOYMENT_STATUS_FAILED
DEPLOYING, PENDING = Phase.DEPLOYMENT_STATUS_DEPLOYING, Phase.DEPLOYMENT_STATUS_PENDING
INSIDE = "http://web.shop.svc.cluster.local"


def made(app: App, **config: Any) -> Object:
    return manifest(app, namespace="shop", idle=300.0, surroundings=SURROUNDINGS, config=PodConfig(**config))


def template(**spec: Any) -> Object:
    return dict(made(app_of(container=CONTAINER, **spec))["spec"]["template"])


def test_the_object() -> None:
    """The pod of a Deployment, without what Knative says itself: when it listens, its PORT, and when it is started again."""
    app = app_of(container={**CONTAINER, "resources": {"limits": [{"name": "GPU", "value": "1"}]}})
    service = made(app, grace=7)
    pods = service["spec"]["template"]
    (main,) = pods["spec"]["containers"]
    deployment, _ = manifests(
        app, namespace="shop", replicas=1, asleep=False, surroundings=SURROUNDINGS, config=PodConfig(grace=7)
    )
    theirs = deployment["spec"]["template"]
    (other,) = theirs["spec"]["containers"]
    assert (service["apiVersion"], service["kind"]) == ("serving.knative.dev/v1", "Service")
    within = {"networking.knative.dev/visibility": "cluster-local"}
    assert service["metadata"].pop("labels") == {**deployment["metadata"].pop("labels"), **within}
    assert service["metadata"] == {**deployment["metadata"], "name": name_of(app.key)}
    assert pods["metadata"]["labels"] == theirs["metadata"]["labels"]
    assert pods["metadata"]["annotations"].items() >= theirs["metadata"]["annotations"].items()
    assert pods["metadata"]["annotations"]["serving.knative.dev/progress-deadline"] == "300s"
    assert main["ports"] == [{"containerPort": 9000, "name": "h2c"}]
    assert theirs["spec"].keys() - pods["spec"].keys() == {"restartPolicy", "terminationGracePeriodSeconds"}
    assert other.keys() - main.keys() == {"readinessProbe", "lifecycle"}
    assert {one["name"] for one in other["env"]} - {one["name"] for one in main["env"]} == {"PORT"}
    assert main["resources"] == other["resources"]
    assert main["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_what_is_the_users_own() -> None:
    """Its probe stays. A port of another name than Knative's two has none, and is the only one."""
    probe = {"httpGet": {"path": "/ready"}}
    ports = [{"containerPort": 9000, "name": "web"}, {"containerPort": 9001}]
    app = app_of(pod={"podSpec": {"containers": [{"name": "app", "image": "i", "ports": ports, "readinessProbe": probe}]}})
    (main,) = made(app)["spec"]["template"]["spec"]["containers"]
    assert (main["ports"], main["readinessProbe"]) == ([{"containerPort": 9000}], probe)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, {"min-scale": "0", "max-scale": "1", "scale-to-zero-pod-retention-period": "300s"}),
        ({"replicas": {"min": 2, "max": 1}, "scaledownPeriod": "0.5s"}, {"min-scale": "2", "max-scale": "2", "window": "6s"}),
        ({"scaledownPeriod": "90000s"}, {"min-scale": "0", "max-scale": "1", "window": "3600s"}),
        (
            {"replicas": {"max": 5}, "scaledownPeriod": "60s", "scalingMetric": {"concurrency": {"targetValue": 10}}},
            {"min-scale": "0", "max-scale": "5", "window": "60s", "metric": "concurrency", "target": "10"},
        ),
        (
            {"scaledownPeriod": "60s", "scalingMetric": {"requestRate": {"targetValue": 7}}},
            {"min-scale": "0", "max-scale": "1", "window": "60s", "metric": "rps", "target": "7"},
        ),
    ],
)
def test_scaling(asked: dict[str, Any], said: dict[str, str]) -> None:
    """Between the least and the most, by what the app says, within Knative's bounds."""
    notes = template(autoscaling=asked)["metadata"]["annotations"]
    assert {name.removeprefix(SCALING): value for name, value in notes.items() if name.startswith(SCALING)} == said


@pytest.mark.parametrize(("asked", "said"), [("0.2s", 1), ("90s", 90), ("90000s", 3600)])
def test_the_time_of_a_request(asked: str, said: int) -> None:
    """In whole seconds, an hour at most; Knative's own where the app says nothing."""
    assert template(timeouts={"requestTimeout": asked})["spec"]["timeoutSeconds"] == said
    assert "timeoutSeconds" not in template()["spec"]


def test_what_is_no_quantity() -> None:
    """It is refused in words that name it."""
    with pytest.raises(InvalidArgument, match=r"resources.limits.cpu"):
        made(app_of(container={**CONTAINER, "resources": {"limits": [{"name": "CPU", "value": "much"}]}}))


@pytest.mark.parametrize("junk", [{"readinessProbe": "often"}, {"env": [{}]}, {"ports": [{"containerPort": "many"}]}])
async def test_what_is_no_pod(junk: dict[str, Any], tmp_path: Path) -> None:
    """Whatever a user wrote there, it is the app's failure and not the server's, and no other app waits for it."""
    other = AppKey("p", "d", "other")
    async with FakeKube.running() as cluster:
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}})
        kubeconfig = cluster.kubeconfig(tmp_path / "kubeconfig")
        async with Stage(cluster, kubeconfig).open() as stage, played(stage, kubeconfig, 1):
            stage.put(app_of(KEY, pod={"podSpec": {"containers": [{"name": "app", "image": "i", **junk}]}}))
            stage.put(app_of(other, container=WEB))
            async with stage.server(leads=True):
                await stage.until(lambda: stage.rows[KEY].phase == FAILED and stage.rows[other].phase == ACTIVE)
            (told,) = (one for one in stage.told if one.phase == FAILED)
            assert "it holds what no pod may" in told.message


def service(ready: str = "", message: str = "", *, seen: int = 1, **told: Any) -> Object:
    conditions = [{"type": "RoutesReady", "status": "True"}]
    conditions += [{"type": "Ready", "status": ready, "message": message}] if ready else []
    return {"metadata": {"generation": 1}, "status": {"observedGeneration": seen, "conditions": conditions, **told}}


@pytest.mark.parametrize(
    ("service", "pods", "phase", "substate", "words"),
    [
        (None, [], DEPLOYING, Substate.INITIALIZING, ""),
        (service(), [], DEPLOYING, Substate.INITIALIZING, ""),
        (service("Unknown"), [pod()], DEPLOYING, Substate.INITIALIZING, ""),
        (service("Unknown"), [pod(scheduled=UNSCHEDULED)], PENDING, 0, "0/3 nodes"),
        (service("Unknown"), [pod(waiting("ImagePullBackOff", "no tag"))], FAILED, Substate.IMAGE_PULL_ERROR, "no tag"),
        (service("True", seen=0), [pod(ready=True)], DEPLOYING, Substate.INITIALIZING, ""),
        (service("True"), [pod(ready=True)], ACTIVE, Substate.RUNNING, ""),
        (service("True"), [pod()], ACTIVE, Substate.SCALING_FROM_ZERO, ""),
        (service("True"), [gone(pod(ready=True))], ACTIVE, Substate.SCALED_TO_ZERO, ""),
        (service("False", "no such image"), [], FAILED, 0, "no such image"),
    ],
)
def test_status(service: Object | None, pods: list[Object], phase: int, substate: int, words: str) -> None:
    """Ready is Knative's word on the present generation; why it takes so long, the pods say sooner."""
    told = status(app_of(container=CONTAINER), service, pods)
    assert told is not None
    assert (told.phase, told.substate) == (phase, substate)
    assert words in told.message
    assert bool(told.message) == bool(words)
    assert told.replicas == (1 if substate == Substate.RUNNING else 0)


def test_why_it_is_not_ready() -> None:
    """The revision's trouble is told, and not that the route has none to lead to, which comes later in its place."""
    found = service("False", 'Configuration "web" does not have any ready Revision.')
    failed = {"type": "ConfigurationsReady", "status": "False", "message": 'Revision "web-1" failed with message: no such tag.'}
    found["status"]["conditions"].insert(0, failed)
    told = status(app_of(container=CONTAINER), found, [])
    assert told is not None and told.message == failed["message"]


def test_stopped_is_gone() -> None:
    """With its pods: before that there is nothing to be said."""
    app = stopped(app_of(container=CONTAINER))
    assert status(app, service("True"), []) is None
    assert status(app, None, [pod()]) is None
    told = status(app, None, [])
    assert told is not None and told.phase == Phase.DEPLOYMENT_STATUS_STOPPED


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ({}, None),
        ({"address": {"url": INSIDE}}, None),
        ({"latestReadyRevisionName": "web-1"}, None),
        ({"address": {"url": INSIDE}, "latestReadyRevisionName": "web-1"}, URL(INSIDE)),
    ],
)
def test_address(told: dict[str, Any], found: URL | None) -> None:
    """It may be asked when a revision of it was ready once."""
    assert address(service("Unknown", **told)) == found


def stopped(app: App) -> App:
    spec = idl.Spec()
    spec.CopyFrom(app.spec)
    spec.desired_state = idl.Spec.DESIRED_STATE_STOPPED
    return replace(app, spec=spec)


class Knative:
    """Plays it: each of its Services is ready as soon as it is seen, has a Service of its name, and is asked at ``port``."""

    def __init__(self, cluster: FakeKube, port: int) -> None:
        self._cluster = cluster
        self._url = f"http://127.0.0.1:{port}"

    def heard(self, change: str, obj: Object) -> None:
        metadata = obj["metadata"]
        if change == "DELETED" or obj.get("status", {}).get("observedGeneration") == metadata["generation"]:
            return
        owner = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "name": metadata["name"], "uid": metadata["uid"]}
        copied = {name: metadata[name] for name in ("name", "namespace", "labels", "annotations")}
        self._cluster.apply(
            {
                "apiVersion": SERVICES.api_version,
                "kind": SERVICES.kind,
                "metadata": {**copied, "ownerReferences": [{**owner, "controller": True}]},
                "spec": {"type": "ExternalName", "externalName": "ingress"},
            }
        )
        told = {
            "observedGeneration": metadata["generation"],
            "conditions": [{"type": "Ready", "status": "True"}],
            "address": {"url": self._url},
            "latestReadyRevisionName": f"{metadata['name']}-{metadata['generation']}",
        }
        now = self._cluster.get(
            KNATIVE_SERVICES.plural, metadata["name"], namespace=metadata["namespace"], group=KNATIVE_SERVICES.group
        )
        self._cluster.apply({**now, "status": told}, subresource="status")


class Sites:
    """One, below ``localhost``."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def at(self, host: str) -> Site | None:
        return self._site if host.startswith("hello.localhost") else None

    def below(self, path: str) -> tuple[Site, str] | None:
        return None


@asynccontextmanager
async def answering() -> AsyncIterator[int]:
    """A program that says as whom it was asked."""

    async def told(request: web.Request) -> web.Response:
        return web.json_response([request.path, request.headers["Host"], request.headers["X-Forwarded-Host"]])

    program = web.Application()
    program.router.add_get("/{path:.*}", told)
    runner = web.AppRunner(program)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def played(stage: Stage, kubeconfig: Path, port: int) -> AsyncIterator[None]:
    """Knative is installed."""
    stage.cluster.apply(definition(KNATIVE_SERVICES))
    knative = Knative(stage.cluster, port)

    def heard(change: str, obj: Object) -> None:
        knative.heard(change, obj)
        stage.news.set()

    kube = Kube(kubeconfig=kubeconfig)
    await kube.start()
    informer = Informer(kube, KNATIVE_SERVICES, on_event=heard)
    await informer.start()
    try:
        yield
    finally:
        await informer.stop()
        await kube.stop()


async def test_a_life(tmp_path: Path) -> None:
    """What was a Deployment becomes Knative's, is asked by Knative's name for it, comes back, is updated, stopped, deleted."""
    async with FakeKube.running() as cluster, answering() as port:
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}})
        kubeconfig = cluster.kubeconfig(tmp_path / "kubeconfig")
        async with Stage(cluster, kubeconfig).open() as stage:
            stage.put(app_of(KEY, container=WEB))
            async with stage.server(leads=True):
                await stage.until(lambda: len(stage.objects()) == 2)
            async with (
                played(stage, kubeconfig, port),
                stage.server(leads=True) as leader,
                stage.server(leads=False) as follower,
            ):
                await live(stage, leader, follower, port)


async def live(stage: Stage, leader: ClusterApps, follower: ClusterApps, port: int) -> None:
    await stage.until(lambda: stage.rows[KEY].substate == Substate.SCALED_TO_ZERO)
    (beside,) = stage.objects()
    assert beside["spec"]["type"] == "ExternalName", "Knative's own, which is left alone"
    async with (
        serving(sites=Sites(follower.site(KEY))) as service,
        aiohttp.ClientSession(headers={"Host": "hello.localhost"}) as client,
        client.get(f"http://127.0.0.1:{service.edge.port}/word") as response,
    ):
        assert await response.json() == ["/word", f"127.0.0.1:{port}", "hello.localhost"]

    before = knatives(stage)[0]["metadata"]["uid"]
    stage.cluster.delete("services", NAME, namespace=SPACE, group=KNATIVE_SERVICES.group)
    await stage.until(lambda: [one["metadata"]["uid"] for one in knatives(stage)] not in ([], [before]))

    other = app_of(KEY, container={**WEB, "image": "shop:2"})
    leader.wanted(stage.put(replace(stage.rows[KEY], spec=other.spec, deployment=other.deployment)))
    await stage.until(lambda: image(stage) == "shop:2")

    leader.wanted(stage.put(stopped(stage.rows[KEY])))
    follower.wanted(stage.rows[KEY])
    await stage.until(lambda: stage.rows[KEY].phase == Phase.DEPLOYMENT_STATUS_STOPPED)
    assert not knatives(stage)
    with pytest.raises(Unavailable, match="is stopped"):
        async with follower.site(KEY).visit():
            pass

    leader.wanted(stage.put(other))
    await stage.until(lambda: knatives(stage))
    del stage.rows[KEY]
    leader.unwanted(KEY)
    await stage.until(lambda: not knatives(stage) and not stage.objects())


async def test_deployments_again(tmp_path: Path) -> None:
    """Where Knative shall not be used any more, its Services make room for ours."""
    async with FakeKube.running() as cluster:
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}})
        kubeconfig = cluster.kubeconfig(tmp_path / "kubeconfig")
        async with Stage(cluster, kubeconfig).open() as stage, played(stage, kubeconfig, 1):
            stage.put(app_of(KEY, container=WEB))
            async with stage.server(leads=True):
                await stage.until(lambda: stage.rows[KEY].substate == Substate.SCALED_TO_ZERO)
            async with stage.server(leads=True, use_knative=False):
                await stage.until(lambda: len(stage.objects()) == 2)
            assert not knatives(stage)
            assert [one["spec"].get("type") for one in stage.cluster.objects("services")] in ([None], ["ClusterIP"])


async def test_no_right_to_it(tmp_path: Path) -> None:
    """A server that may not list Knative's Services, as one with the rights of an older version, makes Deployments."""
    async with FakeKube.running() as cluster:
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}})
        cluster.apply(definition(KNATIVE_SERVICES))
        cluster.faults.fail(403, match=lambda request: request.group == KNATIVE_SERVICES.group)
        async with Stage(cluster, cluster.kubeconfig(tmp_path / "kubeconfig")).open() as stage:
            stage.put(app_of(KEY, container=WEB))
            async with stage.server(leads=True):
                await stage.until(lambda: len(stage.objects()) == 2)
            assert not knatives(stage)


def knatives(stage: Stage) -> list[Object]:
    return stage.cluster.objects(KNATIVE_SERVICES.plural, group=KNATIVE_SERVICES.group)


def image(stage: Stage) -> str:
    return str(next((one["spec"]["template"]["spec"]["containers"][0]["image"] for one in knatives(stage)), ""))
