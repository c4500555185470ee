"""A server whose tasks are pods, on a cluster of this machine: see ``local``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from flyte_unified.testing import Backend
from tests.cluster.local import LocalCluster
from tests.cluster.stand import faulty_cluster, stand, zygote
from tests.leftovers import _nothing_left, _nothing_left_at_all
from tests.sdk.conftest import SETTINGS, Client, forks, newcomer
from tests.sdk.forks import Forks

__all__ = ["_nothing_left", "_nothing_left_at_all", "faulty_cluster", "forks", "newcomer", "stand", "zygote"]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with LocalCluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture(scope="session")
def flyte_backend_settings(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    pods = {"pods.data_image": "flyte-unified", "pods.image_pull_grace": 1.0, "images.registry": "registry.example.com/flyte"}
    queues = {"queues.max_concurrency": ("narrow=1", "wide")}
    return {**SETTINGS, **cluster.settings, **pods, **queues, "storage.bundles": str(tmp_path_factory.mktemp("bundles"))}


@pytest.fixture(scope="session")
def client(flyte_backend: Backend, tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Client:
    flyte_backend.create_project("programs")
    return Client(flyte_backend, tmp_path_factory.mktemp("user") / "home", "programs", forks=forks)


@pytest.fixture(scope="session")
def either(client: Client) -> Client:
    """Where the laptop's tests run twice, the cluster's run once."""
    return client
