"""How an app is, from its Deployment and its pods. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from flyte_unified.apps.cluster.manifests import DEPLOYED, annotation, deployed, is_ready
from flyte_unified.apps.model import App, Phase, Substate, Told
from flyte_unified.kube.kinds import Object
from flyte_unified.plugins.pods import reading
from flyte_unified.plugins.pods.serving import asked_at
from flyte_unified.plugins.pods.waiting import PULLS

_CRASHES = "CrashLoopBackOff"
"""What a node says of a container that ended again soon after its start. It is tried further."""
_LONGEST_WORDS = 500
_FAILED, _DEPLOYING = Phase.DEPLOYMENT_STATUS_FAILED, Phase.DEPLOYMENT_STATUS_DEPLOYING
_WOKEN = frozenset({Substate.SCALED_TO_ZERO, Substate.SCALING_FROM_ZERO})


def status(app: App, deployment: Object | None, pods: Sequence[Object], *, asleep: bool) -> Told | None:
    """What is to be said of it; None: nothing new."""
    if not app.wanted:
        return Told(phase=Phase.DEPLOYMENT_STATUS_STOPPED) if not pods else None
    current = current_of(app, pods)
    if ready := sum(map(is_ready, current)):
        return Told(phase=Phase.DEPLOYMENT_STATUS_ACTIVE, substate=Substate.RUNNING, replicas=ready)
    if asleep:
        return Told(phase=Phase.DEPLOYMENT_STATUS_ACTIVE, substate=Substate.SCALED_TO_ZERO)
    return starting(app, current, failed=_failed(deployment))


def current_of(app: App, pods: Sequence[Object]) -> list[Object]:
    """Those that are made as the app is now, and stay."""
    return [pod for pod in pods if annotation(pod, DEPLOYED) == deployed(app) and "deletionTimestamp" not in pod["metadata"]]


def starting(app: App, current: Sequence[Object], *, failed: Told | None) -> Told | None:
    """The same of pods none of which is ready. ``failed`` is what is said of all of them together."""
    troubles = [trouble for pod in current if (trouble := _trouble(pod)) is not None]
    if troubles:
        told = min(troubles, key=lambda told: told.phase != _FAILED)
        return told if told.phase != _DEPLOYING or app.phase != _FAILED else None  # one try more changes nothing
    if any(_pulls(pod) for pod in current):  # once more: it may pass, and it may not
        return None
    if failed is not None:
        return _why(app, current, failed)
    if app.substate in _WOKEN:
        return Told(phase=Phase.DEPLOYMENT_STATUS_ACTIVE, substate=Substate.SCALING_FROM_ZERO)
    return Told(phase=_DEPLOYING, substate=Substate.INITIALIZING)


def _why(app: App, current: Sequence[Object], failed: Told) -> Told | None:
    """A failure that pods had no word of, but their silence. Those that were taken away have said why."""
    if not current:
        return failed if app.phase != _FAILED else None
    running = next((pod for pod in current if reading.read(pod).phase == "Running"), None)
    if running is None:
        return failed
    port, _ = asked_at(running)
    return replace(failed, message=short(f"its pod runs, but is not ready at port {port}: {failed.message}"))


def _trouble(pod: Object) -> Told | None:
    facts = reading.read(pod)
    scheduled = facts.conditions.get("PodScheduled")
    if scheduled is not None and scheduled.status == "False":
        return Told(phase=Phase.DEPLOYMENT_STATUS_PENDING, message=short(f"{scheduled.reason}: {scheduled.message}"))
    for container in (*facts.inits, facts.main, *facts.others):
        if container is None or container.waiting is None:
            continue
        reason, message = container.waiting
        if reason == "InvalidImageName" or reason in PULLS:
            words = short(f"image {container.image!r} can't be had: {message or reason}")
            return Told(phase=_FAILED, substate=Substate.IMAGE_PULL_ERROR, message=words)
        if reason == "CreateContainerConfigError":
            words = short(f"container {container.name!r}: {message}")
            return Told(phase=_FAILED, substate=Substate.SECRET_MOUNT_ERROR, message=words)
    statuses = reading.mapping(pod.get("status"))
    told = [
        _ended(one) for kind in ("initContainerStatuses", "containerStatuses") for one in reading.mappings(statuses.get(kind))
    ]
    return next((one for one in told if one is not None), None)


def _ended(container: Mapping[str, Any]) -> Told | None:
    """Of a container that ended, and is or will be started again. The end of its log is its message."""
    now, before = (reading.mapping(container.get(state)).get("terminated") for state in ("state", "lastState"))
    ended = reading.mapping(now or before)
    code = reading.whole(ended.get("exitCode"))
    if not ended or (now and not code):  # an init container that is done
        return None
    last = next((line for line in reversed(reading.text(ended.get("message")).splitlines()) if line.strip()), "")
    words = f"exit code {code}{f': {last.strip()}' if last else ''}"
    if ended.get("reason") == "OOMKilled":
        words = f"its memory limit was not enough ({words})"
        return Told(phase=_FAILED, substate=Substate.OOM_KILLED, message=short(words))
    if reading.mapping(reading.mapping(container.get("state")).get("waiting")).get("reason") == _CRASHES:
        return Told(phase=_FAILED, substate=Substate.CRASH_LOOP, message=short(words))
    return Told(phase=_DEPLOYING, substate=Substate.INITIALIZING, message=short(words))


def _failed(deployment: Object | None) -> Told | None:
    """A Deployment that can make no pods, or whose pods don't listen in time."""
    conditions = reading.mappings(reading.mapping((deployment or {}).get("status")).get("conditions"))
    for condition in conditions:
        kind, value = condition.get("type"), condition.get("status")
        if (kind, value) in (("ReplicaFailure", "True"), ("Progressing", "False")):
            return Told(phase=_FAILED, message=short(reading.text(condition.get("message"))))
    return None


def _pulls(pod: Object) -> bool:
    facts = reading.read(pod)
    containers = (*facts.inits, *facts.others, *((facts.main,) if facts.main is not None else ()))
    return any(container.waiting is not None and container.waiting[0] == "ErrImagePull" for container in containers)


def short(words: str) -> str:
    """As much of them as a status holds."""
    return words[:_LONGEST_WORDS]
