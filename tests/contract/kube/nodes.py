"""A node of processes, its pods, and what the API server shows of them as it comes."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import psutil
import pytest

from flyte_unified.kube.client import Kube
from flyte_unified.kube.informer import Informer
from flyte_unified.kube.kinds import EVENTS, PODS
from flyte_unified.testing.kubelet import Kubelet, Pace
from tests.cluster.local import ADDRESS

Object = dict[str, Any]
PATIENCE = 15.0
QUICK = Pace(crash_first=0.2, crash_most=0.8, pull_first=0.2, pull_most=0.4, retry=0.1, write=0.02, write_most=0.1)


class World:
    """One node and one namespace."""

    def __init__(self, kube: Kube, *, namespace: str, node: str, directory: Path) -> None:
        self.kube = kube
        self.namespace = namespace
        self.node = node
        self.directory = directory
        self.seen: dict[str, list[Object]] = {}
        """Every state of each pod that was told."""
        self.events: list[Object] = []
        self._news = asyncio.Event()
        self._informers = [
            Informer(kube, PODS, namespace=namespace, on_event=self._pod),
            Informer(kube, EVENTS, namespace=namespace, on_event=self._event),
        ]
        self.kubelet: Kubelet

    async def start(self, **options: Any) -> None:
        self.kubelet = self.new_kubelet(**options)
        await self.kubelet.start()
        for informer in self._informers:
            await informer.start()

    async def stop(self) -> None:
        for informer in self._informers:
            await informer.stop()
        await self.kubelet.stop(0)
        await self.emptied()
        assert not self.directory.exists()

    async def emptied(self) -> None:
        """No process of the node is left, once those that were told to have ended."""
        _, alive = await asyncio.to_thread(psutil.wait_procs, self.processes(), PATIENCE)
        assert not alive

    def processes(self) -> list[psutil.Process]:
        """What runs in the node's directory: its keeper, and containers, as far as they did not leave theirs."""
        return [
            p for p in psutil.process_iter(["cmdline", "cwd"]) if str(self.directory) in f"{p.info['cmdline']} {p.info['cwd']}"
        ]

    def new_kubelet(self, **options: Any) -> Kubelet:
        labels = {"flyte-unified.test/node": self.node}
        given = {"name": self.node, "namespace": self.namespace, "address": ADDRESS, "directory": self.directory}
        return Kubelet(self.kube, **given | {"labels": labels, "pace": QUICK} | options)

    async def run(self, *containers: Object, name: str = "pod", wait: bool = True, **spec: Any) -> Object:
        """Create a pod on the node; with ``wait``, until it has ended."""
        labels = spec.pop("metadata", {})
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": self.namespace, **labels},
            "spec": {"nodeName": self.node, "restartPolicy": "Never", "containers": list(containers), **spec},
        }
        created = await self.kube.create(PODS, body)
        return await self.until(ended, name=name) if wait else created

    async def until(self, holds: Callable[[Object], Any], *, name: str = "pod") -> Object:
        """The first state of the pod, from its present one on, for which ``holds``."""
        index = max(0, len(self.seen.get(name, ())) - 1)
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    states = self.seen.get(name, [])
                    for state in states[index:]:
                        if holds(state):
                            return state
                    index = len(states)
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"{name}: not within {PATIENCE} s: {self.seen.get(name, [None])[-1]}") from None

    async def gone(self, name: str = "pod") -> list[Object]:
        """Every state that the pod had."""
        await self.until(lambda pod: pod.get("deleted"), name=name)
        return self.seen[name]

    async def told(self, reason: str, text: str = "", *, name: str = "pod") -> Object:
        """An event about the pod, with ``text`` in its message."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for event in self.events:
                    about = event["involvedObject"]["name"]
                    if (event["reason"], about) == (reason, name) and text in event["message"]:
                        return event
                self._news.clear()
                await self._news.wait()

    async def delete(self, name: str = "pod", grace: int | None = None) -> None:
        await self.kube.delete(PODS, name, namespace=self.namespace, grace=grace)

    async def logs(self, container: str = "main", *, name: str = "pod", **options: Any) -> list[str]:
        options = {"timestamps": False} | options
        lines = self.kube.logs(name, namespace=self.namespace, container=container, **options)
        return [line.decode() async for line in lines]

    async def says(self, line: str, *, name: str = "pod", container: str = "main") -> None:
        """Return when the container has written ``line``: it is up when that comes after what it sets up."""
        await self.until(lambda pod: state(pod, container)[0] == "running", name=name)
        lines = self.kube.logs(name, namespace=self.namespace, container=container, timestamps=False, follow=True)
        async with asyncio.timeout(PATIENCE), aclosing(lines):
            async for found in lines:
                if found.decode() == line:
                    return
        raise AssertionError(f"{name} ended without saying {line!r}")

    def _pod(self, change: str, pod: Object) -> None:
        if change == "DELETED":
            pod = {**pod, "deleted": True}
        self.seen.setdefault(pod["metadata"]["name"], []).append(pod)
        self._news.set()

    def _event(self, change: str, event: Object) -> None:
        self.events = [e for e in self.events if e["metadata"]["name"] != event["metadata"]["name"]] + [event]
        self._news.set()


@pytest.fixture
async def world(kube: Kube, namespace: str, tmp_path: Path) -> AsyncIterator[World]:
    world = World(kube, namespace=namespace, node=unique("node"), directory=tmp_path / "node")
    await world.start()
    yield world
    await world.stop()


def unique(name: str) -> str:
    return f"{name}-{uuid.uuid4().hex[:8]}"


def sh(script: str, name: str = "main", **more: Any) -> Object:
    """A container that runs a shell script."""
    return {"name": name, "image": "registry.test/any:v1", "command": ["sh", "-c", script], **more}


def ended(pod: Object) -> bool:
    return phase(pod) in ("Succeeded", "Failed")


def running(pod: Object) -> bool:
    return phase(pod) == "Running"


def ready(pod: Object) -> bool:
    return condition(pod, "Ready").get("status") == "True"


def phase(pod: Object) -> str:
    return str((pod.get("status") or {}).get("phase"))


def status(pod: Object, container: str = "main") -> Object:
    """A container's status, empty before it has one."""
    shown = pod.get("status") or {}
    every = [*(shown.get("initContainerStatuses") or ()), *(shown.get("containerStatuses") or ())]
    return next((s for s in every if s["name"] == container), {})


def state(pod: Object, container: str = "main") -> tuple[str, Object]:
    """``running`` and the like, and what is said of it."""
    return next(iter((status(pod, container).get("state") or {"": {}}).items()))


def reason(pod: Object, container: str = "main") -> str:
    return str(state(pod, container)[1].get("reason", ""))


def condition(pod: Object, kind: str) -> Object:
    return next((c for c in (pod.get("status") or {}).get("conditions") or () if c["type"] == kind), {})
