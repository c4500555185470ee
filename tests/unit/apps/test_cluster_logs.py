"""The output of an app's pods, told by kubelets that go by whole seconds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, cast

import pytest

from flyte_unified.apps.api import Output
from flyte_unified.apps.cluster.logs import follow
from flyte_unified.apps.cluster.view import View
from flyte_unified.apps.model import AppKey
from flyte_unified.kube.client import Kube
from tests.unit.apps.machine import KEY
from tests.unit.kubelet_log import Cluster

pytestmark = pytest.mark.virtual_time


class Pods:
    """One pod with one container."""

    def __init__(self) -> None:
        self.turn = asyncio.Event()
        self._pod: dict[str, Any] = {"metadata": {"name": "pod"}, "spec": {"containers": [{"name": "main"}]}}
        self.state("running")

    def state(self, state: str, *, restarts: int = 0) -> None:
        status = {"name": "main", "restartCount": restarts, "state": {state: {}}}
        self._pod = self._pod | {"status": {"containerStatuses": [status]}}
        turn, self.turn = self.turn, asyncio.Event()
        turn.set()

    def pods(self, key: AppKey) -> list[dict[str, Any]]:
        return [self._pod]

    def pod(self, key: AppKey, name: str) -> dict[str, Any]:
        return self._pod

    def place(self, key: AppKey) -> str:
        return "n"


class Reader:
    """Who follows the app, and what it was told."""

    def __init__(self, outputs: AsyncGenerator[Output]) -> None:
        self._outputs = outputs
        self.said = ""

    async def until(self, end: str) -> str:
        async with asyncio.timeout(60):
            while not self.said.endswith(end):
                self.said += "".join(line.text for line in (await anext(self._outputs)).lines)
        return self.said


def reading(cluster: Cluster, pods: Pods) -> aclosing[AsyncGenerator[Output]]:
    return aclosing(follow(cast("Kube", cluster), cast("View", pods), KEY, "", active=lambda: True))


async def test_a_connection_that_breaks_loses_and_doubles_nothing() -> None:
    """Nor does it where the other stream is late, or lines have the same time."""
    cluster, pods = Cluster(), Pods()
    async with reading(cluster, pods) as outputs:
        reader = Reader(outputs)
        expected = ""
        for number in range(4):
            cluster.write(f"a{number}", at=number * 0.4)
            expected += f"a{number}\n"
            await reader.until(expected)
            cluster.cut()
            cluster.write(f"b{number}", at=number * 0.4)
            cluster.write(f"c{number}", at=number * 0.4 - 0.1)
            expected += f"b{number}\nc{number}\n"
            assert await reader.until(f"c{number}\n") == expected
    assert len(cluster.asked) > 3


async def test_a_container_that_is_started_again_is_read_on() -> None:
    """All of its new log, however soon it begins."""
    cluster, pods = Cluster(), Pods()
    async with reading(cluster, pods) as outputs:
        reader = Reader(outputs)
        cluster.write("one", "two", at=0.1)
        cluster.end()
        await reader.until("one\ntwo\n")
        pods.state("terminated")
        cluster.lines.clear()
        cluster.running = True
        cluster.write("three", "four", at=0.2)
        pods.state("running", restarts=1)
        assert await reader.until("four\n") == "one\ntwo\nthree\nfour\n"


async def test_a_line_of_any_length_is_one_line() -> None:
    """The client cuts it in pieces, be it within a character; the first alone has a time. What is no text is marked."""
    cluster, pods = Cluster(), Pods()
    long = "wörd " * 60_000
    begins, ends = long.encode()[:300_002], long.encode()[300_002:]
    async with reading(cluster, pods) as outputs:
        cluster.lines += [b"2023-11-14T22:13:20.5Z " + begins, ends, b"2023-11-14T22:13:21.5Z \xff\xfe end"]
        assert await Reader(outputs).until("end\n") == f"{long}\n\ufffd\ufffd end\n"
