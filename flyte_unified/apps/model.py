"""What an app is, and what becomes of it: pure, as a table of what is known, what is asked and what follows.

The status is told as a row of conditions, the latest last (flyteidl2/app/app_definition.proto): clients look at that one alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import NamedTuple

from flyteidl2.app import app_definition_pb2 as idl
from flyteidl2.common import identity_pb2

from flyte_unified.core.clock import Micros, timestamp
from flyte_unified.core.errors import Aborted, AlreadyExists, InvalidArgument

Phase = idl.Status.DeploymentStatus
Substate = idl.Status.Substate

_ON_REQUEST = {Substate.SCALED_TO_ZERO: "asleep", Substate.SCALING_FROM_ZERO: "waking"}
_STATES = {
    Phase.DEPLOYMENT_STATUS_ACTIVE: "running",
    Phase.DEPLOYMENT_STATUS_FAILED: "failed",
    Phase.DEPLOYMENT_STATUS_STOPPED: "stopped",
    Phase.DEPLOYMENT_STATUS_UNASSIGNED: "unassigned",
}

_CONDITIONS = 50
"""Kept of an app's history."""


class AppKey(NamedTuple):
    """One app. Unique within its project and domain."""

    project: str
    domain: str
    name: str

    def __str__(self) -> str:
        return f"{self.project}/{self.domain}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """Its messages are shared by all who read them, and never changed."""

    key: AppKey
    version: int
    """Grows with every write; ``meta.revision`` does with those of clients."""
    meta: idl.Meta
    spec: idl.Spec
    status: idl.Status
    deployment: str
    """Two of the same are served by the same replicas."""
    host: str | None
    """Its short host name. None where another app has it."""
    created_by: str
    created_at: Micros
    updated_at: Micros

    @property
    def revision(self) -> int:
        return int(self.meta.revision)

    @property
    def wanted(self) -> bool:
        """Whether it shall be there, or come when it is asked for."""
        return bool(self.spec.desired_state != idl.Spec.DESIRED_STATE_STOPPED)

    @property
    def phase(self) -> int:
        return int(self.status.conditions[-1].deployment_status) if self.status.conditions else 0

    @property
    def substate(self) -> int:
        return int(self.status.conditions[-1].substate) if self.status.conditions else 0


def state(app: App) -> str:
    """How it is, in a word."""
    return _ON_REQUEST.get(app.substate) or _STATES.get(app.phase, "starting")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What whoever runs an app has to say of it."""

    phase: int
    substate: int = Substate.SUBSTATE_UNSPECIFIED
    message: str = ""
    replicas: int = 0


def created(key: AppKey, asked: idl.App, *, by: str, creator: identity_pb2.EnrichedIdentity, now: Micros) -> App:
    """The first revision of what ``asked`` says."""
    spec = _spec(asked.spec, creator)
    meta = idl.Meta()
    meta.CopyFrom(asked.metadata)
    meta.revision = 1
    status = idl.Status(created_at=timestamp(now), last_updated_at=timestamp(now))
    app = App(
        key=key,
        version=1,
        meta=meta,
        spec=spec,
        status=status,
        deployment=deployment(spec),
        host=None,
        created_by=by,
        created_at=now,
        updated_at=now,
    )
    return _begun(app, now=now, actor=creator)


def again(known: App, asked: idl.App, *, now: Micros) -> App:
    """A creation of what is there: no change where it is the same, but another try of what failed. Raises AlreadyExists."""
    if _content(known.spec) != _content(_spec(asked.spec, known.spec.creator)):
        raise AlreadyExists(f"app.metadata.id: there is an app {known.key} already, which is different; update it")
    return _tried_again(known, now=now)


def updated(known: App, asked: idl.App, *, reason: str, actor: identity_pb2.EnrichedIdentity, now: Micros) -> App:
    """The next revision; ``known`` itself where ``asked`` is no change, or one that was made already (see ``again``).

    Raises Aborted when another revision than ``asked`` says is the present one.
    """
    spec = _spec(asked.spec, known.spec.creator)
    if not asked.spec.HasField("ingress"):
        spec.ClearField("ingress")
        if known.spec.HasField("ingress"):
            spec.ingress.CopyFrom(known.spec.ingress)
    meta = idl.Meta()
    meta.CopyFrom(known.meta)
    _renew(meta, asked.metadata)
    same = _content(spec) == _content(known.spec) and meta == known.meta
    if asked.metadata.revision not in (known.revision, known.revision - 1 if same else known.revision):
        raise Aborted(
            f"app.metadata.revision: {asked.metadata.revision} was read, and {known.revision} is the present one: "
            f"somebody else changed app {known.key}; read it again"
        )
    if same:
        return _tried_again(known, now=now)
    meta.revision = known.revision + 1
    after = replace(
        known,
        version=known.version + 1,
        meta=meta,
        spec=spec,
        deployment=deployment(spec),
        updated_at=now,
        status=_copy(known, now),
    )
    if after.wanted and (after.deployment != known.deployment or not known.wanted):
        return _begun(after, now=now, actor=actor, message=reason)
    return after


def observed(known: App, told: Told, *, now: Micros) -> App | None:
    """What is known after ``told``; None when that is nothing new."""
    last = known.status.conditions[-1] if known.status.conditions else idl.Condition()
    same = (last.deployment_status, last.substate, last.message) == (told.phase, told.substate, told.message)
    if same and known.status.current_replicas == told.replicas:
        return None
    status = _copy(known, now)
    status.current_replicas = told.replicas
    if told.substate == Substate.RUNNING and not same:
        status.last_started_at.CopyFrom(timestamp(now))
    after = replace(known, version=known.version + 1, status=status, updated_at=now)
    if not same:
        _add(after, told, now=now)
    return after


def deployment(spec: idl.Spec) -> str:
    """A digest of all that replicas are made of: not of what only says how many there are, and how they are reached."""
    made = idl.Spec()
    made.CopyFrom(spec)
    for field in ("autoscaling", "ingress", "desired_state", "profile", "creator", "links", "timeouts", "cluster_pool"):
        made.ClearField(field)
    return hashlib.sha256(made.SerializeToString(deterministic=True)).hexdigest()


def _spec(asked: idl.Spec, creator: identity_pb2.EnrichedIdentity) -> idl.Spec:
    spec = idl.Spec()
    spec.CopyFrom(asked)
    if not spec.HasField("container") and not spec.HasField("pod"):
        raise InvalidArgument("app.spec: neither container nor pod is set")
    if spec.desired_state in (idl.Spec.DESIRED_STATE_UNSPECIFIED, idl.Spec.DESIRED_STATE_STARTED):  # the latter is the old name
        spec.desired_state = idl.Spec.DESIRED_STATE_ACTIVE
    if not spec.HasField("ingress"):
        spec.ingress.SetInParent()  # clients take it for granted
    spec.creator.CopyFrom(creator)
    return spec


def _content(spec: idl.Spec) -> idl.Spec:
    """What makes two specs the same to a client: who made the app is no part of it."""
    content = idl.Spec()
    content.CopyFrom(spec)
    content.ClearField("creator")
    return content


def _tried_again(known: App, *, now: Micros) -> App:
    """What failed may find by now what it lacked: who asks for it again need not wait for the next try."""
    if known.phase != Phase.DEPLOYMENT_STATUS_FAILED or not known.wanted:
        return known
    after = replace(known, version=known.version + 1, status=_copy(known, now), updated_at=now)
    _add(after, Told(phase=Phase.DEPLOYMENT_STATUS_PENDING, message="it is tried again"), now=now)
    return after


def _renew(meta: idl.Meta, asked: idl.Meta) -> None:
    """What an update says anew; what it leaves out stays."""
    if asked.labels:
        meta.ClearField("labels")
        meta.labels.update(asked.labels)
    if asked.code_bundle_uri:
        meta.code_bundle_uri = asked.code_bundle_uri
    if asked.HasField("source_code"):
        meta.source_code.CopyFrom(asked.source_code)


def _begun(app: App, *, now: Micros, actor: identity_pb2.EnrichedIdentity, message: str = "") -> App:
    if not app.wanted:
        told = Told(phase=Phase.DEPLOYMENT_STATUS_STOPPED, message=message)
    elif app.spec.cluster:
        told = Told(phase=Phase.DEPLOYMENT_STATUS_UNASSIGNED, message=f"waits for cluster {app.spec.cluster!r} to lease it")
    else:
        told = Told(phase=Phase.DEPLOYMENT_STATUS_PENDING, message=message)
    _add(app, told, now=now, actor=actor)
    return app


def _add(app: App, told: Told, *, now: Micros, actor: identity_pb2.EnrichedIdentity | None = None) -> None:
    """A condition more of a status that nobody has seen yet."""
    conditions = app.status.conditions
    conditions.add(
        last_transition_time=timestamp(now),
        deployment_status=told.phase,
        substate=told.substate,
        message=told.message,
        revision=app.revision,
        actor=actor,
        deployment_id=app.deployment,
    )
    del conditions[:-_CONDITIONS]


def _copy(app: App, now: Micros) -> idl.Status:
    status = idl.Status()
    status.CopyFrom(app.status)
    status.last_updated_at.CopyFrom(timestamp(now))
    return status
