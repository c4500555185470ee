"""What a pod tells that has not begun: where it is held up, and whether that may still pass.

Reasons that nobody here has heard of are no failures. Kubernetes gives no time with them, so a grace is counted from when the
container could have started: from its pod's scheduling, or the end of the init container before it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from flyte_unified.core.clock import SECOND, Micros
from flyte_unified.core.phases import Phase
from flyte_unified.ledger.api import Failure
from flyte_unified.plugins.api import Exit, Fault, State
from flyte_unified.plugins.pods.config import Patience
from flyte_unified.plugins.pods.reading import Container, Facts, mapping, mappings, text

_THROTTLED = re.compile(r"\b429\b|too ?many ?requests|rate limit|rate exceeded|qps exceeded", re.IGNORECASE)
_PASSING = re.compile(r"failed to sync|timed out|deadline exceeded|is reserved for", re.IGNORECASE)
"""What a busy node says of a container that it can make later."""
_NO_SECRET = re.compile(r'secret "(?P<name>[^"]+)" not found|in secret \S+/(?P<other>\S+)', re.IGNORECASE)
PULLS = frozenset(
    {"ErrImageNeverPull", "ImageInspectError", "ImagePullBackOff", "RegistryUnavailable", "SignatureValidationFailed"}
)
"""Reasons of a container whose image can't be had."""


def fault(code: str, message: str, failure: Failure, *, retryable: bool = True) -> Fault:
    return Fault(code=code, message=message, failure=failure, retryable=retryable)


def progress(pod: Mapping[str, Any], facts: Facts, *, now: Micros, config: Patience) -> State:
    """How far a pod is that has not ended."""
    main = facts.main
    if main is not None and main.running:
        return State(phase=Phase.RUNNING, since=main.since)
    going = _held_up(pod, facts, now=now, config=config) if facts.node else _unscheduled(facts)
    if going.exit is None and config.pending and facts.created is not None:
        return _within(going, Micros(facts.created + int(config.pending * SECOND)), now=now, config=config)
    return going


def _within(going: State, until: Micros, *, now: Micros, config: Patience) -> State:
    """``going``, but no longer than the operator lets a pod be pending."""
    if now < until:
        again = min(until, going.again) if going.again is not None else until
        return State(phase=going.phase, since=going.since, reason=going.reason, again=again)
    told = f"the pod did not start within {config.pending:g} s{f': {going.reason}' if going.reason else ''}"
    return _fails(going, fault("PodPendingTimeout", told, Failure.SYSTEM), at=until)


def _unscheduled(facts: Facts) -> State:
    condition = facts.conditions.get("PodScheduled")
    if condition is None or condition.status != "False":
        return State(phase=Phase.QUEUED, since=facts.created)
    told = ": ".join(part for part in (condition.reason, condition.message) if part)
    return State(phase=Phase.WAITING_FOR_RESOURCES, since=condition.at, reason=told)


def _held_up(pod: Mapping[str, Any], facts: Facts, *, now: Micros, config: Patience) -> State:
    """A pod on a node, by the container whose turn it is."""
    turn = next((init for init in facts.inits if not (init.ready if init.sidecar else init.ended)), None) or facts.main
    since = facts.scheduled_at() or facts.created
    reason, message = turn.waiting if turn is not None and turn.waiting is not None else ("", "")
    going = State(phase=Phase.INITIALIZING, since=since, reason=": ".join(part for part in (reason, message) if part))
    if turn is None:
        return going
    grace, known = _trouble(pod, turn, reason, message, config)
    if known is None:
        return going
    begun = max((at for at in (since, *(c.ended.finished for c in facts.inits if c.ended)) if at is not None), default=None)
    until = Micros((begun if begun is not None else now) + int(grace * SECOND))
    if now < until:
        return State(phase=going.phase, since=going.since, reason=going.reason, again=until)
    return _fails(going, known, at=now if not grace else until)


def _trouble(
    pod: Mapping[str, Any], container: Container, reason: str, message: str, config: Patience
) -> tuple[float, Fault | None]:
    """What a container's waiting comes to, after a grace in seconds; None: it is no failure."""
    told = f"container {container.name!r}: {message or reason}"
    if reason == "InvalidImageName":
        return 0.0, fault(reason, f"{container.image!r} is no name of an image: {told}", Failure.USER, retryable=False)
    if reason in PULLS:
        system = reason == "RegistryUnavailable" or _THROTTLED.search(message) is not None
        failure = Failure.SYSTEM if system else Failure.USER
        return config.image_pull, fault(reason, f"image {container.image!r} can't be had: {told}", failure)
    if reason in ("CreateContainerConfigError", "CreateContainerError"):
        passing = _PASSING.search(message) is not None
        grace = config.create_container if passing or reason == "CreateContainerError" else 0.0
        failure = Failure.SYSTEM if passing else Failure.USER
        return grace, fault(reason, told + _wanted(pod, container, message), failure, retryable=passing)
    return 0.0, None


def _wanted(pod: Mapping[str, Any], container: Container, message: str) -> str:
    """For what a missing Secret is wanted: the task's author knows the variable, not the object."""
    match = _NO_SECRET.search(message)
    if match is None:
        return ""
    name = match["name"] or match["other"]
    spec = mapping(pod.get("spec"))
    variables = {
        text(entry.get("name"))
        for kind in ("containers", "initContainers")
        for found in mappings(spec.get(kind))
        if text(found.get("name")) == container.name
        for entry in mappings(found.get("env"))
        if mapping(mapping(entry.get("valueFrom")).get("secretKeyRef")).get("name") == name
    }
    return f"; Secret {name!r} holds the value of {', '.join(sorted(variables))}" if variables else ""


def _fails(going: State, known: Fault, *, at: Micros) -> State:
    return State(phase=going.phase, since=at, reason=known.message, exit=Exit(fault=known))
