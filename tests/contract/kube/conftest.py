"""A cluster to hold our client to, FLYTE_TEST_KUBECONFIG's or else the fake; in it a namespace of the test's own."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from flyte_unified.kube.client import Kube
from flyte_unified.testing.fake_kube import FakeKube
from tests.cluster.local import create_namespace, let_go, remove_namespace
from tests.contract.kube.raw import Raw

REAL = os.environ.get("FLYTE_TEST_KUBECONFIG", "")


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[FakeKube | None]:
    """The fake, None for a real one."""
    if REAL:
        yield None
    else:
        async with FakeKube.running() as fake:
            fake.kubeconfig(tmp_path / "kubeconfig")
            yield fake


@pytest.fixture
async def fake(cluster: FakeKube | None) -> FakeKube:
    """For tests of what cannot be brought about in a real cluster."""
    if cluster is None:
        pytest.skip("needs faults")
    return cluster


@pytest.fixture
async def kube(cluster: FakeKube | None, tmp_path: Path) -> AsyncIterator[Kube]:
    client = Kube(kubeconfig=tmp_path / "kubeconfig" if cluster else Path(REAL), timeout=10.0)
    await client.start()
    yield client
    await client.stop()


@pytest.fixture
async def namespace(kube: Kube, cluster: FakeKube | None) -> AsyncIterator[str]:
    name = f"flyte-unified-test-{uuid.uuid4().hex[:8]}"
    await create_namespace(kube, name)
    yield name
    if cluster is not None:
        cluster.faults.restore()
    await let_go(kube, name)
    await remove_namespace(kube, name)


@pytest.fixture
async def api(cluster: FakeKube | None, namespace: str, tmp_path: Path) -> AsyncIterator[Raw]:
    """The server in plain HTTP."""
    raw = Raw(Path(REAL) if cluster is None else tmp_path / "kubeconfig", namespace)
    yield raw
    await raw.close()
