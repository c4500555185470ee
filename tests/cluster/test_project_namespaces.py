"""The overlay of config/kubernetes that gives each project's domain a namespace, with the rights that it gives and no more."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from flyte_unified.kube.kinds import PODS, SECRETS, TASK_ACTIONS, Kind
from flyte_unified.testing import Backend
from tests.cluster.local import REAL, LocalCluster
from tests.sdk.conftest import SETTINGS
from tests.sdk.test_secrets import User

PROJECTS = ("one", "two")

pytestmark = pytest.mark.skipif(bool(REAL), reason="names of namespaces and of roles of all the cluster may be somebody else's")


@pytest.fixture
def spread(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalCluster, dict[str, User]]]:
    """A user of each project."""
    with LocalCluster(tmp_path_factory.mktemp("cluster"), projects=PROJECTS) as cluster:
        bundles = {"storage.bundles": str(tmp_path_factory.mktemp("bundles"))}
        with Backend({**SETTINGS, **cluster.settings, **bundles}, directory=tmp_path_factory.mktemp("data")) as backend:
            users = {}
            for project in PROJECTS:
                backend.create_project(project)
                users[project] = User(backend, tmp_path_factory.mktemp(project) / "home", project)
                users[project].values = []
            yield cluster, users


def test_each_project_has_its_own(spread: tuple[LocalCluster, dict[str, User]]) -> None:
    """Runs, their pods and their secrets are in their project's namespace, and nothing is where the control plane is."""
    cluster, users = spread
    for user in users.values():
        value = user.call("CreateSecret", secrets.token_hex(16), project=user.project, domain="development")
        with user.program() as obey:
            assert obey("variable")["outputs"] == [value]
    for kind in (TASK_ACTIONS, PODS, SECRETS):
        assert [bool(names(cluster, kind, f"{project}-development")) for project in PROJECTS] == [True, True], kind
        assert names(cluster, kind, cluster.namespace) == []


def names(cluster: LocalCluster, kind: Kind, namespace: str) -> list[str]:
    async def found() -> list[str]:
        return [obj["metadata"]["name"] async for page, _ in cluster.kube.pages(kind, namespace=namespace) for obj in page]

    return cluster.do(found)
