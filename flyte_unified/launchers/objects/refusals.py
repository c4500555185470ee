"""What an API server's refusal to create an object means for its attempt. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from flyte_unified.kube.errors import Away, Conflict, Forbidden, Invalid, KubeError, Missing, Throttled
from flyte_unified.kube.kinds import Kind
from flyte_unified.ledger.api import Failure
from flyte_unified.plugins.api import Fault

QUOTA = "exceeded quota"
_MENDABLE = ("cannot create resource", "error looking up service account")
"""Rights and accounts that somebody may still add: a new namespace has its default account a moment later."""
_ENDING = "is being terminated"
_CODES = {400: "BadRequest", 403: "Forbidden", 413: "EntityTooLarge", 422: "InvalidResource"}
_OPERATORS = {
    "batch.volcano.sh": "Volcano",
    "jobset.x-k8s.io": "JobSet",
    "kubeflow.org": "Kubeflow's training operator",
    "kubernetes.dask.org": "the Dask operator",
    "ray.io": "KubeRay",
    "sparkoperator.k8s.io": "the Spark operator",
}
"""What serves a group, for people."""


@dataclass(frozen=True, slots=True)
class Full:
    """A quota leaves no room: it is tried again when there may be some."""

    reason: str


@dataclass(frozen=True, slots=True)
class Later:
    """Tried again after a pause. With a ``reason`` people should know."""

    reason: str = ""


Meaning = Full | Later | Fault


def meaning(error: KubeError, kind: Kind) -> Meaning:
    """A Fault is final for the attempt."""
    if isinstance(error, Forbidden) and error.status == 403:
        if QUOTA in error.message:
            return Full(error.message)
        if any(words in error.message for words in _MENDABLE):
            return Later(error.message)
        return _no_place(error) if _ENDING in error.message else _wrong(error)
    if isinstance(error, Missing):
        return _missing(error, kind)
    if isinstance(error, Invalid):
        return _wrong(error)
    if isinstance(error, Throttled | Away | Conflict | Forbidden):
        return Later()
    return Fault(code=error.reason or "Refused", message=error.message, failure=Failure.SYSTEM)


def no_kind(kind: Kind) -> Fault:
    """The cluster does not serve ``kind``."""
    operator = _OPERATORS.get(kind.group)
    advice = f": install {operator}" if operator else ""
    message = f"the cluster has no {kind.kind} ({kind.api_version}){advice}"
    return Fault(code="MissingOperator", message=message, failure=Failure.USER, retryable=False)


def taken(name: str, kind: Kind) -> Fault:
    """Somebody else's object has the name of ours. The next attempt's is another."""
    message = f"there is a {kind.kind} {name} that is not this attempt's"
    return Fault(code="NameTaken", message=message, failure=Failure.SYSTEM)


def _missing(error: Missing, kind: Kind) -> Fault:
    return no_kind(kind) if error.is_kind else _no_place(error)


def _no_place(error: KubeError) -> Fault:
    return Fault(code="MissingNamespace", message=error.message, failure=Failure.SYSTEM)


def _wrong(error: KubeError) -> Fault:
    return Fault(code=_CODES.get(error.status, "InvalidResource"), message=error.message, failure=Failure.USER, retryable=False)
