"""From a pod to what it tells of its attempt. Pure, and the same whenever the same end is looked at.

An attempt ends when its primary container does, be the pod still there because of other containers or long over. So the end
is read from that container first. What happened to the pod (evicted, preempted, its node shut down) explains the end only if
it came before: a pod that is evicted a minute after its task crashed has crashed.

Who pays: what the task or its author can change is the user's (memory and storage beyond its own limits, an image that isn't
there, a secret that isn't), the rest is the system's. A plain exit code is not judged here: the attempt's files say more.
Sources: Kubernetes' pod lifecycle and its API reference; kubelet's and scheduler's reasons.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flyte_unified.core.clock import SECOND, Micros
from flyte_unified.core.phases import Phase
from flyte_unified.ledger.api import Failure
from flyte_unified.plugins.api import Exit, Fault, State
from flyte_unified.plugins.pods.config import Patience
from flyte_unified.plugins.pods.reading import OURS, Container, Ended, Facts, read
from flyte_unified.plugins.pods.waiting import fault, progress

_POD_REASONS = {
    "NodeShutdown": "NodeShutdown",
    "Preempting": "Preempted",
    "Shutdown": "NodeShutdown",
    "Terminated": "NodeShutdown",
}
"""Codes for a pod's own reasons; another reason is its own code."""

_DISRUPTIONS = {
    "DeletionByPodGC": "NodeLost",
    "DeletionByTaintManager": "TaintEviction",
    "EvictionByEvictionAPI": "Evicted",
    "PreemptionByKubeScheduler": "Preempted",
    "PreemptionByScheduler": "Preempted",
    "TerminationByKubelet": "NodeShutdown",
}
"""Codes for the reasons of the condition DisruptionTarget."""

_OWN_FAULT = re.compile(r"exceed(s|ed) (the (total )?limit|its local ephemeral storage limit)")
"""What kubelet says when a container used more than it may, in distinction to a node that ran low."""
_NO_PROGRAM = re.compile(
    r"executable file not found|no such file or directory|permission denied|exec format error|is a directory|not a directory"
)
_START_ERRORS = frozenset({"StartError", "ContainerCannotRun"})


def state(pod: Mapping[str, Any], *, now: Micros, config: Patience) -> State:
    """What ``pod`` (a core v1 Pod as JSON) tells at ``now``. Never raises, whatever the pod."""
    facts = read(pod)
    seen = _state(pod, facts, now=now, config=config)
    ending = seen.exit
    if not facts.uploader or ending is None or ending.fault is None or ending.code == 0:
        return seen
    # Whatever ends the pod ends the uploader too, and it stores what it finds.
    return replace(seen, exit=replace(ending, fault=replace(ending.fault, certain=True)))


def _state(pod: Mapping[str, Any], facts: Facts, *, now: Micros, config: Patience) -> State:
    if facts.main is not None and (end := facts.main.ended) is not None:
        if facts.uploader and not facts.over and (running := _storing(facts, now, config)) is not None:
            return running
        return _primary_ended(facts, end)
    if facts.phase == "Succeeded":
        return State(phase=Phase.RUNNING, since=_last(facts), exit=Exit(code=0))
    if facts.phase == "Failed" or _failed_init(facts) is not None:
        return _never_ended(facts)
    if facts.main is None and (facts.phase or facts.node):
        why = f"the pod has no container named {facts.primary!r}, which is to be its primary one"
        return _over(facts, fault("PrimaryContainerNotFound", why, Failure.USER, retryable=False))
    if facts.deleted is not None and (lost := _lost(facts, now, config)) is not None:
        return lost
    going = progress(pod, facts, now=now, config=config)
    if facts.deleted is not None and going.exit is None:
        return replace(going, again=_lost_at(facts.deleted, config), reason=going.reason or "the pod is being deleted")
    return going


def gone(*, now: Micros) -> State:
    """What is to be said of an attempt whose pod is not there any more, and whose end nobody saw."""
    known = fault("PodDeleted", "the task's pod is gone, and nobody saw it end", Failure.SYSTEM)
    return State(phase=Phase.RUNNING, since=now, exit=Exit(fault=known))


def _primary_ended(facts: Facts, end: Ended) -> State:
    came = Phase.INITIALIZING if end.started is None or end.reason in _START_ERRORS else Phase.RUNNING
    tail = f": {end.message}" if end.message else ""
    reason = f"container {facts.primary!r} ended with code {end.code}{f' ({end.reason})' if end.reason else ''}{tail}"
    ending = Exit(code=end.code, signal=end.signal, out_of_memory=end.reason == "OOMKilled", fault=_primary_fault(facts, end))
    if facts.uploader:
        ending = _without_runtime(facts, end, ending)
    return State(phase=came, since=end.finished, reason=reason, exit=ending)


def _primary_fault(facts: Facts, end: Ended) -> Fault | None:
    """Why the container ended, where it wasn't its own doing."""
    if end.reason == "OOMKilled":
        return None
    if end.reason in _START_ERRORS:
        by_user = _NO_PROGRAM.search(end.message) is not None
        failure = Failure.USER if by_user else Failure.SYSTEM
        told = f"container {facts.primary!r} could not be started: {end.message or end.reason}"
        return fault("ContainerCannotRun", told, failure, retryable=not by_user)
    if (known := _disruption(facts, end)) is not None:
        return known
    if end.reason == "ContainerStatusUnknown":
        return fault("ContainerLost", f"the node lost the container: {end.message or 'its end is unknown'}", Failure.SYSTEM)
    return None


def _without_runtime(facts: Facts, end: Ended, ending: Exit) -> Exit:
    """The end of a container that knows nothing of Flyte: its exit code is all that tells of failure.

    Outputs that another container stored don't make up for it.
    """
    if end.code == 0:
        uploader = _uploader(facts)
        if uploader is None or uploader.ended is None or uploader.ended.code == 0:
            return ending
        told = f"the outputs could not be stored: {uploader.ended.message or uploader.ended.reason}"
        return replace(ending, fault=ending.fault or fault("OutputUploadFailed", told, Failure.SYSTEM))
    if ending.fault is not None:
        known = ending.fault
    elif ending.out_of_memory:
        known = fault("OOMKilled", "the container used more memory than its limit allows and was killed", Failure.USER)
    elif end.signal is not None:
        known = fault("Interrupted", f"the container was ended by signal {end.signal}", Failure.SYSTEM)
    else:
        told = f"the container exited with code {end.code}{f': {end.message}' if end.message else ''}"
        known = fault("ContainerExited", told, Failure.USER)
    return replace(ending, fault=known)


def _storing(facts: Facts, now: Micros, config: Patience) -> State | None:
    """The time between the primary's end and its outputs'; None when it is over."""
    uploader = _uploader(facts)
    if uploader is None or uploader.ended is not None:
        return None
    if facts.deleted is None:
        again = None
    elif now >= (again := _lost_at(facts.deleted, config)):
        return None
    since = facts.main.since if facts.main is not None else None
    return State(phase=Phase.RUNNING, since=since, reason="outputs are being stored", again=again)


def _never_ended(facts: Facts) -> State:
    """A pod that failed before its primary container ended, as far as anybody saw."""
    init = _failed_init(facts)
    end = init.ended if init is not None else None
    known = _disruption(facts, end)
    if known is None and init is not None and end is not None:
        known = _init_fault(init, end)
    if known is None:
        known = fault("PodFailed", facts.message or "the pod failed, and nothing tells why", Failure.SYSTEM)
    return _over(facts, known, since=end.finished if end is not None else None)


def _init_fault(init: Container, end: Ended) -> Fault:
    told = f"init container {init.name!r} ended with code {end.code}"
    if end.reason == "OOMKilled":
        return fault("OOMKilled", f"{told}: it used more memory than its limit allows", Failure.USER)
    if end.signal is not None or init.name.startswith(OURS):
        return fault("InitContainerFailed", f"{told}: {end.message or end.reason}", Failure.SYSTEM)
    by_user = end.reason in _START_ERRORS and _NO_PROGRAM.search(end.message) is not None
    return fault("InitContainerFailed", f"{told}: {end.message or end.reason}", Failure.USER, retryable=not by_user)


def _disruption(facts: Facts, end: Ended | None) -> Fault | None:
    """What the cluster did to the pod before ``end``; None: nothing that explains it."""
    target = facts.conditions.get("DisruptionTarget")
    at = target.at if target is not None else None
    disrupted = target is not None and target.status == "True" and _explains(at, end)
    if facts.reason and (disrupted if at is not None else _explains(None, end)):
        if facts.reason == "Evicted" and _OWN_FAULT.search(facts.message):
            return fault("EphemeralStorageExceeded", facts.message, Failure.USER)
        code = _POD_REASONS.get(facts.reason, facts.reason)
        return fault(code, facts.message or f"the cluster ended the pod: {facts.reason}", Failure.SYSTEM)
    if disrupted and target is not None:
        told = target.message or f"the cluster ended the pod: {target.reason}"
        return fault(_DISRUPTIONS.get(target.reason, "Disrupted"), told, Failure.SYSTEM)
    if facts.deleted is not None and _explains(facts.delete_asked, end):
        return fault("PodDeleted", "the task's pod was deleted from outside", Failure.SYSTEM)
    return None


def _explains(at: Micros | None, end: Ended | None) -> bool:
    """Whether what happened ``at`` can be why a container ended."""
    if end is None:
        return True
    if at is None or end.finished is None:
        return end.signal is not None or end.code is None
    return at <= end.finished


def _failed_init(facts: Facts) -> Container | None:
    return next((init for init in facts.inits if not init.sidecar and init.ended is not None and init.ended.code != 0), None)


def _uploader(facts: Facts) -> Container | None:
    return next((c for c in (*facts.inits, *facts.others) if c.name == facts.uploader), None)


def _lost(facts: Facts, now: Micros, config: Patience) -> State | None:
    """A deleted pod that no kubelet will end."""
    if not facts.node:
        return _over(facts, _disruption(facts, None), since=facts.delete_asked)
    if facts.deleted is None or now < _lost_at(facts.deleted, config):
        return None
    told = f"the pod was deleted, and its node {facts.node} has not said since that it ended"
    return _over(facts, fault("NodeLost", told, Failure.SYSTEM), since=facts.deleted)


def _lost_at(deleted: Micros, config: Patience) -> Micros:
    return Micros(deleted + int(config.lost * SECOND))


def _over(facts: Facts, known: Fault | None, *, since: Micros | None = None) -> State:
    main = facts.main
    if main is not None and main.since is not None:
        came = Phase.RUNNING
    elif facts.node:
        came = Phase.INITIALIZING
    else:
        came = Phase.QUEUED
    at = since if since is not None else _last(facts)
    return State(phase=came, since=at, reason=known.message if known is not None else "", exit=Exit(fault=known))


def _last(facts: Facts) -> Micros | None:
    """When the pod's state last changed, as far as it tells."""
    ends = [c.ended.finished for c in (*facts.inits, *facts.others) if c.ended is not None]
    times = [at for at in (*ends, *(condition.at for condition in facts.conditions.values())) if at is not None]
    return max(times, default=None)
