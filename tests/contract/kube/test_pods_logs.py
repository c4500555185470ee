"""A log from the container's first line to the store, as whoever follows it sees it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

from flyte_unified.core.phases import Phase
from flyte_unified.dataproxy.pod_logs import PodLines
from flyte_unified.kube.client import Kube
from flyte_unified.kube.kinds import PODS
from flyte_unified.launchers.api import Ended, Started, WorkId
from flyte_unified.ledger.api import Move
from flyte_unified.testing.fake_kube import FakeKube
from tests.contract.kube.attempts import Stand
from tests.contract.kube.nodes import World, sh, unique
from tests.unit.dataproxy.conftest import ROOT, Proxy, proxy

__all__ = ["proxy"]

WORK = WorkId(ROOT, 1)


async def test_a_log_outlives_its_pod(kube: Kube, fake: FakeKube, namespace: str, tmp_path: Path, proxy: Proxy):
    """Followed while it runs, to its end when the pod is gone, and read again from the store alone: the same lines."""
    await proxy.run()
    world = World(kube, namespace=namespace, node=unique("node"), directory=tmp_path / "node")
    await world.start()
    stand = Stand(kube, namespace, tmp_path)
    await stand.start()
    lines = PodLines(kube=kube, ledger=proxy.ledger, store=stand.store, base=stand.store.base("logs"))
    gate = tmp_path / "gate"
    script = f"echo one; until [ -e {gate} ]; do sleep 0.05; done; echo two; echo three"
    over = asyncio.Event()
    async with aclosing(lines.follow(ROOT, 1, over)) as batches:
        first = asyncio.ensure_future(anext(batches))
        name = await stand.launch(WORK, nodeName=world.node, containers=[sh(script)])
        started = await stand.until(Started, WORK)
        await proxy.ledger.move(ROOT, Move(to=Phase.RUNNING, attempt=1, details=started.details))
        told = list(await first)
        gate.touch()
        await stand.until(Ended, WORK)
        await stand.launcher.forget(WORK)
        await kube.delete(PODS, name, namespace=namespace)
        await world.gone(name)
        over.set()
        told += [line for batch in [batch async for batch in batches] for line in batch]
    assert [line.text for line in told] == ["one\n", "two\n", "three\n"]
    assert all(line.at > 1_700_000_000_000_000 for line in told)
    assert [line async for batch in lines.follow(ROOT, 1, over) for line in batch] == told
    await stand.close()
    await world.stop()
