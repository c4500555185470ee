"""The kubelet: one node, the pods bound to it, and what tests do to them."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import structlog

from flyte_unified.core.clock import Clock, SystemClock
from flyte_unified.core.errors import NotFound
from flyte_unified.kube.client import Kube
from flyte_unified.kube.errors import KubeError
from flyte_unified.kube.informer import Informer
from flyte_unified.kube.kinds import PODS, Object
from flyte_unified.testing.kubelet import volumes
from flyte_unified.testing.kubelet.container import ContainerLife
from flyte_unified.testing.kubelet.environment import LOOPBACK
from flyte_unified.testing.kubelet.events import Recorder
from flyte_unified.testing.kubelet.images import Images
from flyte_unified.testing.kubelet.network import Network
from flyte_unified.testing.kubelet.node import Node, capacity_of_machine
from flyte_unified.testing.kubelet.output import Wanted, read
from flyte_unified.testing.kubelet.pod import PodLife
from flyte_unified.testing.kubelet.runtime import Runtime
from flyte_unified.testing.kubelet.server import NoLog, Server
from flyte_unified.testing.kubelet.services import Pace, Services
from flyte_unified.testing.kubelet.status import Verdict, Waiting, stamp

_log = structlog.get_logger(__name__)
_LAST_WORDS = 5.0
"""Seconds that a kubelet which stops gives to each of its last words to the API server."""
_SHUTDOWN = Verdict("Terminated", "Pod was terminated in response to imminent node shutdown.", "TerminationByKubelet")


class Kubelet:
    """A virtual node. ``directory`` keeps everything, and one that is used again finds its containers again unless
    ``ephemeral``: then the processes end with this one, whatever ends it.

    In a cluster that others use, name the one ``namespace`` whose pods are run here: a DaemonSet's come to every node.
    ``address`` is where the API server reaches this machine for logs; beyond loopback, whoever does reads them.

    ``python`` is what images are; ``images`` says more. ``capacity`` adds to and replaces the machine's own resources
    (``{"nvidia.com/gpu": "2"}``). ``warm`` starts the SDK's ``a0`` from a fork server where a container has no volumes.
    With a ``network``, which is to be running, pods have addresses of their own; else all have 127.0.0.1.

    The methods that do something to a pod take its object, or "namespace/name". They raise NotFound if it is not here.
    """

    def __init__(
        self,
        kube: Kube,
        *,
        directory: Path,
        name: str = "process-node",
        namespace: str = "",
        address: str = LOOPBACK,
        python: Path = Path(sys.executable),
        images: Images | None = None,
        capacity: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        taints: Sequence[Object] = (),
        warm: bool = False,
        ephemeral: bool = True,
        network: Network | None = None,
        pace: Pace | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self.directory = directory
        self.images = images or Images(python)
        self._kube = kube
        self._pace = pace or Pace()
        self._clock = clock or SystemClock()
        self._capacity = capacity_of_machine() | dict(capacity or {})
        self._labels, self._taints = dict(labels or {}), list(taints)
        self._ephemeral = ephemeral
        self._gate = asyncio.Event()
        self._gate.set()
        self._pods: dict[str, PodLife] = {}
        self._absent: set[str] = set()
        self.runtime = Runtime(directory, ephemeral=ephemeral)
        self.events = Recorder(kube, component="kubelet", host=name, clock=self._clock)
        self._address = address
        self._server = Server(self._logs, address=address, directory=directory, clock=self._clock)
        self._services = Services(
            kube=kube,
            runtime=self.runtime,
            images=self.images,
            events=self.events,
            clock=self._clock,
            pace=self._pace,
            allocatable=self._capacity,
            warm=warm,
            network=network,
            gate=self._gate,
        )
        self._node: Node | None = None
        self._informer = Informer(kube, PODS, namespace=namespace, fields=f"spec.nodeName={name}", on_event=self._hear)
        self._alive = False

    @classmethod
    @asynccontextmanager
    async def running(cls, kube: Kube, *, directory: Path | None = None, **options: Any) -> AsyncGenerator[Kubelet]:
        """A kubelet in this event loop, with nothing left of it afterwards. ``options`` are the constructor's."""
        with tempfile.TemporaryDirectory(prefix="fk-", ignore_cleanup_errors=True) as temporary:
            kubelet = cls(kube, directory=directory or Path(temporary), **options)
            try:
                await kubelet.start()
                yield kubelet
            finally:
                await kubelet.stop(0)

    async def start(self) -> None:
        """Register the node and take up its pods, those of an earlier kubelet too."""
        self.directory.mkdir(parents=True, exist_ok=True)
        await self.runtime.start()
        self._alive = True
        await self._server.start()
        self.events.start()
        self._node = Node(
            self._kube,
            name=self.name,
            capacity=self._capacity,
            labels=self._labels,
            taints=self._taints,
            address=self._address,
            port=self._server.port,
            clock=self._clock,
            pace=self._pace,
        )
        await self._node.start()
        await self._informer.start()
        await self._end_strays()

    async def stop(self, grace: float = 5.0) -> None:
        """Leave the cluster: the pods end within ``grace`` seconds, as in a node's shutdown, and nothing is left of them."""
        if self._alive:
            for life in self._pods.values():
                life.judge(_SHUTDOWN, grace=grace)
            await self._last_words(self._finished(), grace)
            if self._node is not None:
                await self._last_words(self._node.remove(), 0)
            await self._silence()
            await self.events.stop(_LAST_WORDS)
            await self.runtime.stop(grace)
        else:
            await self._end_forsaken()
        shutil.rmtree(self.directory, ignore_errors=True)

    async def leave(self) -> None:
        """Go as a kubelet that is restarted: node and pods stay, and, unless it is ephemeral, so do the processes."""
        await self._silence()
        await self.events.stop(0)
        await self.runtime.leave()

    async def die(self, *, processes: bool = False) -> None:
        """The node is lost: no word of it any more. With ``processes`` they run on all the same, until ``stop``.

        That the cluster notices is for others to play: see ``cluster.lose``. Raises ValueError if they cannot run on.
        """
        if processes and self._ephemeral:
            raise ValueError("the processes of an ephemeral kubelet end with it")
        await self._silence()
        await self.events.stop(0)
        await (self.runtime.leave() if processes else self.runtime.stop(0))

    # What tests do

    def hold(self) -> None:
        """Pods that come now stay pending."""
        self._gate.clear()

    def resume(self) -> None:
        self._gate.set()

    def pod(self, pod: Object | str) -> PodLife:
        """The life of a pod on this node."""
        namespace, name = pod.split("/") if isinstance(pod, str) else (pod["metadata"]["namespace"], pod["metadata"]["name"])
        for life in self._pods.values():
            metadata = life.pod["metadata"]
            if (metadata["namespace"], metadata["name"]) == (namespace, name) and metadata["uid"] not in self._absent:
                return life
        raise NotFound(f"node {self.name} has no pod {namespace}/{name}")

    def evict(self, pod: Object | str, *, resource: str = "memory") -> None:
        """As a node does that runs out of ``resource``."""
        life = self.pod(pod)
        container = life.pod["spec"]["containers"][0]
        used = f"Container {container['name']} was using 2Gi, request is 0, has larger consumption of {resource}. "
        message = f"The node was low on resource: {resource}. Threshold quantity: 100Mi, available: 50Mi. {used}"
        self.events.say(life.pod, "Evicted", message, warning=True)
        life.judge(Verdict("Evicted", message, "TerminationByKubelet"), grace=0)

    async def preempt(self, pod: Object | str, *, by: str = "a-more-important-pod") -> None:
        """As the scheduler does for a pod of a higher priority: the victim is marked, then deleted with its own grace."""
        life = self.pod(pod)
        metadata = life.pod["metadata"]
        message = "default-scheduler: preempting to accommodate a higher priority pod"
        condition = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": message}
        condition["lastTransitionTime"] = stamp(self._clock.now())  # a mark without one is old, and is taken back
        others = [c for c in (life.pod.get("status") or {}).get("conditions") or () if c["type"] != condition["type"]]
        name, namespace = metadata["name"], metadata["namespace"]
        status = {"status": {"conditions": [*others, condition]}}
        await self._kube.patch(PODS, name, status, namespace=namespace, subresource="status")
        self.events.say(life.pod, "Preempted", f"Preempted by pod {by} on node {self.name}")
        await self._kube.delete(PODS, name, namespace=namespace, uid=metadata["uid"])

    async def oom(self, pod: Object | str, container: str = "") -> None:
        """The kernel kills a container (by default the first) for its use of memory."""
        life = self._container(pod, container)
        life.oom = True
        await life.hurry(0)

    async def kill_container(self, pod: Object | str, number: int, container: str = "") -> None:
        """Send a signal to a container's first process."""
        life = self._container(pod, container)
        if life.current is not None:
            await self.runtime.signal(life.current, number)

    # Inside

    def _container(self, pod: Object | str, name: str) -> ContainerLife:
        life = self.pod(pod)
        name = name or life.pod["spec"]["containers"][0]["name"]
        if name not in life.lives:
            raise NotFound(f"pod {life.pod['metadata']['name']} has no container {name}")
        return life.lives[name]

    def _hear(self, change: str, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        life = self._pods.get(uid)
        if change == "DELETED":
            if life is not None:
                self._absent.add(uid)
                life.gone()
                if life.ended:
                    self._forget(life)
        elif life is None:
            self._pods[uid] = PodLife(pod, self._services, on_end=self._ended)
        else:
            life.update(pod)

    def _ended(self, life: PodLife) -> None:
        """Kept while its object is there, held by a finalizer: it would be taken for a new one."""
        if life.uid in self._absent:
            self._forget(life)

    def _forget(self, life: PodLife) -> None:
        self._pods.pop(life.uid, None)
        self._absent.discard(life.uid)

    async def _finished(self) -> None:
        await asyncio.gather(*(life.finished() for life in self._pods.values()))

    async def _silence(self) -> None:
        """Nothing is heard of this node any more, and it hears nothing."""
        self._alive = False
        await self._informer.stop()
        if self._node is not None:
            await self._node.stop()
        await asyncio.gather(*(life.leave() for life in list(self._pods.values())))
        self._pods.clear()
        await self._server.stop()

    async def _last_words(self, words: Any, grace: float) -> None:
        try:
            async with asyncio.timeout(_LAST_WORDS + grace):
                await words
        except (TimeoutError, KubeError) as error:
            _log.warning("a node leaves without a word", node=self.name, error=str(error))

    async def _end_strays(self) -> None:
        """What is left of pods that were deleted while no kubelet was here."""
        for run in [run for runs in self.runtime.runs.values() for run in runs.values()]:
            if run.container.partition(".")[0] not in self._pods:
                await self.runtime.kill(run, 0)
                await asyncio.shield(run.exited)
                self.runtime.forget(run)
        for directory in list((self.directory / "pods").iterdir()):
            if directory.name not in self._pods:
                await asyncio.to_thread(volumes.remove, directory)

    async def _end_forsaken(self) -> None:
        """Processes that outlived a node which died."""
        if not self._ephemeral and self.directory.exists():
            left = Runtime(self.directory, ephemeral=True)
            await left.start()
            await left.stop(0)

    def _logs(self, namespace: str, pod: str, container: str, previous: bool, wanted: Wanted) -> Any:
        try:
            life = self.pod(f"{namespace}/{pod}")
        except NotFound:
            return NoLog(404, f'pod "{pod}" does not exist')
        if (found := life.lives.get(container)) is None:
            return NoLog(404, f'container "{container}" not found in pod "{pod}"')
        run = found.logged(previous=previous)
        if run is None and previous:
            return NoLog(400, f'previous terminated container "{container}" in pod "{pod}" not found')
        state = found.container.state
        if run is None and isinstance(state, Waiting):
            return NoLog(400, f'container "{container}" in pod "{pod}" is waiting to start: {state.reason}')
        if run is None:
            return NoLog(400, f'container "{container}" in pod "{pod}" is not available')
        path = self._services.pod_directory(life.uid) / "containers" / container / f"{run.number}.log"
        return read(self.runtime, run.id, path, wanted)
