"""A cluster whose pods are played: a fake API server, and for scheduler and nodes a script that says what they say.

``python -m tests.benchmarks.played DIRECTORY`` is one in a process of its own, whose pods never end. It leaves ``kubeconfig``
there, and answers each line on its standard input with the requests that it had, as JSON; a line that is not empty begins the
count anew.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Any

from flyte_unified.testing.fake_kube import FakeKube
from flyte_unified.testing.fake_kube.api import Call
from flyte_unified.testing.fake_kube.store import Change, Key
from flyte_unified.testing.fake_kube.subresources import Subresources
from tests.cluster.manifests import task_actions

NAMESPACE = "flyte"
_TERMINATED = "flyte.org/termination-status"
Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds between the steps of a pod, each drawn anew between two bounds, so that no two pods are in step."""

    scheduled: Span = (0.0, 0.0)
    started: Span = (0.0, 0.0)
    """From its node to the start of its container"""
    ended: Span = (0.0, 0.0)
    """From there to its end. Infinite: never."""


APART = Pace(scheduled=(0.0, 0.2), started=(0.2, 2.0), ended=(0.5, 3.0))
"""Of a hundred pods each step has a moment of its own, so that few writes wait together."""


class Played:
    """``cluster`` is the API server. A pod's container leaves outputs without any value below the address that it has last
    among its arguments, and ends well; one whose address ends with a0/1, a root's, runs for ever."""

    def __init__(self, cluster: FakeKube, pace: Pace) -> None:
        self.cluster = cluster
        self._pace = pace
        self._random = random.Random(1)
        self._below = Subresources(api=cluster.api, store=cluster.store, registry=cluster.registry)
        self._pods = cluster.registry.named("pods")
        self._started: set[Key] = set()
        self._over: set[Key] = set()
        self._more = asyncio.Event()
        cluster.store.listeners.append(self._changed)

    @classmethod
    @asynccontextmanager
    async def running(cls, pace: Pace) -> AsyncGenerator[Played]:
        async with FakeKube.running() as cluster:
            cluster.apply(task_actions())
            cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
            cluster.apply(
                {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": NAMESPACE}}
            )
            yield cls(cluster, pace)

    async def over(self, count: int) -> None:
        """Returns when so many TaskActions were marked as terminated: the last that is written of an action."""
        await self._reach(self._over, count)

    async def started(self, count: int) -> None:
        """Returns when so many pods run, or have run."""
        await self._reach(self._started, count)

    async def _reach(self, some: set[Key], count: int) -> None:
        while len(some) < count:
            self._more.clear()
            await self._more.wait()

    def settings(self, kubeconfig: Path) -> dict[str, Any]:
        """Of a server whose tasks are pods here."""
        return settings(self.cluster.kubeconfig(kubeconfig))

    def _changed(self, shelf: tuple[str, str], change: Change) -> None:
        if shelf[1] == "taskactions" and _TERMINATED in change.record.labels:
            self._over.add(change.record.key)
            self._more.set()
        elif shelf == ("", "pods") and change.previous is None:
            self._later(self._pace.scheduled, self._schedule, change.record.key)

    def _later(self, span: Span, step: Any, key: Key) -> None:
        if span[0] != inf:
            asyncio.get_running_loop().call_later(self._random.uniform(*span), step, key)

    def _schedule(self, key: Key) -> None:
        assert self._pods is not None
        target = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": key[1]}, "target": {"name": "node"}}
        self._below.bind(self._pods, key, target, Call())
        self._tell(key, "Pending", {"waiting": {"reason": "ContainerCreating"}})
        self._later(self._pace.started, self._start, key)

    def _start(self, key: Key) -> None:
        pod = self._tell(key, "Running", {"running": {"startedAt": _now()}})
        self._started.add(key)
        self._more.set()
        if not _address(pod).endswith("/a0/1"):
            self._later(self._pace.ended, self._end, key)

    def _end(self, key: Key) -> None:
        pod = self.cluster.get("pods", key[1], namespace=key[0])
        outputs = Path(_address(pod), "outputs.pb")
        outputs.parent.mkdir(parents=True, exist_ok=True)
        outputs.touch()
        container = pod["spec"]["containers"][0]["name"]
        self.cluster.set_log(key[1], "done\n", container=container, namespace=key[0])
        ended = {"exitCode": 0, "reason": "Completed", "startedAt": pod["status"]["startTime"], "finishedAt": _now()}
        self._tell(key, "Succeeded", {"terminated": ended})

    def _tell(self, key: Key, phase: str, state: Mapping[str, Any]) -> dict[str, Any]:
        """One status, as a kubelet writes it."""
        pod = self.cluster.get("pods", key[1], namespace=key[0])
        status = {
            **pod["status"],
            "phase": phase,
            "startTime": pod["status"].get("startTime") or _now(),
            "containerStatuses": [
                {
                    "name": one["name"], "image": one["image"], "imageID": "", "ready": phase == "Running", "restartCount": 0,
                    "state": state,
                }
                for one in pod["spec"]["containers"]
            ],
        }  # fmt: skip
        return self.cluster.apply({**pod, "status": status}, subresource="status")


def settings(kubeconfig: Path) -> dict[str, Any]:
    return {
        "execution.launcher": "pods",
        "kubernetes.kubeconfig": str(kubeconfig),
        "kubernetes.namespace": NAMESPACE,
        "kubernetes.lease_duration": 60.0,  # machines are busy where this is measured
        "server.public_url": "http://flyte.test",
        "server.key": base64.b64encode(bytes(range(32))).decode(),
    }


def _address(pod: Mapping[str, Any]) -> str:
    return str(pod["spec"]["containers"][0]["args"][-1])


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def _serve(directory: Path) -> None:
    """Pods that never end."""
    async with Played.running(Pace(ended=(inf, inf))) as played:
        played.settings(directory / "kubeconfig")
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            if line.strip():
                played.cluster.requests.clear()
            sys.stdout.write(json.dumps({" ".join(asked): count for asked, count in played.cluster.requests.items()}) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
