"""The node as the API server knows it: its object, its lease, and their end (kubernetes.io, "Nodes")."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import psutil
import structlog

from flyte_unified import __version__
from flyte_unified.core.clock import SECOND, Clock
from flyte_unified.kube.client import Kube
from flyte_unified.kube.errors import Exists, KubeError, Missing
from flyte_unified.kube.kinds import LEASES, NAMESPACES, NODES, Object
from flyte_unified.testing.kubelet.services import Backoff, Pace
from flyte_unified.testing.kubelet.status import stamp

_log = structlog.get_logger(__name__)
_NAMESPACE = "kube-node-lease"
_CONDITIONS = (
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
)


def capacity_of_machine() -> dict[str, str]:
    """This machine's resources."""
    return {
        "cpu": str(os.cpu_count() or 1),
        "memory": f"{psutil.virtual_memory().total >> 10}Ki",
        "ephemeral-storage": f"{psutil.disk_usage('/').free >> 10}Ki",
        "pods": "1000",
    }


class Node:
    """``address`` and ``port`` are the kubelet's own, of its logs."""

    def __init__(
        self,
        kube: Kube,
        *,
        name: str,
        capacity: Mapping[str, str],
        labels: Mapping[str, str],
        taints: Sequence[Object],
        address: str,
        port: int,
        clock: Clock,
        pace: Pace,
    ) -> None:
        self.name = name
        self._kube = kube
        self._capacity = dict(capacity)
        self._labels = {
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": platform.system().lower(),
            "kubernetes.io/arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
            **labels,
        }
        self._taints = list(taints)
        self._address = address
        self._port = port
        self._clock = clock
        self._pace = pace
        self._ready_since = clock.now()
        self._task: asyncio.Task[None] | None = None
        self.object: Object = {}

    async def start(self) -> None:
        """Register, and go on showing that the node lives."""
        body = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.name, "labels": self._labels},
            "spec": {"taints": self._taints} if self._taints else {},
            "status": self._status(),
        }
        try:
            self.object = await self._kube.create(NODES, body)
        except Exists:
            self.object = await self._kube.get(NODES, self.name)
        await self._report()
        # A server that marks new nodes as unready leaves it to a controller to take the mark away; here is none.
        patch = {"metadata": {"labels": self._labels}, "spec": {"taints": self._taints}}
        self.object = await self._kube.patch(NODES, self.name, patch)
        await self._renew()
        self._task = asyncio.create_task(self._beat(), name=f"heartbeat of {self.name}")

    async def stop(self) -> None:
        """No more heartbeats; the object stays."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def remove(self) -> None:
        """The node has left the cluster."""
        await self.stop()
        for kind, namespace in ((NODES, ""), (LEASES, _NAMESPACE)):
            try:
                await self._kube.delete(kind, self.name, namespace=namespace)
            except Missing:
                continue

    async def _beat(self) -> None:
        reported = self._clock.monotonic()
        backoff = Backoff(self._pace.write, self._pace.renew)
        pause = self._pace.renew
        while True:
            await asyncio.sleep(pause)
            try:
                await self._renew()
                if self._clock.monotonic() - reported > self._pace.report:
                    await self._report()
                    reported = self._clock.monotonic()
            except KubeError as error:
                _log.warning("a heartbeat is not taken", node=self.name, error=error.message)
                pause = backoff.next()
            else:
                backoff.reset()
                pause = self._pace.renew

    async def _report(self) -> None:
        await self._kube.patch(NODES, self.name, {"status": self._status()}, subresource="status")

    async def _renew(self) -> None:
        now = datetime.fromtimestamp(self._clock.now() / SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": self.name, "leaseDurationSeconds": max(1, round(4 * self._pace.renew)), "renewTime": now}
        try:
            await self._kube.patch(LEASES, self.name, {"spec": spec}, namespace=_NAMESPACE)
        except Missing:
            await self._create_lease(spec)

    async def _create_lease(self, spec: Object) -> None:
        owner = {"apiVersion": "v1", "kind": "Node", "name": self.name, "uid": self.object["metadata"]["uid"]}
        metadata = {"name": self.name, "ownerReferences": [owner]}
        lease = {"apiVersion": LEASES.api_version, "kind": "Lease", "metadata": metadata, "spec": spec}
        try:
            await self._kube.create(LEASES, lease, namespace=_NAMESPACE)
        except Missing:
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _NAMESPACE}}
            await self._kube.create(NAMESPACES, namespace)
            await self._kube.create(LEASES, lease, namespace=_NAMESPACE)

    def _status(self) -> dict[str, Any]:
        beat, since = stamp(self._clock.now()), stamp(self._ready_since)
        return {
            "capacity": self._capacity,
            "allocatable": self._capacity,
            "conditions": [
                {"type": name, "status": status, "reason": reason, "message": message}
                | {"lastHeartbeatTime": beat, "lastTransitionTime": since}
                for name, status, reason, message in _CONDITIONS
            ],
            "addresses": [{"type": "InternalIP", "address": self._address}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._port}},
            "nodeInfo": {
                "machineID": "",
                "systemUUID": "",
                "bootID": "",
                "kernelVersion": platform.release(),
                "osImage": platform.platform(terse=True),
                "containerRuntimeVersion": f"process://{__version__}",
                "kubeletVersion": f"v1.33.0-flyte-unified-{__version__}",
                "kubeProxyVersion": "",
                "operatingSystem": platform.system().lower(),
                "architecture": self._labels["kubernetes.io/arch"],
            },
        }
