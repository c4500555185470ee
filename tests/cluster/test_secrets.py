"""Secrets on pods: the laptop's command line, the cluster's Secrets, and no value in a pod."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator

import pytest

from flyte_unified.kube.kinds import PODS
from flyte_unified.testing import Backend
from tests.cluster.local import LocalCluster
from tests.cluster.manifests import secrets_access
from tests.sdk.conftest import SETTINGS
from tests.sdk.test_secrets import User


@pytest.fixture
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[User, LocalCluster]]:
    with LocalCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        cluster.do(lambda: cluster.grant(secrets_access(cluster.namespace)))
        bundles = {"storage.bundles": str(tmp_path_factory.mktemp("bundles"))}
        with Backend({**SETTINGS, **cluster.settings, **bundles}, directory=tmp_path_factory.mktemp("data")) as backend:
            backend.create_project("programs")
            user = User(backend, tmp_path_factory.mktemp("user") / "home", "programs")
            user.values = []
            yield user, cluster


def test_a_pod_has_the_most_specific(user: tuple[User, LocalCluster]) -> None:
    """As variables and files by the same names; its spec refers to the Secret, and neither shows nor names a value."""
    client, cluster = user
    client.flyte("create", "secret", "token", "--value", "of-all")
    domain = client.call("CreateSecret", value := secrets.token_hex(16), domain="development")
    certificate = secrets.token_hex(16)
    with client.program() as obey:
        obey("create", "certificate", certificate)
        assert obey("variable")["outputs"] == [domain]
        (found,) = obey("everything")["outputs"]
    assert {found["RENAMED"], found["GROUPED_TOKEN"], found["token"]} == {domain}
    assert found["certificate"] == hashlib.sha256(certificate.encode()).hexdigest()
    assert found["written"] in ("OSError", "PermissionError")

    async def pods() -> str:
        return json.dumps([pod async for page, _ in cluster.kube.pages(PODS, namespace=cluster.namespace) for pod in page])

    shown = cluster.do(pods)
    assert "secretKeyRef" in shown
    assert value not in shown
    assert certificate not in shown
