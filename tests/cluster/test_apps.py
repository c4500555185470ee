"""Apps in a cluster: a Deployment and a Service each, reached at the server's port."""

from __future__ import annotations

import pytest
from flyteidl2.app import app_definition_pb2 as idl

from flyte_unified.core.names import app_name
from flyte_unified.kube.errors import Missing
from flyte_unified.kube.kinds import DEPLOYMENTS, SERVICES, Kind, Object
from flyte_unified.testing import Backend
from tests.cluster.local import LocalCluster
from tests.sdk.test_apps import DOMAIN, PROJECT, SERVER, STOPPED, Stage, app

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
