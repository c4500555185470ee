"""The life of one pod on this node, from its binding to the deletion of its object; ``PodLife.run`` reads top to bottom.

What the API server says of the pod comes in by ``update`` and ``gone`` and is a level, not an edge: the present object decides,
however many changes led to it. What the node does to a pod (eviction, the deadline, its own shutdown) is a ``Verdict``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog

from flyte_unified.core.clock import SECOND, Micros
from flyte_unified.kube.errors import Missing
from flyte_unified.kube.kinds import CONFIG_MAPS, PODS, SECRETS, Object
from flyte_unified.testing.kubelet import environment, volumes
from flyte_unified.testing.kubelet.container import ContainerLife, Home
from flyte_unified.testing.kubelet.environment import LOOPBACK, Sources
from flyte_unified.testing.kubelet.services import Services, insist
from flyte_unified.testing.kubelet.status import Container, Facts, Running, Terminated, Verdict, Waiting, pod_status
from flyte_unified.testing.kubelet.writer import StatusWriter

_log = structlog.get_logger(__name__)
_INITIALIZING = Waiting("PodInitializing")
_LEAST = 1.0
"""Seconds that the containers of a deleted pod have in any case."""
_TERMINAL = ("Succeeded", "Failed")
_DEADLINE = Verdict("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")


class PodLife:
    """One pod. ``on_end`` is called when nothing of it is left."""

    def __init__(self, pod: Object, services: Services, *, on_end: Callable[[PodLife], None]) -> None:
        self.pod = pod
        self.uid: str = pod["metadata"]["uid"]
        self._services = services
        self._on_end = on_end
        self._spec = pod["spec"]
        status = pod.get("status") or {}
        started = _micros(status["startTime"]) if status.get("startTime") else services.clock.now()
        address = status.get("podIP") or (services.network.address() if services.network else LOOPBACK)
        self._facts = Facts(started, address, conditions=status.get("conditions") or [])
        self._over: str = status["phase"] if status.get("phase") in _TERMINAL else ""
        waiting = _INITIALIZING if self._spec.get("initContainers") else Waiting("ContainerCreating")
        self._containers = [_container(spec, role, status, waiting=waiting) for role, spec in _roles(self._spec)]
        self._places: dict[str, Path] = {}
        home = Home({**pod, "status": {**status, "podIP": address}}, self._places, self._sources, self._changed)
        self.lives = {c.name: ContainerLife(c, home, services) for c in self._containers}
        self._ending = asyncio.Event()
        self._grace: float | None = None
        self._absent = asyncio.Event()
        self._deleted = asyncio.Event()
        self._done = asyncio.Event()
        self._hurries: set[asyncio.Task[None]] = set()
        self._writer = StatusWriter(pod, self._status, kube=services.kube, pace=services.pace)
        self.task = asyncio.create_task(self._guarded(), name=f"pod {pod['metadata']['namespace']}/{pod['metadata']['name']}")
        self.update(pod)

    # What others say

    def update(self, pod: Object) -> None:
        """The object as it is now."""
        self.pod = pod
        status = pod.get("status") or {}
        self._facts.conditions = status.get("conditions") or []
        if not self._over:
            self._writer.overwritten(pod)
        if pod["metadata"].get("deletionTimestamp"):
            grace = pod["metadata"].get("deletionGracePeriodSeconds")
            self._deleted.set()
            self._end(max(_LEAST, grace if grace is not None else self._spec_grace()))

    def gone(self) -> None:
        """There is no such object any more."""
        self._absent.set()
        self._writer.gone.set()
        self._deleted.set()
        self._end(max(_LEAST, self._grace if self._grace is not None else self._spec_grace()))

    def judge(self, verdict: Verdict, *, grace: float) -> None:
        """End the pod as failed, for a reason of the node's. One that has ended keeps its end."""
        if not self._over and self._facts.verdict is None and not self._ending.is_set():
            self._facts.verdict = verdict
            self._end(grace)

    async def leave(self) -> None:
        """Stop caring; the processes are not touched."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def finished(self) -> None:
        """The containers have ended and the API knows, or the pod is gone."""
        await self._done.wait()

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to do for it."""
        return self.task.done()

    # Its life

    async def _guarded(self) -> None:
        try:
            await self._run()
        except Exception:
            _log.exception("a pod's life failed", pod=self.pod["metadata"]["name"])
        finally:
            await _cancelled(*self._hurries)
            await self._writer.stop()
            self._done.set()
        self._on_end(self)

    async def _run(self) -> None:
        if not self._over:
            self._changed()
            deadline = asyncio.create_task(self._deadline(), name="deadline")
            try:
                await self._until_ending(self._work())
            finally:
                await _cancelled(deadline)
            if self._ending.is_set():
                await self._stop_all()
            self._facts.stopping = True
            self._over = str(self._status()["phase"])
            self._changed()
            await self._writer.settled()
        self._done.set()
        await self._deleted.wait()
        await self._delete()
        for life in self.lives.values():
            life.forget()
        await asyncio.to_thread(volumes.remove, self._services.pod_directory(self.uid))
        if self._services.network is not None:
            await self._services.network.remove(self._facts.address)

    async def _until_ending(self, work: Coroutine[Any, Any, None]) -> None:
        working = asyncio.create_task(work, name="containers")
        ending = asyncio.create_task(self._ending.wait(), name="ending")
        try:
            await asyncio.wait({working, ending}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
        finally:
            await _cancelled(working, ending)

    async def _work(self) -> None:
        """Returns when every container has ended for good."""
        await self._services.gate.wait()
        await self._set_up()
        sidecars: list[asyncio.Task[None]] = []
        try:
            await self._run_in_order(sidecars)
        finally:
            await _cancelled(*sidecars)
        await self._stop("sidecar", self._spec_grace())

    async def _run_in_order(self, sidecars: list[asyncio.Task[None]]) -> None:
        for container in self._containers:
            life = self.lives[container.name]
            if container.role == "init":
                await life.run()
                if not container.succeeded:
                    return
            elif container.role == "sidecar":
                sidecars.append(asyncio.create_task(life.run(), name=f"sidecar {container.name}"))
                await life.up.wait()
        async with asyncio.TaskGroup() as group:
            for container in self._containers:
                if container.role == "main":
                    if container.state == _INITIALIZING:
                        container.state = Waiting("ContainerCreating")
                    group.create_task(self.lives[container.name].run(), name=f"container {container.name}")

    async def _stop_all(self) -> None:
        """Containers first, sidecars after them in the opposite order of their start, as long as the grace lasts."""
        self._facts.stopping = True
        begun = self._services.clock.monotonic()
        grace = self._grace if self._grace is not None else self._spec_grace()
        await asyncio.gather(*(self.lives[c.name].stop(grace) for c in self._containers if c.role != "sidecar"))
        await self._stop("sidecar", max(1.0, grace - (self._services.clock.monotonic() - begun)) if grace else 0.0)
        if all(
            c.succeeded if c.role == "init" else isinstance(c.state, Terminated) for c in self._containers if c.role != "main"
        ):
            for life in self.lives.values():
                life.lose()

    async def _stop(self, role: str, grace: float) -> None:
        for container in reversed(self._containers):
            if container.role == role:
                await self.lives[container.name].stop(grace)

    async def _deadline(self) -> None:
        seconds = self._spec.get("activeDeadlineSeconds")
        if seconds is None:
            return
        await asyncio.sleep(max(0.0, seconds - (self._services.clock.now() - self._facts.started_at) / SECOND))
        self._services.events.say(self.pod, _DEADLINE.reason, _DEADLINE.message)
        self.judge(_DEADLINE, grace=self._spec_grace())

    async def _delete(self) -> None:
        """The last word of a kubelet: the object is deleted without grace."""
        name, namespace = self.pod["metadata"]["name"], self.pod["metadata"]["namespace"]
        delete = self._services.kube.delete
        deleting = asyncio.create_task(
            insist(lambda: delete(PODS, name, namespace=namespace, uid=self.uid, grace=0), self._services.pace),
            name=f"delete {namespace}/{name}",
        )
        absent = asyncio.create_task(self._absent.wait(), name="absent")
        try:
            await asyncio.wait({deleting, absent}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _cancelled(deleting, absent)

    # Volumes and references

    async def _set_up(self) -> None:
        if self._services.runtime.mount_refusal and volumes.mapped(self.pod):
            why = f"this node cannot give containers their volumes: {self._services.runtime.mount_refusal}"
            self._services.events.say(self.pod, "UnexpectedAdmissionError", why, warning=True)
            self.judge(Verdict("UnexpectedAdmissionError", f"Pod was rejected: {why}"), grace=0)
            await asyncio.Event().wait()
        if self._services.network is not None:
            await self._services.network.add(self._facts.address)
        directory = self._services.pod_directory(self.uid) / "volumes"
        for volume in volumes.used(self.pod):
            await self._set_up_one(volume, directory)

    async def _set_up_one(self, volume: Object, directory: Path) -> None:
        """Returns when the volume is there, and what it is made of before it."""
        while True:
            sources = await self._sources()
            try:
                self._places[volume["name"]] = await asyncio.to_thread(
                    volumes.set_up, volume, directory, pod=self.pod, sources=sources, capacity=self._services.allocatable
                )
            except volumes.MountError as error:
                self._services.events.say(self.pod, "FailedMount", error.message, warning=True)
            else:
                return
            await asyncio.sleep(self._services.pace.retry)

    async def _sources(self) -> Sources:
        """What the pod refers to, read now."""
        found = Sources()
        for kind, name in environment.references(self.pod):
            found.data[kind, name] = await self._read(kind, name)
        return found

    async def _read(self, kind: str, name: str) -> dict[str, bytes] | None:
        where = SECRETS if kind == "Secret" else CONFIG_MAPS
        namespace = self.pod["metadata"]["namespace"]
        try:
            obj = await insist(lambda: self._services.kube.get(where, name, namespace=namespace), self._services.pace)
        except Missing:
            return None
        return environment.decoded({**obj, "kind": kind})

    # Its status

    def _end(self, grace: float) -> None:
        """The containers are to end, within ``grace`` seconds; a shorter grace overrules a longer one."""
        if self._ending.is_set() and self._grace is not None and grace < self._grace:
            for life in self.lives.values():
                task = asyncio.get_running_loop().create_task(life.hurry(grace), name="hurry")
                self._hurries.add(task)
                task.add_done_callback(self._hurries.discard)
        self._grace = grace if self._grace is None else min(grace, self._grace)
        self._ending.set()

    def _changed(self) -> None:
        self._writer.changed()

    def _status(self) -> Object:
        gates = [gate["conditionType"] for gate in self._spec.get("readinessGates") or ()]
        policy = self._spec.get("restartPolicy", "Always")
        return pod_status(self._containers, self._facts, policy=policy, gates=gates, now=self._services.clock.now())

    def _spec_grace(self) -> float:
        return float(self._spec.get("terminationGracePeriodSeconds", 30))


def _roles(spec: Object) -> list[tuple[str, Object]]:
    inits = [("sidecar" if c.get("restartPolicy") == "Always" else "init", c) for c in spec.get("initContainers") or ()]
    return [*inits, *(("main", c) for c in spec["containers"])]


def _container(spec: Object, role: Any, status: Object, *, waiting: Waiting) -> Container:
    """A container as the API knows it from an earlier kubelet; a new one waits."""
    container = Container(spec, role, waiting)
    statuses = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    known = next((shown for shown in statuses if shown["name"] == spec["name"]), None)
    if known is None:
        return container
    container.restarts = known.get("restartCount", 0)
    container.container_id = known.get("containerID", "")
    state = known.get("state") or {}
    if ended := state.get("terminated"):
        container.state = _terminated(ended)
    elif running := state.get("running"):
        container.state = Running(_micros(running["startedAt"]))
    if ended := (known.get("lastState") or {}).get("terminated"):
        container.last = _terminated(ended)
    return container


def _terminated(shown: Object) -> Terminated:
    times = [Micros(0) if not shown.get(key) else _micros(shown[key]) for key in ("startedAt", "finishedAt")]
    return Terminated(
        shown["exitCode"], shown.get("reason", ""), times[0], times[1], shown.get("message", ""), shown.get("containerID", "")
    )


def _micros(text: str) -> Micros:
    return Micros(int(datetime.fromisoformat(text).timestamp() * SECOND))


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
