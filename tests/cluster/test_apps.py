"""Apps in a cluster: a Deployment and a Service each, reached at the server's port."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest
from flyteidl2.app import app_definition_pb2 as idl
from flyteidl2.app import app_logs_payload_pb2 as logs
from flyteidl2.app.app_logs_service_connect import AppLogsServiceClientSync

from flyte_unified.core.names import app_name
from flyte_unified.kube.errors import Missing
from flyte_unified.kube.kinds import DEPLOYMENTS, SERVICES, Kind, Object
from flyte_unified.testing import Backend
from tests.cluster.local import LocalCluster
from tests.sdk.conftest import Client
from tests.sdk.test_apps import ACTIVE, DOMAIN, FAILED, PROJECT, SERVER, STOPPED, Stage, app, free_port

GREETING = """
import http.server, os
import flyte, flyte.app

env = flyte.app.AppEnvironment(
    name="greeting", image="local", port=%d, requires_auth=False, scaling=flyte.app.Scaling(replicas=(1, 1))
)

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print("asked for", self.path)
        body = f"{self.path} {os.environ['FLYTE_INTERNAL_EXECUTION_PROJECT']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

@env.server
def serve() -> None:
    http.server.ThreadingHTTPServer(("127.0.0.1", env.get_port().port), Answer).serve_forever()
"""
CODE = SERVER % "int(sys.argv[1])"


@pytest.fixture(scope="module")
def stage(flyte_backend: Backend) -> Stage:
    return Stage(flyte_backend.address)


class Place:
    """What stands in the cluster of an app."""

    def __init__(self, cluster: LocalCluster, name: str) -> None:
        self._cluster = cluster
        self._name = app_name(PROJECT, DOMAIN, name)

    def get(self, kind: Kind) -> Object | None:
        async def found() -> Object | None:
            try:
                return await self._cluster.kube.get(kind, self._name, namespace=self._cluster.namespace)
            except Missing:
                return None

        return self._cluster.do(found)

    def uid(self, kind: Kind) -> str:
        found = self.get(kind)
        return str(found["metadata"]["uid"]) if found is not None else ""

    def delete(self, kind: Kind) -> None:
        self._cluster.do(lambda: self._cluster.kube.delete(kind, self._name, namespace=self._cluster.namespace))


def pod_app(name: str, code: str = CODE, **options: object) -> idl.App:
    asked = app(name, code, **options)  # type: ignore[arg-type]  # handed on as it is
    asked.spec.container.image = "python"
    return asked


def test_an_app_serves_and_ends(stage: Stage, cluster: LocalCluster) -> None:
    """It is a Deployment with a Service; requests reach its pod, its log is told, it is stopped, started and deleted."""
    place = Place(cluster, "web")
    stage.create(pod_app("web", least=1, WORD="hello"))
    running = stage.running("web")
    assert running.status.current_replicas == 1
    assert stage.ask("web")[1].endswith("hello")
    assert "asked for /" in stage.log("web", "asked for /")
    assert place.get(DEPLOYMENTS) and place.get(SERVICES)

    stopped = stage.get("web")
    stopped.spec.desired_state = idl.Spec.DESIRED_STATE_STOPPED
    stage.update(stopped)
    stage.until("web", STOPPED)
    assert stage.ask("web")[0] == 503
    deployment = place.get(DEPLOYMENTS)
    assert deployment is not None and deployment["spec"]["replicas"] == 0
    again = stage.get("web")
    again.spec.desired_state = idl.Spec.DESIRED_STATE_ACTIVE
    again.spec.container.env[0].value = "again"
    stage.update(again)
    stage.running("web", 2)
    assert stage.ask("web")[1].endswith("again")
    stage.delete("web")
    assert stage.ask("web")[0] == 404


def test_an_app_sleeps_and_is_woken(stage: Stage, cluster: LocalCluster) -> None:
    """Without a visitor its Deployment has no pod; the next request waits for one."""
    place = Place(cluster, "sleeper")
    stage.create(pod_app("sleeper", idle=0.5))
    stage.until("sleeper", ACTIVE, idl.Status.SCALED_TO_ZERO)
    deployment = place.get(DEPLOYMENTS)
    assert deployment is not None and deployment["spec"]["replicas"] == 0
    assert stage.ask("sleeper")[0] == 200
    stage.delete("sleeper")


def test_one_that_crashes_has_failed(stage: Stage) -> None:
    """With its exit code and what it said last, to whoever looks and to whoever asks; an update mends it."""
    stage.create(pod_app("fragile", "import sys; print('no such luck'); sys.exit(7)", least=1))
    failed = stage.until("fragile", FAILED)
    assert failed.status.conditions[-1].substate == idl.Status.CRASH_LOOP
    assert failed.status.conditions[-1].message == "exit code 7: no such luck"
    assert stage.ask("fragile") == (503, f"app {PROJECT}/{DOMAIN}/fragile fails: exit code 7: no such luck\n")
    failed.spec.container.command[-1] = CODE
    stage.update(failed)
    stage.running("fragile")
    stage.delete("fragile")


def test_what_is_no_pod_has_failed(stage: Stage) -> None:
    """An app that Kubernetes takes no pod of says why."""
    asked = pod_app("wrong", least=1)
    asked.spec.security_context.run_as.k8s_service_account = "No Account"
    stage.create(asked)
    failed = stage.until("wrong", FAILED)
    assert "can't be a ServiceAccount's name" in failed.status.conditions[-1].message
    stage.delete("wrong")


def test_what_others_change_is_mended(stage: Stage, cluster: LocalCluster) -> None:
    """A Deployment that somebody deletes comes back, and so does a Service."""
    place = Place(cluster, "kept")
    stage.create(pod_app("kept", least=1))
    stage.running("kept")
    before = {kind: place.uid(kind) for kind in (DEPLOYMENTS, SERVICES)}
    for kind in before:
        place.delete(kind)
    stage.running("kept", 2)
    for kind, uid in before.items():
        assert place.uid(kind) not in ("", uid)
    assert stage.ask("kept")[0] == 200
    stage.delete("kept")


def test_apps_of_the_sdk(client: Client, tmp_path: Path) -> None:
    """``flyte serve``, a request to its address, its log, stop and delete, as a user has them."""
    (tmp_path / "greeting.py").write_text(GREETING % free_port())
    assert "App 'greeting' is now being served" in client.flyte("serve", "greeting.py", "env", cwd=tmp_path)
    assert "'publicUrl': 'http://greeting" in client.flyte("get", "app", "greeting")
    path = f"/_apps/{client.project}/development/greeting/word"
    with urllib.request.urlopen(client.backend.address + path) as answer:
        assert answer.read().decode() == f"/word {client.project}"
    lines = AppLogsServiceClientSync(client.backend.address).tail_logs(
        logs.TailLogsRequest(app_id=idl.Identifier(project=client.project, domain=DOMAIN, name="greeting")), timeout_ms=30_000
    )
    assert any("asked for /word" in str(response) for response in lines)
    client.flyte("update", "app", "greeting", "--deactivate", "--wait")
    assert "STOPPED" in client.flyte("get", "app", "--status", "stopped")
    client.flyte("delete", "app", "greeting")
    assert "there is no app" in client.flyte("get", "app", "greeting", fails=True)
