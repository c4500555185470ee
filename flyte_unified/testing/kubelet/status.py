"""What a pod's status says, from what its containers are: pure, as the kubelet derives it (pkg/kubelet/status/generate.go).

A container is one record, changed by the task that runs it (``container``); everything that the API shows is made here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from flyte_unified.core.clock import SECOND, Micros
from flyte_unified.testing.kubelet.environment import LOOPBACK, Object

Role = Literal["init", "sidecar", "main"]

UNKNOWN = "ContainerStatusUnknown"
_UNREADY = "ContainersNotReady"


def stamp(at: int) -> str:
    """``at`` (microseconds since the epoch) as metav1.Time has it, to the second."""
    return datetime.fromtimestamp(at // SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Waiting:
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Running:
    at: Micros


@dataclass(frozen=True, slots=True)
class Terminated:
    """The end of one run. Times are microseconds since the epoch."""

    exit_code: int
    reason: str
    started_at: Micros
    finished_at: Micros
    message: str = ""
    container_id: str = ""


@dataclass(slots=True)
class Container:
    """One container of a pod, over all of its runs."""

    spec: Object
    role: Role
    state: Waiting | Running | Terminated = Waiting("ContainerCreating")
    last: Terminated | None = None
    """How the run before this one ended."""
    restarts: int = 0
    container_id: str = ""
    started: bool = False
    """It runs, and its startup probe, if any, has succeeded."""
    ready: bool = False
    retried: bool = False
    """It has ended, and will run again."""

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    @property
    def succeeded(self) -> bool:
        return isinstance(self.state, Terminated) and self.state.exit_code == 0

    def show(self) -> Object:
        """As ContainerStatus."""
        shown: Object = {
            "name": self.name,
            "image": self.spec.get("image", ""),
            "imageID": self.spec.get("image", "") if self.container_id else "",
            "restartCount": self.restarts,
            "ready": self.succeeded if self.role == "init" else self.ready,
            "started": self.started,
            "state": _state(self.state),
            "lastState": _state(self.last) if self.last else {},
        }
        if self.container_id:
            shown["containerID"] = self.container_id
        return shown


@dataclass(frozen=True, slots=True)
class Verdict:
    """An end that the node gave to the whole pod. ``disruption``: the reason of a DisruptionTarget condition, if any."""

    reason: str
    message: str
    disruption: str = ""


@dataclass(slots=True)
class Facts:
    """What is true of the pod as a whole."""

    started_at: Micros
    address: str = LOOPBACK
    stopping: bool = False
    """Nothing will be started any more."""
    verdict: Verdict | None = None
    conditions: list[Object] = field(default_factory=list)
    """As the API has them: what is not ours is kept, and a time changes only with its condition."""


def phase(containers: Sequence[Container], *, policy: str, stopping: bool) -> str:
    """The pod's phase. ``policy`` is its restart policy."""
    inits = [c for c in containers if c.role == "init"]
    mains = [c for c in containers if c.role == "main"]
    alive = any(isinstance(c.state, Running) for c in containers)
    if stopping:
        if alive:
            return "Running" if any(c.restarts or not isinstance(c.state, Waiting) for c in mains) else "Pending"
        return "Succeeded" if all(c.succeeded for c in mains) else "Failed"
    for container in inits:
        if isinstance(container.state, Terminated) and not container.succeeded and not container.retried:
            return "Pending" if alive else "Failed"
    late = [c for c in containers if c.role == "sidecar" and not c.started and not c.restarts]
    if (late or any(not c.succeeded for c in inits)) and all(isinstance(c.state, Waiting) for c in mains):
        return "Pending"
    if any(isinstance(c.state, Waiting) and not c.retried for c in mains):
        return "Pending"
    if alive or policy == "Always" or any(c.retried for c in mains):
        return "Running"
    return "Succeeded" if all(c.succeeded for c in mains) else "Failed"


def pod_status(containers: Sequence[Container], facts: Facts, *, policy: str, gates: Sequence[str] = (), now: Micros) -> Object:
    """The status as the kubelet writes it. ``gates`` are the conditions that readiness waits for."""
    shown = phase(containers, policy=policy, stopping=facts.stopping)
    status: Object = {
        "phase": shown,
        "hostIP": LOOPBACK,
        "hostIPs": [{"ip": LOOPBACK}],
        "podIP": facts.address,
        "podIPs": [{"ip": facts.address}],
        "startTime": stamp(facts.started_at),
        "conditions": _conditions(containers, facts, shown, gates, now),
        "containerStatuses": [c.show() for c in containers if c.role == "main"],
    }
    if inits := [c.show() for c in containers if c.role != "main"]:
        status["initContainerStatuses"] = inits
    if facts.verdict is not None:
        status |= {"reason": facts.verdict.reason, "message": facts.verdict.message}
    return status


def _conditions(containers: Sequence[Container], facts: Facts, shown: str, gates: Sequence[str], now: Micros) -> list[Object]:
    before: Mapping[str, Object] = {condition["type"]: condition for condition in facts.conditions}
    done = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(shown, "")
    incomplete = [c.name for c in containers if c.role != "main" and not (c.succeeded if c.role == "init" else c.started)]
    unready = [c.name for c in containers if c.role != "init" and not c.ready]
    pending = [gate for gate in gates if before.get(gate, {}).get("status") != "True"]
    fresh: dict[str, Object] = {"PodScheduled": {"status": "True"}}
    if incomplete and done != "PodCompleted":
        fresh["Initialized"] = _false("ContainersNotInitialized", "containers with incomplete status", incomplete)
    else:
        fresh["Initialized"] = {"status": "True"} | ({"reason": done} if done == "PodCompleted" else {})
    if done:
        fresh["ContainersReady"] = fresh["Ready"] = {"status": "False", "reason": done}
    elif unready:
        fresh["ContainersReady"] = fresh["Ready"] = _false(_UNREADY, "containers with unready status", unready)
    else:
        fresh["ContainersReady"] = fresh["Ready"] = {"status": "True"}
        if pending:
            fresh["Ready"] = _false("ReadinessGatesNotReady", "corresponding condition of pod readiness gate", pending)
    if facts.verdict is not None and facts.verdict.disruption:
        verdict = facts.verdict
        fresh["DisruptionTarget"] = {"status": "True", "reason": verdict.disruption, "message": verdict.message}
    kept = [condition for name, condition in before.items() if name not in fresh]
    return kept + [_timed(name, condition, before.get(name), now) for name, condition in fresh.items()]


def _timed(name: str, condition: Object, before: Object | None, now: Micros) -> Object:
    same = before is not None and before.get("status") == condition["status"]
    at = before["lastTransitionTime"] if same and before and before.get("lastTransitionTime") else stamp(now)
    return {"type": name, **condition, "lastTransitionTime": at}


def _false(reason: str, text: str, names: Sequence[str]) -> Object:
    return {"status": "False", "reason": reason, "message": f"{text}: [{' '.join(names)}]"}


def _state(state: Waiting | Running | Terminated) -> dict[str, Any]:
    if isinstance(state, Waiting):
        return {"waiting": {"reason": state.reason} | ({"message": state.message} if state.message else {})}
    if isinstance(state, Running):
        return {"running": {"startedAt": stamp(state.at)}}
    shown: Object = {
        "exitCode": state.exit_code,
        "reason": state.reason,
        "startedAt": stamp(state.started_at),
        "finishedAt": stamp(state.finished_at),
    }
    if state.container_id:
        shown["containerID"] = state.container_id
    if state.message:
        shown["message"] = state.message
    return {"terminated": shown}
