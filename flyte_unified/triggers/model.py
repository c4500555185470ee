"""What a trigger is, and what becomes of it. Pure: each change says what the next revision holds, or that there is none."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from flyteidl2.task import common_pb2
from flyteidl2.trigger import trigger_definition_pb2

from flyte_unified.core.clock import Micros
from flyte_unified.core.errors import Aborted
from flyte_unified.ledger.api import TaskId
from flyte_unified.triggers.schedule import Schedule, begin, schedule_of


class TriggerKey(NamedTuple):
    """One trigger of a task, whatever the task's version."""

    project: str
    domain: str
    task: str
    name: str

    def __str__(self) -> str:
        return f"{self.name!r} of task {self.project}/{self.domain}/{self.task}"


class Automation(enum.IntEnum):
    """Numbers as in flyteidl2.task.TriggerAutomationSpecType."""

    TYPE_NONE = 1
    TYPE_SCHEDULE = 2
    TYPE_ARTIFACT = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Appeared:
    """A version of an artifact that was created at ``at``. ``partitions`` are those that are text."""

    project: str
    domain: str
    name: str
    version: str
    partitions: Mapping[str, str]
    at: Micros


class Offer(NamedTuple):
    """A version of an artifact that a trigger is still to fire for."""

    at: Micros
    artifact: str
    version: str


class Change(enum.IntEnum):
    """What made a revision. Numbers as in flyteidl2.trigger.TriggerRevisionAction."""

    DEPLOY = 1
    ACTIVATE = 2
    DEACTIVATE = 3
    DELETE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """One row of ``triggers``: the latest revision."""

    key: TriggerKey
    revision: int = 1
    change: Change = Change.DEPLOY
    """What made this revision."""
    spec: bytes
    """flyteidl2.trigger.TriggerSpec, as it was deployed"""
    automation: bytes
    """flyteidl2.task.TriggerAutomationSpec"""
    automation_type: Automation
    task_version: str
    active: bool
    description: str = ""
    deployed_by: str
    updated_by: str
    deployed_at: Micros
    """The first time."""
    updated_at: Micros
    deleted_at: Micros | None = None
    next_fire: Micros | None = None
    """When it is to fire, or, at an artifact, should have; None while nothing is to come."""

    @property
    def task(self) -> TaskId:
        """The version of the task that it starts."""
        return TaskId(self.key.project, self.key.domain, self.key.task, self.task_version)

    @property
    def schedule(self) -> Schedule | None:
        return _schedule(self.automation)

    def due(self, now: Micros) -> Micros | None:
        """When it is to fire; None while nothing is to come."""
        return due(self.automation_type, self.next_fire, now) if self.next_fire is not None else None

    def spec_message(self) -> trigger_definition_pb2.TriggerSpec:
        """The spec of this revision: deployed, and activated or paused since."""
        message = trigger_definition_pb2.TriggerSpec.FromString(self.spec)
        message.active = self.active
        return message

    def automation_message(self) -> common_pb2.TriggerAutomationSpec:
        return common_pb2.TriggerAutomationSpec.FromString(self.automation)


def deployed(known: Trigger | None, wanted: Trigger, *, now: Micros, expected: int = 0) -> Trigger | None:
    """``wanted`` as the next revision. None: ``expected`` was right once, and the call that meant it has been here.

    What is due and not begun stays due where the schedule is the same. ``expected`` is the latest revision as the caller knows
    it; 0 if that is no matter. Raises Aborted when it is another.
    """
    if known is None:
        return replace(wanted, next_fire=_first(wanted, now))
    live = known.deleted_at is None
    if live and expected not in (0, known.revision):
        if expected == known.revision - 1 and same(known, wanted):
            return None
        raise Aborted(f"revision: trigger {known.key} has revision {known.revision} by now, not {expected}; fetch it again")
    return replace(
        wanted,
        revision=known.revision + 1,
        deployed_at=known.deployed_at,
        next_fire=known.next_fire if goes_on(known, wanted) else _first(wanted, now),
    )


def goes_on(known: Trigger, after: Trigger) -> bool:
    """Whether what is due of ``known`` is due of its next revision."""
    return known.active and after.active and known.automation == after.automation


def same(known: Trigger, wanted: Trigger) -> bool:
    """Whether to deploy ``wanted`` would change nothing."""
    return known.deleted_at is None and all(
        getattr(known, name) == getattr(wanted, name) for name in ("spec", "automation", "task_version", "active")
    )


def switched(known: Trigger, *, active: bool, by: str, now: Micros) -> Trigger | None:
    """Activated or paused; None where it is so already. What would have come during a pause is not caught up."""
    if known.active == active:
        return None
    after = replace(known, active=active)
    return replace(
        after,
        revision=known.revision + 1,
        change=Change.ACTIVATE if active else Change.DEACTIVATE,
        updated_by=by,
        updated_at=now,
        next_fire=_first(after, now),
    )


def deleted(known: Trigger, *, by: str, now: Micros) -> Trigger | None:
    """Deleted, its history kept; None where it is so already."""
    if known.deleted_at is not None:
        return None
    return replace(
        known,
        revision=known.revision + 1,
        change=Change.DELETE,
        active=False,
        updated_by=by,
        updated_at=now,
        deleted_at=now,
        next_fire=None,
    )


def watches(automation: bytes, new: Appeared) -> bool:
    """Whether a trigger with this automation, active and of the same project and domain, fires for ``new``."""
    wanted = _automation(automation).artifact
    return (
        wanted.artifact_name == new.name
        and wanted.version in ("", new.version)
        and all(new.partitions.get(key) == value for key, value in wanted.partitions.items())
    )


def due(automation: int, at: Micros, now: Micros) -> Micros:
    """What an artifact fires is due since it was noted, though it may have been by a clock that was ahead."""
    return min(at, now) if automation == Automation.TYPE_ARTIFACT else at


def _first(trigger: Trigger, now: Micros) -> Micros | None:
    schedule = trigger.schedule if trigger.active else None
    return begin(schedule, now) if schedule is not None else None


@lru_cache(maxsize=1024)
def _schedule(automation: bytes) -> Schedule | None:
    return schedule_of(_automation(automation))


@lru_cache(maxsize=1024)
def _automation(automation: bytes) -> common_pb2.TriggerAutomationSpec:
    """Shared by its readers."""
    return common_pb2.TriggerAutomationSpec.FromString(automation)
