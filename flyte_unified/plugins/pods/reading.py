"""A core v1 Pod, read once into what matters of it.

Written for any JSON: what is missing or of another type than Kubernetes says is as if it were not there. A pod may be seen
half written, from another version, or changed by anybody who may; none of that is a reason for a controller to stumble.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from flyte_unified.core.clock import SECOND, Micros

PRIMARY = "primary_container_name"
"""The annotation that names the container whose end is the attempt's: Flyte's."""
UPLOADER = "flyte.org/uploader"
"""The annotation that names the container which stores outputs when the primary has ended."""
OURS = "flyte-data-"
"""How the names of containers begin that this program adds to a pod."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SIGKILL = 9
_SIGNALS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A container's terminated state."""

    code: int | None
    signal: int | None
    """As told, or as the code tells: runtimes report 128 and the signal."""
    reason: str
    message: str
    started: Micros | None
    finished: Micros | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A container's spec and status in one."""

    name: str
    image: str
    sidecar: bool = False
    """It begins with the init containers and lasts as long as the others."""
    waiting: tuple[str, str] | None = None
    """Reason and message"""
    running: bool = False
    ready: bool = False
    """A sidecar that has started."""
    since: Micros | None = None
    """When it began to run, if it did."""
    ended: Ended | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    status: str
    reason: str
    message: str
    at: Micros | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A pod."""

    name: str
    namespace: str
    phase: str
    reason: str
    message: str
    node: str
    created: Micros | None
    deleted: Micros | None
    """When a deleted pod is to be gone: its grace is over then."""
    delete_asked: Micros | None
    conditions: Mapping[str, Condition]
    primary: str
    main: Container | None
    """The primary container; None: the spec has none of that name."""
    inits: tuple[Container, ...]
    others: tuple[Container, ...]
    uploader: str

    @property
    def over(self) -> bool:
        return self.phase in ("Succeeded", "Failed")

    def scheduled_at(self) -> Micros | None:
        condition = self.conditions.get("PodScheduled")
        return condition.at if condition is not None and condition.status == "True" else None


def read(pod: Mapping[str, Any]) -> Facts:
    """The facts of a pod."""
    metadata, spec, status = mapping(pod.get("metadata")), mapping(pod.get("spec")), mapping(pod.get("status"))
    deleted = moment(metadata.get("deletionTimestamp"))
    grace = whole(metadata.get("deletionGracePeriodSeconds")) or 0
    containers = _containers(spec.get("containers"), status.get("containerStatuses"))
    primary = primary_name(pod)
    annotations = mapping(metadata.get("annotations"))
    return Facts(
        name=text(metadata.get("name")),
        namespace=text(metadata.get("namespace")),
        phase=text(status.get("phase")),
        reason=text(status.get("reason")),
        message=text(status.get("message")),
        node=text(spec.get("nodeName")),
        created=moment(metadata.get("creationTimestamp")),
        deleted=deleted,
        delete_asked=Micros(deleted - grace * SECOND) if deleted is not None else None,
        conditions={text(entry.get("type")): _condition(entry) for entry in mappings(status.get("conditions"))},
        primary=primary,
        main=next((container for container in containers if container.name == primary), None),
        inits=_containers(spec.get("initContainers"), status.get("initContainerStatuses")),
        others=tuple(container for container in containers if container.name != primary),
        uploader=text(annotations.get(UPLOADER)),
    )


def primary_name(pod: Mapping[str, Any]) -> str:
    """As its annotation says; else the container named as the pod (Flyte's way), else the first."""
    metadata = mapping(pod.get("metadata"))
    if said := text(mapping(metadata.get("annotations")).get(PRIMARY)):
        return said
    names = [text(container.get("name")) for container in mappings(mapping(pod.get("spec")).get("containers"))]
    name = text(metadata.get("name"))
    return name if name in names or not names else names[0]


def mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def mappings(value: object) -> list[Mapping[str, Any]]:
    listed = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else ()
    return [item for item in listed if isinstance(item, Mapping)]


def text(value: object) -> str:
    """A string that can be written anywhere: JSON may hold halves of characters, protobuf may not."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""


def whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 31 else None


def moment(value: object) -> Micros | None:
    """A time as Kubernetes writes it (RFC 3339)."""
    if not isinstance(value, str):
        return None
    try:
        read = datetime.fromisoformat(value)
        return Micros(((read if read.tzinfo else read.replace(tzinfo=UTC)) - _EPOCH) // timedelta(microseconds=1))
    except (ValueError, OverflowError):
        return None


def _condition(entry: Mapping[str, Any]) -> Condition:
    return Condition(
        status=text(entry.get("status")),
        reason=text(entry.get("reason")),
        message=text(entry.get("message")),
        at=moment(entry.get("lastTransitionTime")),
    )


def _containers(specs: object, statuses: object) -> tuple[Container, ...]:
    """In the order of the spec, which is the order in which init containers run."""
    told = {text(status.get("name")): status for status in mappings(statuses)}
    return tuple(_container(spec, told.get(text(spec.get("name")), {})) for spec in mappings(specs))


def _container(spec: Mapping[str, Any], status: Mapping[str, Any]) -> Container:
    current = mapping(status.get("state"))
    waiting, running, terminated = (current.get(key) for key in ("waiting", "running", "terminated"))
    ended = _ended(terminated) if isinstance(terminated, Mapping) else None
    runs = isinstance(running, Mapping) and ended is None
    return Container(
        name=text(spec.get("name")),
        image=text(spec.get("image")),
        sidecar=spec.get("restartPolicy") == "Always",
        waiting=(text(waiting.get("reason")), text(waiting.get("message"))) if isinstance(waiting, Mapping) else None,
        running=runs,
        ready=runs and status.get("started") is True,
        since=moment(mapping(running).get("startedAt")) if ended is None else ended.started,
        ended=ended,
    )


def _ended(terminated: Mapping[str, Any]) -> Ended:
    code = whole(terminated.get("exitCode"))
    return Ended(
        code=code,
        signal=whole(terminated.get("signal")) or _signal(code),
        reason=text(terminated.get("reason")),
        message=text(terminated.get("message")).strip(),
        started=moment(terminated.get("startedAt")) or None,  # 1970 for what never began
        finished=moment(terminated.get("finishedAt")) or None,
    )


def _signal(code: int | None) -> int | None:
    """247 is -9 as a byte: what a program exits with that hands on how its child was killed."""
    if code is None:
        return None
    if code == 256 - _SIGKILL:
        return _SIGKILL
    return code - 128 if 128 < code <= 128 + _SIGNALS else None
