"""What a cluster's controllers do when a node falls silent, for API servers that have no controllers."""

from __future__ import annotations

import contextlib

from flyte_unified.core.clock import Clock, SystemClock
from flyte_unified.kube.client import Kube
from flyte_unified.kube.errors import Missing
from flyte_unified.kube.kinds import NODES, PODS, Object
from flyte_unified.testing.kubelet.status import stamp

_UNREACHABLE = "node.kubernetes.io/unreachable"
_SILENT = "Kubelet stopped posting node status."


async def lose(kube: Kube, node: str, *, evict: bool = True, collect: bool = False, clock: Clock | None = None) -> None:
    """The node lifecycle controller finds ``node`` unreachable. With ``evict`` its pods' toleration is over too: they are
    marked and deleted, and stay, as nobody is there to end them. ``collect`` plays the collector, which removes such pods.
    """
    now = stamp((clock or SystemClock()).now())
    obj = await kube.get(NODES, node)
    conditions = [
        {**c, "status": "Unknown", "reason": "NodeStatusUnknown", "message": _SILENT, "lastTransitionTime": now}
        for c in obj["status"]["conditions"]
    ]
    await kube.patch(NODES, node, {"status": {"conditions": conditions}}, subresource="status")
    others = [taint for taint in obj["spec"].get("taints") or () if taint["key"] != _UNREACHABLE]
    taints = [{"key": _UNREACHABLE, "effect": effect, "timeAdded": now} for effect in ("NoSchedule", "NoExecute")]
    await kube.patch(NODES, node, {"spec": {"taints": others + taints}})
    async for pods, _ in kube.pages(PODS, fields=f"spec.nodeName={node}"):
        for pod in pods:
            with contextlib.suppress(Missing):
                await _lose_pod(kube, pod, now, evict=evict, collect=collect)


async def _lose_pod(kube: Kube, pod: Object, now: str, *, evict: bool, collect: bool) -> None:
    metadata, status = pod["metadata"], pod.get("status") or {}
    name, namespace, uid = metadata["name"], metadata["namespace"], metadata["uid"]
    marks = {"Ready": {"type": "Ready", "status": "False", "lastTransitionTime": now}}
    change: Object = {}
    if evict or collect:
        reason, message = "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint"
        if collect:
            reason, message = "DeletionByPodGC", "PodGC: node no longer exists"
            change = {"phase": status["phase"] if status.get("phase") == "Succeeded" else "Failed"}
        mark = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message, "lastTransitionTime": now}
        marks["DisruptionTarget"] = mark
    conditions = [c for c in status.get("conditions") or () if c["type"] not in marks]
    change["conditions"] = [*conditions, *marks.values()]
    await kube.patch(PODS, name, {"metadata": {"uid": uid}, "status": change}, namespace=namespace, subresource="status")
    if evict or collect:
        await kube.delete(PODS, name, namespace=namespace, uid=uid, grace=0 if collect else None)
