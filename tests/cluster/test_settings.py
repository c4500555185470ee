"""What a project's settings make of pods."""

# ruff: noqa: F401
from __future__ import annotations

from typing import Any

import pytest

from flyte_unified.kube.kinds import POD_TEMPLATES, PODS, Object
from flyte_unified.testing import Backend
from tests.cluster.local import LocalCluster
from tests.sdk.conftest import Client, Said
from tests.sdk.forks import Forks
from tests.sdk.test_settings import test_a_project_says_where_a_run_is_and_what_it_may, test_limits_mirror_requests

NAME = "settled"


@pytest.fixture(scope="module")
def said(
    flyte_backend: Backend, cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory, forks: Forks
) -> dict[str, Said]:
    """On a cluster that has the account and the template."""
    place = {"name": NAME, "namespace": cluster.namespace}
    container = {"name": "default", "image": "unused", "env": [{"name": "FROM_TEMPLATE", "value": "template"}]}

    async def create() -> None:
        await cluster.grant([{"kind": "ServiceAccount", "metadata": place}])
        await cluster.kube.create(POD_TEMPLATES, {"metadata": place, "template": {"spec": {"containers": [container]}}})

    cluster.do(create)
    flyte_backend.create_project(NAME)
    user = Client(flyte_backend, tmp_path_factory.mktemp("user") / "home", NAME, forks=forks)
    return user.say("settled", "everything")


def pod(cluster: LocalCluster, run: str) -> Object:
    """The only one of the run."""

    async def pods() -> list[Object]:
        pages = cluster.kube.pages(PODS, namespace=cluster.namespace, labels=f"run={run}")
        return [pod async for page, _ in pages for pod in page]

    (found,) = cluster.do(pods)
    return found


def primary(pod: Object) -> Any:
    return next(container for container in pod["spec"]["containers"] if container["name"] == "primary")


def test_a_pod_is_what_the_project_says(cluster: LocalCluster, said: dict[str, Said]) -> None:
    """Its account, its template, its labels, annotations and variables."""
    found = pod(cluster, said["placed"]["run"])
    assert found["spec"]["serviceAccountName"] == NAME
    assert found["metadata"]["labels"]["team"] == "ours"
    assert found["metadata"]["annotations"]["why"] == "because"
    environment = primary(found)["env"]
    assert {"name": "FROM_TEMPLATE", "value": "template"} in environment
    assert {"name": "OF_PROJECT", "value": "project"} in environment


def test_resources_are_within_the_projects_bounds(cluster: LocalCluster, said: dict[str, Said]) -> None:
    """Of a task that says nothing, and of one that asks for less than the least, with a limit above the most."""
    least = {"cpu": "200m", "memory": "300Mi", "ephemeral-storage": "64Mi"}
    assert primary(pod(cluster, said["placed"]["run"]))["resources"] == {"requests": least, "limits": least}
    asked = {"cpu": "100m", "memory": "256Mi", "ephemeral-storage": "64Mi"}
    assert primary(pod(cluster, said["limited"]["run"]))["resources"] == {"requests": asked, "limits": asked}
