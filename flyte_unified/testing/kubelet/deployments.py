"""Makes pods of Deployments, for API servers that have no controllers.

There are no ReplicaSets between them, and no rolling: all pods of this node have one address, so those of the old template go
before the new ones come.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import structlog

from flyte_unified.kube.client import Kube
from flyte_unified.kube.errors import KubeError, Missing
from flyte_unified.kube.informer import Informer
from flyte_unified.kube.kinds import DEPLOYMENTS, PODS, Object, key_of
from flyte_unified.testing.kubelet.services import Backoff

_log = structlog.get_logger(__name__)
_HASH = "pod-template-hash"


class Deployments:
    """The controller of those of a cluster."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._deployments = Informer(kube, DEPLOYMENTS, on_event=self._hear)
        self._pods = Informer(kube, PODS, labels=_HASH, on_event=self._hear)
        self._news = asyncio.Event()
        self._backoff = Backoff(0.2, 5.0)
        self._created: dict[str, set[str]] = {}
        """Pods that were made and are not seen yet, by the Deployment's uid."""
        self._task: asyncio.Task[None] | None = None

    @classmethod
    @asynccontextmanager
    async def running(cls, kube: Kube) -> AsyncGenerator[Deployments]:
        controller = cls(kube)
        await controller._deployments.start()
        await controller._pods.start()
        controller._task = asyncio.create_task(controller._run(), name="deployment controller")
        try:
            yield controller
        finally:
            controller._task.cancel()
            await asyncio.gather(controller._task, return_exceptions=True)
            await controller._pods.stop()
            await controller._deployments.stop()

    def _hear(self, change: str, obj: Object) -> None:
        self._news.set()

    async def _run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self._collect()
                for deployment in list(self._deployments):
                    with contextlib.suppress(Missing):
                        await self._see_to(deployment)
                self._backoff.reset()
            except KubeError as error:
                _log.info("deployments have to wait", error=error.message)
                self._news.set()
                await asyncio.sleep(self._backoff.next())

    async def _collect(self) -> None:
        """Pods whose Deployment is gone."""
        uids = {deployment["metadata"]["uid"] for deployment in self._deployments}
        for pod in list(self._pods):
            if _owner(pod) not in uids and "deletionTimestamp" not in pod["metadata"]:
                await self._delete(pod)

    async def _see_to(self, deployment: Object) -> None:
        metadata, spec = deployment["metadata"], deployment["spec"]
        digest = hashlib.sha256(orjson.dumps(spec["template"], option=orjson.OPT_SORT_KEYS)).hexdigest()[:10]
        pods = [pod for pod in self._pods if _owner(pod) == metadata["uid"]]
        created = self._created.setdefault(metadata["uid"], set())
        created -= {pod["metadata"]["name"] for pod in pods}
        live = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        over = [pod for pod in live if (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded")]
        current = [pod for pod in live if pod["metadata"]["labels"][_HASH] == digest and pod not in over]
        for pod in [pod for pod in live if pod not in current] + current[spec["replicas"] :]:
            await self._delete(pod)
        if len(pods) == len(current):
            for _ in range(spec["replicas"] - len(current) - len(created)):
                made = await self._kube.create(PODS, _pod(deployment, digest))
                created.add(made["metadata"]["name"])
        await self._report(deployment, current)

    async def _delete(self, pod: Object) -> None:
        namespace, name = key_of(pod)
        with contextlib.suppress(Missing):
            await self._kube.delete(PODS, name, namespace=namespace, uid=pod["metadata"]["uid"])

    async def _report(self, deployment: Object, pods: list[Object]) -> None:
        metadata, wanted = deployment["metadata"], deployment["spec"]["replicas"]
        ready = sum(map(_ready, pods))
        status: dict[str, Any] = {
            "observedGeneration": metadata["generation"],
            "replicas": len(pods),
            "updatedReplicas": len(pods),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "unavailableReplicas": wanted - ready,
        }
        if any((deployment.get("status") or {}).get(name, 0) != value for name, value in status.items()):
            namespace, name = key_of(deployment)
            await self._kube.patch(DEPLOYMENTS, name, {"status": status}, namespace=namespace, subresource="status")


def _pod(deployment: Object, digest: str) -> Object:
    metadata, template = deployment["metadata"], deployment["spec"]["template"]
    owner = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
    }
    labels = {**template["metadata"].get("labels", {}), _HASH: digest}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            **template["metadata"],
            "generateName": f"{metadata['name']}-{digest}-",
            "namespace": metadata["namespace"],
            "labels": labels,
            "ownerReferences": [owner],
        },
        "spec": template["spec"],
    }


def _owner(pod: Object) -> str:
    owners = pod["metadata"].get("ownerReferences") or [{}]
    return str(owners[0].get("uid", ""))


def _ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
