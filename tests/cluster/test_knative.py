"""Apps with Knative Serving itself, and rolling updates of Deployments: in a cluster whose pods have addresses of their own.

`make test-knative` starts one, and nobody else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from flyteidl2.app import app_definition_pb2 as idl

from flyte_unified.apps.cluster.knative import manifest
from flyte_unified.apps.model import AppKey
from flyte_unified.core.names import app_name
from flyte_unified.kube.client import APPLY
from flyte_unified.kube.errors import Invalid, Missing
from flyte_unified.kube.kinds import DEPLOYMENTS, KNATIVE_SERVICES, NAMESPACES, PODS, SERVICES, Kind, Object
from flyte_unified.plugins.pods.config import PodConfig
from flyte_unified.testing import Backend
from tests.cluster.local import QUEUE, LocalCluster
from tests.sdk.conftest import SETTINGS
from tests.sdk.test_apps import ACTIVE, DOMAIN, FAILED, PROJECT, SERVER, STOPPED, Stage, app
from tests.unit.apps.test_cluster_manifests import CONTAINER, SURROUNDINGS, app_of

pytestmark = pytest.mark.skipif(not QUEUE, reason="there is no Knative: see `make test-knative`")

REVISIONS = Kind("serving.knative.dev", "v1", "Revision", "revisions")
SCALERS = Kind("autoscaling.internal.knative.dev", "v1alpha1", "PodAutoscaler", "podautoscalers")
INGRESSES = Kind("networking.internal.knative.dev", "v1alpha1", "Ingress", "ingresses")
SPACE = "forms"
PORT = 8080
ECHO = f"""
from aiohttp import web

async def answer(request):
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await socket.send_str(f"{{request.path}} {{message.data}}")
    return socket

program = web.Application()
program.router.add_get("/talk", answer)
web.run_app(program, port={PORT})
"""
CODE = (SERVER % PORT).replace('("127.0.0.1"', '("0.0.0.0"')


@pytest.fixture(scope="module")
def stage(cluster: LocalCluster) -> Iterator[Stage]:
    told = {"apps.start_timeout": 20.0, "pods.image_pull_grace": 1.0}
    with Backend({**SETTINGS, **cluster.settings, **told}) as backend:
        yield Stage(backend.address)


@pytest.fixture(scope="module")
def forms(cluster: LocalCluster) -> Iterator[str]:
    """A namespace whose pods nobody runs."""
    place = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}}
    cluster.do(lambda: cluster.kube.create(NAMESPACES, place))
    yield SPACE
    cluster.do(lambda: cluster.kube.delete(NAMESPACES, SPACE))


def until(what: Any, seconds: float = 60.0) -> Any:
    """What is neither false nor missing."""
    end = time.monotonic() + seconds
    while True:
        try:
            if found := what():
                return found
        except Missing:
            pass
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.3)  # this looks on from outside: nobody tells it


def apply(cluster: LocalCluster, obj: Object) -> Object:
    name, namespace = obj["metadata"]["name"], obj["metadata"]["namespace"]
    return cluster.do(lambda: cluster.kube.patch(KNATIVE_SERVICES, name, obj, namespace=namespace, content_type=APPLY))


def get(cluster: LocalCluster, kind: Kind, name: str, namespace: str = "") -> Object:
    return cluster.do(lambda: cluster.kube.get(kind, name, namespace=namespace or cluster.namespace))


def every(cluster: LocalCluster, kind: Kind) -> list[str]:
    """The names of all of a namespace."""

    async def names() -> list[str]:
        pages = cluster.kube.pages(kind, namespace=cluster.namespace)
        return [one["metadata"]["name"] async for page, _ in pages for one in page]

    return cluster.do(names)


def form(name: str, **spec: Any) -> Object:
    made = app_of(AppKey("p", "d", name), **spec)
    return manifest(made, namespace=SPACE, idle=300.0, surroundings=SURROUNDINGS, config=PodConfig())


WEB = {**CONTAINER, "ports": [{"containerPort": 9000}]}
FORMS: dict[str, dict[str, Any]] = {
    "plain": {"container": WEB},
    "h2c": {"container": CONTAINER},
    "many": {"container": WEB, "autoscaling": {"replicas": {"min": 2, "max": 5}, "scaledownPeriod": "60s"}},
    "crowd": {"container": WEB, "autoscaling": {"replicas": {"max": 5}, "scalingMetric": {"concurrency": {"targetValue": 10}}}},
    "rate": {"container": WEB, "autoscaling": {"replicas": {"max": 5}, "scalingMetric": {"requestRate": {"targetValue": 7}}}},
    "brief": {"container": WEB, "autoscaling": {"scaledownPeriod": "1s"}, "timeouts": {"requestTimeout": "90s"}},
    "lasting": {"container": WEB, "autoscaling": {"scaledownPeriod": "90000s"}},
    "device": {"container": {**WEB, "resources": {"limits": [{"name": "GPU", "value": "1"}]}}},
    "account": {"container": WEB, "securityContext": {"runAs": {"k8sServiceAccount": "flyte-task"}}},
    "secret": {"container": WEB, "securityContext": {"secrets": [{"group": "g", "key": "k", "mountRequirement": "ENV_VAR"}]}},
    "file": {"container": WEB, "securityContext": {"secrets": [{"group": "g", "key": "k", "mountRequirement": "FILE"}]}},
    "memory": {"container": WEB, "extendedResources": {"sharedMemory": {"sizeLimit": "1Gi"}}},
    "probed": {
        "pod": {
            "podSpec": {
                "containers": [
                    {
                        "name": "app",
                        "image": "shop:1",
                        "ports": [{"containerPort": 9000, "name": "web"}, {"containerPort": 9001}],
                        "readinessProbe": {"httpGet": {"path": "/ready", "port": 9000}},
                        "livenessProbe": {"httpGet": {"path": "/alive", "port": 9000}},
                    },
                    {"name": "beside", "image": "shop:1"},
                ]
            }
        }
    },
}


@pytest.mark.parametrize("name", FORMS)
def test_what_is_asked_for(cluster: LocalCluster, forms: str, name: str) -> None:
    """Every form of an app is taken, and comes out as a Deployment of the pods that we meant; to ask again changes nothing."""
    asked = form(name, **FORMS[name])
    made = apply(cluster, asked)
    assert apply(cluster, asked)["metadata"]["generation"] == made["metadata"]["generation"]
    wanted = asked["spec"]["template"]
    called = f"{asked['metadata']['name']}-00001"
    revision = until(lambda: get(cluster, REVISIONS, called, SPACE))
    deployment = until(lambda: get(cluster, DEPLOYMENTS, f"{called}-deployment", SPACE))
    pods = deployment["spec"]["template"]
    assert revision["spec"]["timeoutSeconds"] == wanted["spec"].get("timeoutSeconds", 300)
    assert pods["metadata"]["labels"].items() >= wanted["metadata"]["labels"].items()
    scaler = until(lambda: get(cluster, SCALERS, called, SPACE))
    for name, value in wanted["metadata"]["annotations"].items():
        holder = scaler if name.startswith("autoscaling.knative.dev/") else pods
        assert holder["metadata"]["annotations"][name] == value
    found = {one["name"]: one for one in pods["spec"]["containers"]}
    assert found.keys() == {"queue-proxy", *(one["name"] for one in wanted["spec"]["containers"])}
    for container in wanted["spec"]["containers"]:
        there = found[container["name"]]
        assert {one["name"] for one in there["env"]} >= {one["name"] for one in container.get("env", ())}
        assert there.get("resources", {}) == container.get("resources", {})


REFUSED = {
    "hook": ({"lifecycle": {"preStop": {"exec": {"command": ["a"]}}}}, {}, "lifecycle"),
    "init": ({}, {"initContainers": [{"name": "i", "image": "i"}]}, "initContainers"),
    "junk": ({"livenessProbe": "often"}, {}, "livenessProbe"),
    "named": ({"env": [{"name": "K_SERVICE", "value": "x"}]}, {}, "K_SERVICE"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_knative_refuses(cluster: LocalCluster, forms: str, name: str) -> None:
    """It says what it does not take."""
    main, rest, words = REFUSED[name]
    containers = [{"name": "app", "image": "shop:1", **main}]
    with pytest.raises(Invalid, match=words):
        apply(cluster, form(name, pod={"podSpec": {"containers": containers, **rest}}))


def served(name: str, code: str = CODE, **options: Any) -> idl.App:
    asked = app(name, code, port=PORT, **options)
    asked.spec.container.image = "python"
    return asked


def test_a_life(stage: Stage, cluster: LocalCluster) -> None:
    """It runs, answers, sleeps, wakes, is updated, stopped and started, and leaves nothing."""
    stage.create(served("web", idle=6, WORD="hello"))
    stage.running("web")
    assert stage.ask("web")[1].endswith("hello")
    assert "asked for /" in stage.log("web", "asked for /")
    stage.until("web", ACTIVE, idl.Status.SCALED_TO_ZERO)
    assert stage.ask("web")[1].endswith("hello")
    asked = stage.get("web")
    asked.spec.desired_state = idl.Spec.DESIRED_STATE_STOPPED
    stage.update(asked)
    stage.until("web", STOPPED)
    assert stage.ask("web")[0] == 503
    asked = stage.get("web")
    asked.spec.desired_state = idl.Spec.DESIRED_STATE_ACTIVE
    asked.spec.container.env[0].value = "again"
    stage.update(asked)
    until(lambda: stage.ask("web")[1].endswith("again"))
    stage.delete("web")
    assert stage.ask("web")[0] == 404
    for kind in (KNATIVE_SERVICES, REVISIONS, INGRESSES, DEPLOYMENTS, SERVICES, PODS):
        until(lambda kind=kind: not [one for one in every(cluster, kind) if one.startswith(app_name(PROJECT, DOMAIN, "web"))])


def test_a_rolling_update(stage: Stage) -> None:
    """Requests go on while a new revision takes over: none is lost."""
    rolled(stage)


def rolled(stage: Stage) -> None:
    stage.create(served("rolling", least=1, WORD="1"))
    stage.running("rolling")
    over = threading.Event()
    answers: list[tuple[int, str]] = []

    def ask() -> None:
        while not over.is_set():
            answers.append(stage.ask("rolling"))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for word in ("2", "3"):
            asked = stage.get("rolling")
            asked.spec.container.env[0].value = word
            stage.update(asked)
            until(lambda word=word: answers and answers[-1][1].endswith(f" {word}"), 120)
        seen = len(answers)
        until(lambda: len(answers) > seen + 20)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    lost = [answer for answer in answers if answer[0] != 200]
    assert not lost
    assert [word for word in "123" if any(text.endswith(f" {word}") for _, text in answers)] == ["1", "2", "3"]
    stage.delete("rolling")


async def test_web_sockets(stage: Stage) -> None:
    """They pass, one way and the other."""
    stage.create(served("echo", ECHO, least=1))
    stage.running("echo")
    async with (
        aiohttp.ClientSession(headers={"Host": "echo.localhost"}) as client,
        client.ws_connect(f"{stage.address}/talk") as socket,
    ):
        for word in ("one", "two"):
            await socket.send_str(word)
            assert await socket.receive_str(timeout=60) == f"/talk {word}"
    stage.delete("echo")


def test_an_update_that_fails(stage: Stage) -> None:
    """It is told, and the replicas there were go on."""
    asked = served("twice", least=2, WORD="hello")
    asked.spec.autoscaling.replicas.max = 2
    stage.create(asked)
    until(lambda: stage.get("twice").status.current_replicas == 2)
    asked = stage.get("twice")
    asked.spec.container.command[-1] = "import sys; print('no such luck'); sys.exit(7)"
    stage.update(asked)
    failed = stage.until("twice", FAILED)
    assert "exit code 7: no such luck" in failed.status.conditions[-1].message
    assert stage.ask("twice")[1].endswith("hello")
    stage.delete("twice")


def test_what_crashes(stage: Stage) -> None:
    """It has failed with its exit code and its last words, to who looks and to who asks; an update mends it."""
    stage.create(served("fragile", "import sys; print('no such luck'); sys.exit(7)", least=1))
    failed = stage.until("fragile", FAILED)
    assert "exit code 7: no such luck" in failed.status.conditions[-1].message
    assert stage.ask("fragile")[0] == 503
    asked = stage.get("fragile")
    asked.spec.container.command[-1] = CODE
    stage.update(asked)
    stage.running("fragile")
    stage.delete("fragile")


def test_an_image_that_never_comes(stage: Stage, cluster: LocalCluster) -> None:
    """It is told before Knative's patience is over."""
    cluster.kubelet.images.missing.add("nowhere*")
    asked = served("pictureless", least=1)
    asked.spec.container.image = "nowhere"
    stage.create(asked)
    failed = stage.until("pictureless", FAILED)
    assert "nowhere" in failed.status.conditions[-1].message
    stage.delete("pictureless")


def test_a_tag_that_can_not_be_resolved(stage: Stage) -> None:
    """Knative asks the registry before there is any pod."""
    asked = served("unresolved", least=1)
    asked.spec.container.image = "registry.invalid/shop:1"
    stage.create(asked)
    failed = stage.until("unresolved", FAILED)
    assert "registry.invalid" in failed.status.conditions[-1].message
    stage.delete("unresolved")


def test_a_wrong_port(stage: Stage) -> None:
    """One that listens elsewhere has failed when the time for its start is over."""
    stage.create(served("deaf", SERVER % 9999, least=1))
    failed = stage.until("deaf", FAILED)
    assert "its pod runs, but is not ready at port 8080" in failed.status.conditions[-1].message
    stage.delete("deaf")


def test_what_is_refused_has_failed(stage: Stage) -> None:
    """In Knative's words."""
    asked = served("patient", least=1)
    asked.spec.timeouts.request_timeout.FromSeconds(3600)
    stage.create(asked)
    failed = stage.until("patient", FAILED)
    assert "timeoutSeconds" in failed.status.conditions[-1].message
    stage.delete("patient")


def test_deployments_roll_and_move(tmp_path: Path) -> None:
    """A Deployment whose new pod has the old one's port rolls, too. Servers that use Knative move it there, others back."""
    name = app_name(PROJECT, DOMAIN, "moved")
    with LocalCluster(tmp_path) as cluster:
        for turn, knative in enumerate(("never", "auto", "never")):
            there, gone = (KNATIVE_SERVICES, DEPLOYMENTS) if knative == "auto" else (DEPLOYMENTS, KNATIVE_SERVICES)
            settings = {**SETTINGS, **cluster.settings, "apps.knative": knative}
            with Backend(settings, directory=tmp_path / "server") as backend:
                stage = Stage(backend.address)
                if turn == 0:
                    rolled(stage)
                    stage.create(served("moved", least=1, WORD="hello"))
                until(lambda there=there: get(cluster, there, name))
                until(lambda stage=stage: stage.ask("moved")[1].endswith("hello"))
                assert name not in every(cluster, gone)
