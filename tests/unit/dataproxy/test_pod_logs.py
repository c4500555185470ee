"""Lines of pods: from a cluster that forgets, or from the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from flyteidl2.core import execution_pb2
from flyteidl2.workflow import run_definition_pb2

from flyte_unified.core.clock import SECOND, Micros
from flyte_unified.core.phases import Phase
from flyte_unified.dataproxy.logs import Line
from flyte_unified.dataproxy.pod_logs import PodLines
from flyte_unified.launchers.api import WorkId
from flyte_unified.launchers.kept_logs import NOTICE, address
from flyte_unified.ledger.api import Move
from tests.unit.dataproxy.conftest import ROOT, Proxy
from tests.unit.kubelet_log import START, Cluster


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def lines(proxy: Proxy, cluster: Cluster) -> PodLines:
    return PodLines(kube=cluster, ledger=proxy.ledger, store=proxy.store, base=f"{proxy.store.base('objects')}/logs")


async def start(proxy: Proxy) -> None:
    """The leader records that the attempt runs, and where."""
    await proxy.ledger.move(ROOT, Move(to=Phase.RUNNING, attempt=1, details=details()))


def details() -> run_definition_pb2.ActionAttempt:
    containers = [execution_pb2.ContainerContext(container_name="main")]
    pod = execution_pb2.PodLogContext(namespace="n", pod_name="pod", primary_container_name="main", containers=containers)
    return run_definition_pb2.ActionAttempt(log_context=execution_pb2.LogContext(pods=[pod], primary_pod_name="pod"))


async def keep(proxy: Proxy, content: bytes) -> None:
    await proxy.store.put(address(f"{proxy.store.base('objects')}/logs", WorkId(ROOT, 1)), content)


async def rest(batches: AsyncGenerator[list[Line]]) -> list[str]:
    return [line.text for batch in [batch async for batch in batches] for line in batch]


async def test_a_pod_is_waited_for_and_followed(proxy: Proxy, cluster: Cluster, lines: PodLines) -> None:
    """Nothing is asked of the cluster before the attempt runs; then each line comes with its time."""
    await proxy.run()
    over = asyncio.Event()
    async with aclosing(lines.follow(ROOT, 1, over)) as batches:
        first = asyncio.ensure_future(anext(batches))
        await proxy.ledger.move(ROOT, Move(to=Phase.INITIALIZING, attempt=1))
        assert not cluster.asked
        cluster.write("one", "two", at=0.5)
        await start(proxy)
        assert await first == [Line(Micros(START + SECOND // 2), text) for text in ("one\n", "two\n")]
        cluster.write("three", at=1.0)
        assert [line.text for line in await anext(batches)] == ["three\n"]
        cluster.end()
        await keep(proxy, cluster.log())
        over.set()
        assert await rest(batches) == []


async def test_a_connection_that_breaks_loses_and_doubles_nothing(proxy: Proxy, cluster: Cluster, lines: PodLines) -> None:
    """However often, and though kubelets know whole seconds only."""
    await proxy.run()
    await start(proxy)
    over = asyncio.Event()
    told: list[str] = []
    async with aclosing(lines.follow(ROOT, 1, over)) as batches:
        for number in range(6):
            cluster.write(f"a{number}", "same", at=number * 0.4)
            cluster.write(f"b{number}", at=number * 0.4 - 0.1)  # the other stream is late
            while len(told) < 3 * (number + 1):
                told += [line.text for line in await anext(batches)]
            cluster.cut()
        cluster.end()
        await keep(proxy, cluster.log())
        over.set()
        assert await rest(batches) == []
    assert told == [f"{text}\n" for number in range(6) for text in (f"a{number}", "same", f"b{number}")]
    assert len(cluster.asked) > 2
    assert cluster.asked[0] == ("", True) and cluster.asked[-1][0]


async def test_the_store_goes_on_where_the_pod_left_off(proxy: Proxy, cluster: Cluster, lines: PodLines) -> None:
    """A pod that went with its last lines untold has them in the store."""
    await proxy.run()
    await start(proxy)
    over = asyncio.Event()
    cluster.write("one", "one", at=0.0)
    async with aclosing(lines.follow(ROOT, 1, over)) as batches:
        assert [line.text for line in await anext(batches)] == ["one\n", "one\n"]
        cluster.there = False
        kept = Cluster(lines=[*cluster.lines])
        kept.write("one", "two", at=0.3)
        kept.write("three", at=7)
        await keep(proxy, kept.log())
        over.set()
        assert await rest(batches) == ["one\n", "two\n", "three\n"]


async def test_a_log_that_is_kept_needs_no_cluster(proxy: Proxy, cluster: Cluster, lines: PodLines) -> None:
    """Notices of ours are told as such; bytes that are no text do no harm."""
    await proxy.run()
    cluster.write("one", f"{NOTICE}7 bytes of output were dropped here")
    over = asyncio.Event()
    over.set()
    await keep(proxy, cluster.log() + b"2024-01-01T00:00:00Z \xff\r\n")
    batches = [batch async for batch in lines.follow(ROOT, 1, over)]
    told = [line for batch in batches for line in batch]
    assert [(line.text, line.system) for line in told] == [
        ("one\n", False),
        (f"{NOTICE}7 bytes of output were dropped here\n", True),
        ("\ufffd\n", False),
    ]
    assert not cluster.asked


async def test_an_attempt_that_left_nothing(proxy: Proxy, cluster: Cluster, lines: PodLines) -> None:
    """One that never ran, and one whose pod is gone and whose log nobody kept: no lines, and an end."""
    await proxy.run()
    over = asyncio.Event()
    over.set()
    assert [batch async for batch in lines.follow(ROOT, 1, over)] == []
    await start(proxy)
    cluster.there = False
    assert [batch async for batch in lines.follow(ROOT, 1, over)] == []


async def test_an_end_without_a_kept_log_is_read_from_the_pod(proxy: Proxy, cluster: Cluster, lines: PodLines) -> None:
    """What there is, without waiting for more."""
    await proxy.run()
    await start(proxy)
    cluster.write("one")
    over = asyncio.Event()
    over.set()
    assert [line.text async for batch in lines.follow(ROOT, 1, over) for line in batch] == ["one\n"]
    assert cluster.asked == [("", False)]


async def test_lines_that_are_too_long_go_on(proxy: Proxy, cluster: Cluster, lines: PodLines) -> None:
    """The client cuts them; their parts are one line again."""
    await proxy.run()
    await start(proxy)
    cluster.write("x" * (1 << 18))
    cluster.lines.append(b"and its rest")
    cluster.write("next")
    over = asyncio.Event()
    over.set()
    text = "".join([line.text async for batch in lines.follow(ROOT, 1, over) for line in batch])
    assert text == "x" * (1 << 18) + "and its rest\nnext\n"
