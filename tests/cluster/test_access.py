"""The server under test has the rights that config/kubernetes gives it: ``local`` looks, at the end, that they were enough."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from flyte_unified.cli.doctor.cluster import CHECKS
from flyte_unified.cli.doctor.finding import Level, examined
from flyte_unified.kube.client import Kube
from flyte_unified.kube.errors import Forbidden
from flyte_unified.kube.kinds import CRDS, LEASES, NAMESPACES, NODES, PODS, SECRETS, Kind
from flyte_unified.settings import load
from tests.cluster.local import REAL, LocalCluster
from tests.sdk.conftest import Client


def test_a_run_needs_no_more(client: Client, cluster: LocalCluster) -> None:
    """A run ends well, and nothing that the server asked for on the way was refused."""
    (said,) = client.say("small", "bundled").values()
    assert said["phase"] == "SUCCEEDED"
    if not REAL:
        assert cluster.server.access.refused == []


@pytest.mark.parametrize("kind", [SECRETS, NODES, NAMESPACES, CRDS, LEASES], ids=lambda kind: kind.plural)
def test_it_may_not_look_around(cluster: LocalCluster, kind: Kind) -> None:
    """Secrets, and what is not its business, cannot be listed, nor can pods elsewhere."""
    with pytest.raises(Forbidden):
        asyncio.run(listed(cluster, kind, cluster.namespace))
    with pytest.raises(Forbidden):
        asyncio.run(listed(cluster, PODS, "default"))
    if not REAL:
        cluster.server.access.refused.clear()


def test_the_doctor_asks_for_no_more(cluster: LocalCluster) -> None:
    """What it looks for is what the manifests give."""
    settings = load().with_values(cluster.settings, source="test")
    findings = asyncio.run(examined(CHECKS, settings))
    assert {finding.level for finding in findings} == {Level.OK}, findings


async def listed(cluster: LocalCluster, kind: Kind, namespace: str) -> None:
    kube = Kube(kubeconfig=cluster.kubeconfig)
    await kube.start()
    try:
        async with aclosing(kube.pages(kind, namespace=namespace)) as pages:
            await anext(pages)
    finally:
        await kube.stop()
