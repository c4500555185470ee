"""A cluster on this machine, in a thread: the fake API server, a scheduler and a process kubelet."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import yaml

from flyte_unified.kube.client import Kube
from flyte_unified.kube.kinds import CRDS, NAMESPACES
from flyte_unified.testing.fake_kube import FakeKube
from flyte_unified.testing.kubelet import Kubelet, Scheduler

NAMESPACE = "flyte"
_CRD = Path(__file__).parents[2] / "config/kubernetes/base/taskactions.yaml"
_START_SECONDS = 30.0
_CAPACITY = {"cpu": "64", "memory": "256Gi", "pods": "500"}
"""Parents keep what they asked for while they wait for their children, so a node of two CPUs would hold up a tree of three."""

T = TypeVar("T")


class LocalCluster:
    """``with LocalCluster(directory) as cluster``; what it is made of lives in its loop: ``do`` runs things there."""

    def __init__(self, directory: Path, *, warm: bool = True) -> None:
        self._directory = directory
        self._warm = warm
        self._ready: Future[asyncio.AbstractEventLoop] = Future()
        self._ended: Future[None] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="cluster")
        self.kubeconfig = directory / "kubeconfig"
        self.server: FakeKube
        self.kube: Kube
        self.kubelet: Kubelet

    def __enter__(self) -> LocalCluster:
        self._thread.start()
        self._loop = self._ready.result(_START_SECONDS)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
        self._ended.result()

    def do(self, work: Callable[[], Awaitable[T]]) -> T:
        """What ``work`` answers, awaited in the cluster's loop."""

        async def done() -> T:
            return await work()

        return asyncio.run_coroutine_threadsafe(done(), self._loop).result(_START_SECONDS)

    @property
    def settings(self) -> dict[str, Any]:
        """Of a server whose tasks run here."""
        return {
            "execution.launcher": "pods",
            "kubernetes.kubeconfig": str(self.kubeconfig),
            "kubernetes.namespace": NAMESPACE,
            "kubernetes.lease_duration": 3.0,
            "server.key": base64.b64encode(bytes(range(32))).decode(),
        }

    async def _serve(self) -> None:
        self._over = asyncio.Event()
        try:
            async with contextlib.AsyncExitStack() as stack:
                await self._start(stack)
                self._ready.set_result(asyncio.get_running_loop())
                await self._over.wait()
        except BaseException as error:
            (self._ended if self._ready.done() else self._ready).set_exception(error)
        else:
            self._ended.set_result(None)

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        self.server = await stack.enter_async_context(FakeKube.running())
        self.server.kubeconfig(self.kubeconfig)
        self.kube = Kube(kubeconfig=self.kubeconfig)
        await self.kube.start()
        stack.push_async_callback(self.kube.stop)
        await self.kube.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        await self.kube.create(CRDS, yaml.safe_load(_CRD.read_text()))
        await stack.enter_async_context(Scheduler.running(self.kube))
        self.kubelet = await stack.enter_async_context(
            Kubelet.running(self.kube, directory=self._directory / "node", warm=self._warm, capacity=_CAPACITY)
        )
