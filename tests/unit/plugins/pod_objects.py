"""Pods as an API server shows them in different moments of their lives, written for these tests."""

from __future__ import annotations

from typing import Any

from flyte_unified.core.clock import SECOND, Micros
from flyte_unified.plugins.pods.reading import moment

IMAGE = "registry.example.com/team/train:v7"


def at(seconds: int) -> str:
    """``seconds`` after the pod's creation, as Kubernetes writes it."""
    minutes, rest = divmod(seconds, 60)
    return f"2026-03-01T{10 + minutes // 60:02d}:{minutes % 60:02d}:{rest:02d}Z"


def micros(seconds: float) -> Micros:
    created = moment(at(0))
    assert created is not None
    return Micros(created + round(seconds * SECOND))


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason} | ({"message": message} if message else {})}


def running(since: int = 5) -> dict[str, Any]:
    return {"running": {"startedAt": at(since)}}


def ended(code: int, reason: str = "", message: str = "", *, started: int | None = 5, finished: int = 65) -> dict[str, Any]:
    times = (
        {"startedAt": at(started), "finishedAt": at(finished)}
        if started is not None
        else {"startedAt": None, "finishedAt": None}
    )
    told = reason or ("Completed" if code == 0 else "Error")
    identity = {"containerID": "containerd://5d5ac1e4ad5e"} if started is not None else {}
    return {"terminated": {"exitCode": code, "reason": told} | times | identity | ({"message": message} if message else {})}


def status(name: str, state: dict[str, Any], **more: Any) -> dict[str, Any]:
    runs = "running" in state
    return {
        "name": name,
        "image": IMAGE,
        "imageID": f"{IMAGE}@sha256:f00d" if "waiting" not in state else "",
        "lastState": {},
        "ready": runs,
        "restartCount": 0,
        "started": runs,
        "state": state,
    } | more


def condition(kind: str, value: str = "True", seconds: int = 1, reason: str = "", message: str = "") -> dict[str, Any]:
    told = {"reason": reason, "message": message} if reason else {}
    return {"type": kind, "status": value, "lastProbeTime": None, "lastTransitionTime": at(seconds)} | told


def disrupted(reason: str, seconds: int = 60, message: str = "") -> dict[str, Any]:
    return condition("DisruptionTarget", "True", seconds, reason, message or f"told by {reason}")


UNSCHEDULABLE = condition(
    "PodScheduled", "False", 1, "Unschedulable", "0/3 nodes are available: 3 Insufficient cpu. preemption: not helpful"
)
SCHEDULED = condition("PodScheduled", "True", 1)


def pod(
    main: dict[str, Any] | None = None,
    *,
    phase: str = "Running",
    node: str = "node-a",
    conditions: list[dict[str, Any]] | None = None,
    inits: dict[str, dict[str, Any]] | None = None,
    sidecars: dict[str, dict[str, Any]] | None = None,
    others: dict[str, dict[str, Any]] | None = None,
    reason: str = "",
    message: str = "",
    deleted: int | None = None,
    grace: int = 30,
    annotations: dict[str, str] | None = None,
    primary: str = "primary",
    env: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """``main`` is the state of the container ``primary``; ``inits``, ``sidecars`` and ``others`` are states by name."""
    early = {**(sidecars or {}), **(inits or {})}
    always = {name: {"restartPolicy": "Always"} for name in sidecars or {}}
    beside = others or {}
    gone = {"deletionTimestamp": at(deleted), "deletionGracePeriodSeconds": grace} if deleted is not None else {}
    told = {"reason": reason, "message": message} if reason else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "r1-a0-0-abc123",
            "namespace": "flyte",
            "uid": "0b9a1a64-6c9e-4b1e-8f50-3f8ad7b7c111",
            "resourceVersion": "4711",
            "creationTimestamp": at(0),
            "labels": {"run": "r1", "action": "a0"},
            "annotations": {"primary_container_name": primary} | (annotations or {}),
            **gone,
        },
        "spec": {
            "containers": [
                {"name": "primary", "image": IMAGE, "env": env or []},
                *({"name": name, "image": "proxy:1"} for name in beside),
            ],
            "initContainers": [{"name": name, "image": "init:1"} | always.get(name, {}) for name in early],
            "restartPolicy": "Never",
        }
        | ({"nodeName": node} if node else {}),
        "status": {
            "phase": phase,
            "qosClass": "Guaranteed",
            "conditions": conditions if conditions is not None else [SCHEDULED],
            "containerStatuses": [
                *([status("primary", main)] if main is not None else []),
                *(status(name, state) for name, state in beside.items()),
            ],
            "initContainerStatuses": [status(name, state) for name, state in early.items()],
        }
        | told,
    }
