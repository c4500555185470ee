"""Nodes that are lost: what the node lifecycle and pod garbage collection controllers then do to pods."""

from __future__ import annotations

from flyte_unified.testing.fake_kube.api import Api, Call, Deletion
from flyte_unified.testing.fake_kube.metadata import timestamp
from flyte_unified.testing.fake_kube.resources import Object, Registry, Resource
from flyte_unified.testing.fake_kube.store import Record, Store
from flyte_unified.testing.fake_kube.subresources import set_condition

_UNREACHABLE = "node.kubernetes.io/unreachable"
_CALL = Call(manager="kube-controller-manager")


class Nodes:
    def __init__(self, *, api: Api, store: Store, registry: Registry) -> None:
        self._api = api
        self._store = store
        pods, nodes = registry.named("pods"), registry.named("nodes")
        assert pods is not None and nodes is not None
        self._pods: Resource = pods
        self._nodes: Resource = nodes

    def lose(self, name: str) -> None:
        """The node's kubelet is silent: it is not ready, and its pods are deleted, which nobody there confirms.

        What takes a cluster minutes (the grace of the heartbeat, the pods' tolerations) is done at once.
        """
        record = self._api.get(self._nodes, ("", name))
        node = record.object()
        message = "Kubelet stopped posting node status."
        set_condition(node, "Ready", "Unknown", reason="NodeStatusUnknown", message=message)
        taints = node.setdefault("spec", {}).setdefault("taints", [])
        for effect in ("NoSchedule", "NoExecute"):
            if not any(one["key"] == _UNREACHABLE and one["effect"] == effect for one in taints):
                taints.append({"key": _UNREACHABLE, "effect": effect, "timeAdded": timestamp()})
        self._api.write(self._nodes, record, node, _CALL)
        for pod in self._on(name):
            self._leave(pod, name)

    def _leave(self, record: Record, node: str) -> None:
        pod = record.object()
        if pod["status"].get("phase") in ("Succeeded", "Failed"):
            return
        set_condition(pod, "Ready", "False", reason="NodeNotReady", message="Node is not ready")
        message = "Taint manager: deleting due to NoExecute taint"
        set_condition(pod, "DisruptionTarget", "True", reason="DeletionByTaintManager", message=message)
        pod["status"]["reason"] = "NodeLost"
        pod["status"]["message"] = f"Node {node} which was running pod {record.key[1]} is unresponsive"
        self._api.write(self._pods, record, pod, _CALL)
        self._api.delete(self._pods, record.key, Deletion(), _CALL)

    def remove(self, name: str) -> None:
        """The node is gone for good, and with it, at once, its pods."""
        self._api.delete(self._nodes, ("", name), Deletion(), _CALL)
        for record in self._on(name):
            pod = record.object()
            if pod["status"].get("phase") not in ("Succeeded", "Failed"):
                message = "PodGC: node no longer exists"
                set_condition(pod, "DisruptionTarget", "True", reason="DeletionByPodGC", message=message)
                pod["status"]["phase"] = "Failed"
                self._api.write(self._pods, record, pod, _CALL)
            self._api.delete(self._pods, record.key, Deletion(grace=0), _CALL)

    def _on(self, name: str) -> list[Record]:
        records = self._store.shelf(self._pods.shelf).records.values()
        return [record for record in records if _node_of(record.object()) == name]


def _node_of(pod: Object) -> str:
    return str(pod["spec"].get("nodeName", ""))
